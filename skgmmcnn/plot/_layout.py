"""Layout of layered drawings, in inches."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import networkx as nx
import numpy as np

from ..graph import strength_of

NAME = 1.2  # room for the name of a layer
# Places of a label along an edge, the middle first.
_SHARES = sorted((0.1 + 0.05 * i for i in range(17)), key=lambda share: abs(share - 0.5))

Key = TypeVar("Key", bound=Hashable)
Line = tuple[float, float, float, float]  # x and y of both ends


class Box(NamedTuple):
    """A rectangle; y grows upwards."""

    left: float
    bottom: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The x of the right side."""
        return self.left + self.width

    @property
    def top(self) -> float:
        """The y of the upper side."""
        return self.bottom + self.height

    @property
    def middle(self) -> float:
        """The x of the centre."""
        return self.left + self.width / 2

    @property
    def centre(self) -> float:
        """The y of the centre."""
        return self.bottom + self.height / 2

    @classmethod
    def around(cls, boxes: Iterable[Box], left: float, right: float, bottom: float, top: float) -> Box:
        """Return the box around all boxes with these margins."""
        lefts, bottoms, rights, tops = zip(*((box.left, box.bottom, box.right, box.top) for box in boxes), strict=True)
        x, y = min(lefts) - left, min(bottoms) - bottom
        return cls(x, y, max(rights) + right - x, max(tops) + top - y)

    def fitted(self, height: float, width: float) -> Box:
        """Return the largest box of these proportions in the middle of this one."""
        scale = min(self.width / width, self.height / height)
        left, bottom = self.middle - width * scale / 2, self.centre - height * scale / 2
        return Box(left, bottom, width * scale, height * scale)

    def overlaps(self, other: Box) -> bool:
        """Return whether the two rectangles share an inner point."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )


def height_of_images(width: float, shapes: Iterable[tuple[int, ...]]) -> float:
    """Return the height of equal boxes of a width for images of these shapes, within sensible proportions."""
    highest = max(shape[0] / shape[1] for shape in shapes)
    return width * min(max(highest, 0.4), 1.6)


def rows_of(graph: nx.DiGraph) -> list[list[list[str]]]:
    """Return the nodes by row, from the target down, and in each row by layer.

    Layers of the same depth share a row.  Layers, and the words of each, are sorted by the mean place of the nodes that
    they explain, weighted by strength (the barycentre heuristic of Sugiyama, Tagawa and Toda, 1981).
    """
    depths: dict[int, dict[str, list[str]]] = {}
    for key, node in graph.nodes(data=True):
        depths.setdefault(node["depth"], {}).setdefault(node["layer"], []).append(key)
    rows: list[list[list[str]]] = []
    place: dict[str, float] = {}
    for depth in sorted(depths):
        layers = sorted(depths[depth].values(), key=lambda layer: _barycentre(graph, layer, place))
        rows.append([sorted(layer, key=lambda key: _barycentre(graph, [key], place)) for layer in layers])
        row = list(itertools.chain.from_iterable(rows[-1]))
        place |= {key: (i + 0.5) / len(row) for i, key in enumerate(row)}
    return rows


def _barycentre(graph: nx.DiGraph, keys: Iterable[str], place: Mapping[str, float]) -> float:
    rank = strength_of(graph).magnitude
    edges = [(place[head], rank(edge)) for _, head, edge in graph.out_edges(keys, data=True)]
    total = sum(weight for _, weight in edges)
    return sum(x * weight for x, weight in edges) / total if total else 0.5


def place_cells(
    rows: Sequence[Sequence[Sequence[str]]], size: tuple[float, float], gap: float, rise: float
) -> dict[str, Box]:
    """Return a box of `size` (width, height) for every node: centred rows, `rise` apart, from the top down.

    The layers of a row leave room for the name of a layer between them.
    """
    width, height = size
    boxes = {}
    for number, row in enumerate(rows):
        n_nodes = sum(map(len, row))
        x = -(n_nodes * (width + gap) - gap + (len(row) - 1) * NAME) / 2
        for layer in row:
            for key in layer:
                boxes[key] = Box(x, -number * (height + rise) - height, width, height)
                x += width + gap
            x += NAME
    return boxes


def attach(graph: nx.DiGraph, boxes: Mapping[str, Box]) -> dict[tuple[str, str], Line]:
    """Return x and y of both ends of every edge, spread along each box in the order of the other ends."""
    tails: dict[tuple[str, str], tuple[float, float]] = {}
    heads: dict[tuple[str, str], tuple[float, float]] = {}
    for key, box in boxes.items():
        for edges, other, y, ends in (
            (graph.out_edges(key), 1, box.top, tails),
            (graph.in_edges(key), 0, box.bottom, heads),
        ):
            for number, edge in enumerate(sorted(edges, key=lambda edge: boxes[edge[other]].middle)):
                ends[edge] = box.left + box.width * (0.2 + 0.6 * (number + 0.5) / len(edges)), y
    return {edge: (*tails[edge], *heads[edge]) for edge in graph.edges}


def edge_strengths(graph: nx.DiGraph) -> dict[tuple[str, str], float]:
    """Return the strength of every edge relative to the largest, negative against the target.

    Bits are compared within a row, nats throughout the graph.
    """
    strength = strength_of(graph)
    largest: dict[int, float] = defaultdict(float)
    rows = {edge: 0 if strength.comparable_across_rows else graph.nodes[edge[1]]["depth"] for edge in graph.edges}
    for edge, row in rows.items():
        largest[row] = max(largest[row], abs(strength.of_edge(graph.edges[edge])))
    return {edge: strength.of_edge(graph.edges[edge]) / largest[row] for edge, row in rows.items()}


def place_labels(lines: Mapping[Key, Line], width: float, height: float, occupied: Sequence[Box]) -> dict[Key, Box]:
    """Return boxes for labels on the edges, in the order of `lines`; none for an edge without a free place.

    Of the free places, the one that fewest other edges pass is taken, nearest to the middle of the edge.
    """
    boxes: dict[Key, Box] = {}
    ends = np.array(list(lines.values()))
    for key, (x, y, end_x, end_y) in lines.items():
        places = [
            Box(x + share * (end_x - x) - width / 2, y + share * (end_y - y) - height / 2, width, height)
            for share in _SHARES
        ]
        obstacles = [*occupied, *boxes.values()]
        free = [place for place in places if not any(map(place.overlaps, obstacles))]
        if free:
            boxes[key] = min(free, key=lambda place: _count_passing(ends, place))
    return boxes


def _count_passing(lines: np.ndarray, box: Box) -> int:
    """Return the number of lines (m, 4) that pass through a box, by the Liang-Barsky algorithm."""
    begin, step = lines[:, :2], lines[:, 2:] - lines[:, :2]
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = ((corner - begin) / step for corner in ((box.left, box.bottom), (box.right, box.top)))
    first, last = np.minimum(one, other).max(1), np.maximum(one, other).min(1)
    return int((np.maximum(first, 0) < np.minimum(last, 1)).sum())
