"""Where the parts of a layered drawing go, in units of one picture's side."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import networkx as nx

# Where on an edge its label may stand, the middle first.
_SHARES = sorted((0.1 + 0.05 * i for i in range(17)), key=lambda share: abs(share - 0.5))

Key = TypeVar("Key", bound=Hashable)


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

    def overlaps(self, other: Box) -> bool:
        """Tell whether the two rectangles share a point inside."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )


def rows_of(graph: nx.DiGraph) -> list[list[str]]:
    """Return the nodes layer by layer from the decision down, ordered so that strong edges run straight.

    Each layer is sorted by the mean place of what its words explain, weighted by contribution (the barycentre
    heuristic of Sugiyama, Tagawa and Toda, 1981).
    """
    layers: dict[str, list[str]] = {}
    for key, node in graph.nodes(data=True):
        layers.setdefault(node["layer"], []).append(key)
    rows = list(layers.values())
    for above, row in itertools.pairwise(rows):
        place = {key: (i + 0.5) / len(above) for i, key in enumerate(above)}
        row.sort(key=lambda key: _barycentre(graph, key, place))
    return rows


def _barycentre(graph: nx.DiGraph, key: str, place: Mapping[str, float]) -> float:
    edges = [(place[head], edge["contribution"]) for _, head, edge in graph.out_edges(key, data=True)]
    total = sum(weight for _, weight in edges)
    return sum(x * weight for x, weight in edges) / total if total else 0.5


def place_cells(rows: Sequence[Sequence[str]], width: float, height: float, gap: float, rise: float) -> dict[str, Box]:
    """Return a box of `width` and `height` for every node, rows centred and `rise` apart, the first row on top."""
    widest = max(map(len, rows)) * (width + gap) - gap
    boxes = {}
    for number, row in enumerate(rows):
        left = (widest - (len(row) * (width + gap) - gap)) / 2
        for i, key in enumerate(row):
            boxes[key] = Box(left + i * (width + gap), -number * (height + rise) - height, width, height)
    return boxes


def attach(graph: nx.DiGraph, boxes: Mapping[str, Box]) -> dict[tuple[str, str], tuple[float, float, float, float]]:
    """Return x and y of both ends of every edge: spread along the boxes in the order of their other ends."""
    leave = {key: sorted(graph.successors(key), key=lambda head: boxes[head].middle) for key in graph}
    arrive = {key: sorted(graph.predecessors(key), key=lambda tail: boxes[tail].middle) for key in graph}
    return {
        (tail, head): (
            _spread(boxes[tail], leave[tail].index(head), len(leave[tail])),
            boxes[tail].top,
            _spread(boxes[head], arrive[head].index(tail), len(arrive[head])),
            boxes[head].bottom,
        )
        for tail, head in graph.edges
    }


def _spread(box: Box, number: int, of: int) -> float:
    return box.left + box.width * (0.2 + 0.6 * (number + 0.5) / of)


def place_labels(
    lines: Iterable[tuple[Key, tuple[float, float, float, float]]], width: float, height: float
) -> dict[Key, Box]:
    """Return boxes for labels on the edges, in the order of `lines`; where no place on an edge is free, none."""
    placed: dict[Key, Box] = {}
    for edge, (x0, y0, x1, y1) in lines:
        for share in _SHARES:
            x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
            box = Box(x - width / 2, y - height / 2, width, height)
            if not any(box.overlaps(other) for other in placed.values()):
                placed[edge] = box
                break
    return placed
