"""InferenceGraphDisplay: an inference graph as a picture."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from textwrap import wrap
from typing import Any

import networkx as nx
import numpy as np
from sklearn.pipeline import Pipeline

from .._pipelines import open_pipeline
from ..dictionary import Vocabulary, WordMaps
from ..graph import InferenceGraph
from ..graph._strength import evidence_of, strength_of
from ..graph._targets import Target
from ..graph._text import asked, telling
from ._cells import Cells, cells_of, draw_cells, equal_cells
from ._drawing import (
    AGAINST,
    INK,
    MARK,
    WARNING,
    Display,
    Limits,
    draw_image,
    draw_patches,
    draw_share,
    frame,
    has_rings,
    in_lines,
    make_axes,
    shortened,
    with_key,
    write,
    write_key,
)
from ._edge_maps import edge_maps as maps_of_edges
from ._layout import Box, Line, attach, edge_strengths, place_cells, place_labels, rows_of
from ._reading import check_image, pictures, run

_CAPTION = 0.36
_LEADING = 0.0174  # inches from line to line, for each point of the letters' size
_GAP = 0.45
_RISE = 1.15
_TITLE = 42  # letters of a line of the decision's title
_MAP = 0.42  # side of an edge's map
_LABEL, _LABEL_WITH_MAP = (1.12, 0.17), (1.12, 0.19 + _MAP)


class InferenceGraphDisplay(Display):
    """An inference graph as a picture: the decision on top, below it one row of words per layer.

    A word is shown by what its most typical locations see of the images that the dictionary was fitted on, with a ring
    at the location where that is the whole image.  For the graph of one image, the image stands beside it, with the
    word's locations tinted.  Edges lead up to what a word explains: the stronger, the wider and darker.

    Of a graph of influence, words have the share of the log-odds that they carry, and the probability of the class
    without them.  Edges have their exact effect in nats, by which they are drawn, and their share of what the upper
    word does; those that work against the class are orange.  Where the words that are shown do not keep the decision,
    that stands below it.

    Of a graph of counts, words have their evidence in bits.  Edges have theirs in bits per location, by which they are
    drawn, among those of their row, and their share of the upper word's receptive fields.  Below the decision stands in
    orange from how many images it was learnt, where these are fewer than ten, and what the words speak for, where that
    is not what the network decided.

    Parameters
    ----------
    graph : networkx.DiGraph
        As made by :class:`~skgmmcnn.InferenceGraph`.
    vocabulary : Vocabulary
        The words, with their representatives.
    images : list of uint8 arrays (height, width, 3)
        The image that is explained, or some of those of a class.
    locations : dict of str to bool array of shape (H, W), or None
        For the graph of one image, where each word is, by node.
    cells : dict of str to (rows, columns), default=None
        Where in the image the locations of each layer begin and end, as shares of its height and width, float arrays of
        shape (H + 1,) and (W + 1,); None divides the image evenly.
    edge_maps : dict of (tail, head) to float array, default=None
        The share of the fields of the upper word that show the lower one, at each place of a whole field, of shape
        (height, width); for the decision, of the images.  Fields that the border cuts count where they reach; NaN where
        none does.  Drawn on the edges where there is room.
    predicted : str, default=None
        The class that the words of the image speak for, by :meth:`InferenceGraph.predict`, to be named where it is not
        the one that is explained.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn into.
    figure_ : matplotlib.figure.Figure
        The figure of the axes.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, InferenceGraph, InferenceGraphDisplay, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> pipe = make_pipeline(
    ...     FeatureExtractor(digits.network, layers=["conv2", "conv3"]),
    ...     LayerDictionary(30, random_state=0),
    ...     InferenceGraph(),
    ... ).fit(digits.images)
    >>> display = InferenceGraphDisplay.from_estimator(pipe, digits.test_images, image=3)
    >>> display.save("graph.png")  # doctest: +SKIP
    """

    def __init__(
        self,
        graph: nx.DiGraph,
        vocabulary: Vocabulary,
        *,
        images: list[np.ndarray],
        locations: Mapping[str, np.ndarray] | None = None,
        cells: Mapping[str, Cells] | None = None,
        edge_maps: Mapping[tuple[str, str], np.ndarray] | None = None,
        predicted: str | None = None,
    ) -> None:
        self.graph = graph
        self.vocabulary = vocabulary
        self.images = images
        self.locations = locations
        self.cells = cells
        self.edge_maps = edge_maps
        self.predicted = predicted
        self._told = telling(graph)

    @classmethod
    def from_estimator(
        cls,
        estimator: InferenceGraph | Pipeline,
        X: Any,
        *,
        image: int | None = None,
        label: int | str | None = None,
        target: Target = None,
        contrast: int | str | None = None,
        n_patches: int = 4,
        edge_maps: bool = False,
        ax: Any = None,
    ) -> InferenceGraphDisplay:
        """Explain one image, or one class, and draw the graph.

        Parameters
        ----------
        estimator : InferenceGraph or Pipeline
            Fitted; a pipeline ends with an :class:`~skgmmcnn.InferenceGraph`.
        X : WordMaps, or what the pipeline takes
            Words for an InferenceGraph, images for a pipeline.
        image : int, default=None
            Which image of X to explain; None takes the first.
        label : int or str, default=None
            A class, by number or name: explain all images of X that the network gives this class, instead of one.
        target : int, str or tuple, default=None
            What is explained of one image, as in :meth:`InferenceGraph.explain`: its decision, another class, a word
            or a location.
        contrast : int or str, default=None
            A class, by number or name, with which the decision is contrasted.
        n_patches : {1, 4, 9}, default=4
            Typical patches per word.
        edge_maps : bool, default=False
            Whether to draw on the edges where in the upper word's receptive field the lower word is.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into; None makes a figure of fitting size.

        Returns
        -------
        display : InferenceGraphDisplay
            The drawn display.
        """
        before, estimator, X = open_pipeline(estimator, X, InferenceGraph)
        if label is None:
            words = run(before, X[check_image(0 if image is None else image, len(X)) :][:1])
            (graph,) = estimator.explain(words, target, contrast=contrast)
            display = cls._of_image(graph, words)
            if evidence_of(graph) == "counts" and graph.graph.get("target") == words.decisions[0]:
                display.predicted = words.spec.class_name(int(estimator.predict(words)[0]))
        elif target is not None or image is not None:
            one = f"image={image!r}" if target is None else f"target={target!r}"
            raise ValueError(f"label={label!r} explains a class, {one} one image; give one of them.")
        else:
            words = run(before, X)
            graph = estimator.explain_class(words, label, contrast=contrast)
            words = words[np.flatnonzero(words.decisions == graph.graph["target"])]
            display = cls(graph, words.vocabulary, images=pictures(words, range(min(4, len(words)))))
        if edge_maps:
            display.edge_maps = maps_of_edges(estimator, words, graph)
        return display.plot(n_patches=n_patches, ax=ax)

    @classmethod
    def _of_image(cls, graph: nx.DiGraph, words: WordMaps) -> InferenceGraphDisplay:
        """Return the display of a graph that explains the only image of `words`."""
        locations = {key: _locations(words, node) for key, node in graph.nodes.items() if node["layer"] in words.words}
        images = pictures(words, [0])
        cells = {layer: cells_of(words.spec, layer) for layer in words.layers} if images else None
        return cls(graph, words.vocabulary, images=images, locations=locations, cells=cells)

    def plot(self, *, n_patches: int = 4, ax: Any = None) -> InferenceGraphDisplay:
        """Draw the graph.

        Parameters
        ----------
        n_patches : {1, 4, 9}, default=4
            Typical patches per word.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into; None makes a figure of fitting size.

        Returns
        -------
        display : InferenceGraphDisplay
            The display itself.
        """
        if n_patches not in (1, 4, 9):
            raise ValueError(f"n_patches must be 1, 4 or 9, to fill a square; got {n_patches}.")
        rows = rows_of(self.graph)
        width = 1.0 if self.locations is None or not self.images else 2.06
        cards = [self._told.card(node, width > 1) for node in self.graph.nodes.values() if "class_name" not in node]
        of_words = _CAPTION + 0.14 * max((card.count("\n") for card in cards), default=0)
        caption = max(of_words, 0.1 + sum(_LEADING * style["size"] for _, style in self._title()))
        layers = dict(self.graph.nodes(data="layer"))
        rise = _RISE + (_MAP if self.edge_maps else 0)
        boxes = place_cells(rows, layers, (width, 1 + caption), gap=_GAP, rise=rise)
        limits, explanation = with_key(_limits(boxes), self._key())
        self.ax_ = make_axes(limits) if ax is None else ax
        self.figure_ = self.ax_.figure
        self._draw_edges(boxes)
        for row in rows:
            for _, keys in itertools.groupby(row, key=layers.get):
                self._draw_layer_name(next(keys), row[0], boxes)
            for key in row:
                self._draw_node(key, boxes[key], int(n_patches**0.5))
        write_key(self.ax_, limits, explanation)
        frame(self.ax_, limits)
        return self

    def _any_rings(self) -> bool:
        shown = {node["layer"] for _, node in self.graph.nodes(data=True)}
        return any(has_rings(found) for layer, found in self.vocabulary.representatives.items() if layer in shown)

    def _key(self) -> str:
        if len(self.graph) == 1:
            return self._told.why_no_word()
        patches = "Patches: what the locations most typical of a word see of the fitted images; grey is outside them."
        rings = "Rings: the location, where it sees nearly the whole image." if self._any_rings() else ""
        shown = "Magenta: where the explained image shows the word." if self.locations is not None else ""
        where = "Squares on arrows: where in the upper word's field the lower word is, darkest where most often."
        maps = where if self.edge_maps else ""
        return " ".join(filter(None, [patches, rings, shown, self._told.key(), maps]))

    def _draw_layer_name(self, key: str, first: str, boxes: Mapping[str, Box]) -> None:
        """Draw the layer's name to the left of its first node, `key`; at the margin, if that is the row's first."""
        node, box = self.graph.nodes[key], boxes[key]
        per_image = node["n_locations"] // self.graph.graph["n_images"]
        text = (
            "decision"
            if "class_name" in node
            else f"{in_lines(node['layer'])}\n{per_image} location{'s' if per_image > 1 else ''}\nan image"
        )
        left = min(other.left for other in boxes.values()) - 0.15 if key == first else box.left
        write(self.ax_, left - 0.1, box.top - 0.5, text, size=9, color="0.35", ha="right")

    def _draw_node(self, key: str, box: Box, side: int) -> None:
        node = self.graph.nodes[key]
        square = Box(box.left, box.top - 1, 1, 1)
        if "class_name" in node:
            self._draw_decision(node, box)
            return
        found = self.vocabulary.representatives.get(node["layer"])
        draw_patches(self.ax_, square, found, node["word"], side, side)
        if self.locations is not None and self.images:
            self._draw_locations(Box(box.left + 1.06, box.top - 1, 1, 1), node["layer"], self.locations[key])
        name = node.get("word_name")
        title = f"{shortened(name, int(12 * box.width))} (w{node['word']})" if name else f"w{node['word']}"
        lines = self._told.card(node, box.width > 1).split("\n")
        evidence = "\n".join(shortened(line, int(18 * box.width) + 1) for line in lines)
        write(self.ax_, box.middle, square.bottom - 0.05, title, size=9, weight="bold", va="top")
        write(self.ax_, box.middle, square.bottom - 0.2, evidence, size=8, va="top")

    def _draw_decision(self, node: Mapping[str, Any], box: Box) -> None:
        shown = self.images[:4]
        total = len(shown) + 0.06 * (len(shown) - 1)
        for i, image in enumerate(shown):
            draw_image(self.ax_, Box(box.middle - total / 2 + 1.06 * i, box.top - 1, 1, 1), image)
        y = box.top - 1.06
        for line, style in self._title():
            write(self.ax_, box.middle, y, line, va="top", **style)
            y -= _LEADING * style["size"]

    def _title(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the lines below the images of a decision that is explained, and how they are written."""
        node = self.graph.nodes[self.graph.graph["root"]]
        if "class_name" not in node:
            return []
        lines = wrap(shortened(asked(node), 3 * _TITLE), _TITLE)
        found = [(line, {"size": 11 if len(lines) == 1 else 9, "weight": "bold"}) for line in lines]
        if self.locations is None:
            found.append((self._which_images(node), {"size": 8}))
        found += [(shortened(remark, 2 * _TITLE), {"size": 8}) for remark in self._told.remarks(node)]
        return found + [(warning, {"size": 8, "weight": "bold", "color": WARNING}) for warning in self._warnings(node)]

    def _warnings(self, node: Mapping[str, Any]) -> list[str]:
        if self.predicted in (None, node["class_name"]):
            return self._told.warnings(node)
        return [*self._told.warnings(node), f"its words speak for {shortened(self.predicted, _TITLE)}"]

    def _which_images(self, node: Mapping[str, Any]) -> str:
        of_all = f" of {node['n_locations']}" if node["count"] != node["n_locations"] else ""
        images = f"{node['count']}{of_all} image{'s' if node['n_locations'] != 1 else ''}"
        shown = f", {len(self.images[:4])} shown" if len(self.images) < node["n_locations"] else ""
        return f"{images} decided as {shortened(node['class_name'], _TITLE)}{shown}"

    def _draw_locations(self, square: Box, layer: str, shown: np.ndarray) -> None:
        drawn = draw_image(self.ax_, square, self.images[0])
        tint = np.zeros((*shown.shape, 4))
        tint[shown] = (*MARK, 0.55)
        draw_cells(self.ax_, drawn, equal_cells(shown.shape) if self.cells is None else self.cells[layer], tint)

    def _draw_edges(self, boxes: Mapping[str, Box]) -> None:
        lines, strengths = attach(self.graph, boxes), edge_strengths(self.graph)
        strength_in_unit = strength_of(self.graph).of_edge
        edges = sorted(self.graph.edges, key=lambda edge: -abs(strength_in_unit(self.graph.edges[edge])))
        for edge in reversed(edges):
            x0, y0, x1, y1 = lines[edge]
            strength, ink = abs(strengths[edge]), INK if strengths[edge] > 0 else AGAINST
            self.ax_.annotate(
                "",
                (x1, y1),
                (x0, y0),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": tuple(1 - (0.4 + 0.6 * strength) * (1 - part) for part in ink),
                    "linewidth": 0.6 + 3.4 * strength,
                    "shrinkA": 2,
                    "shrinkB": 2,
                    "mutation_scale": 8 + 6 * strength,
                },
                zorder=1,
            )
        self._draw_labels({edge: lines[edge] for edge in edges}, list(boxes.values()))

    def _draw_labels(self, lines: Mapping[tuple[str, str], Line], taken: list[Box]) -> None:
        """Label the edges, the first ones first; with maps where these find room, too."""
        maps = {
            key: found
            for key, found in (self.edge_maps or {}).items()
            if key in lines and found.size > 1 and np.nansum(found) > 0
        }
        with_map = place_labels([(key, lines[key]) for key in lines if key in maps], *_LABEL_WITH_MAP, taken)
        others = [(key, line) for key, line in lines.items() if key not in with_map]
        for key, box in (with_map | place_labels(others, *_LABEL, [*taken, *with_map.values()])).items():
            text = self._told.arrow(self.graph.edges[key])
            write(self.ax_, box.middle, box.bottom + _LABEL[1] / 2, text, size=7.5, box=True)
            if key in with_map:
                draw_share(self.ax_, Box(box.middle - _MAP / 2, box.top - _MAP, _MAP, _MAP), maps[key])


def _locations(words: WordMaps, node: Mapping[str, Any]) -> np.ndarray:
    """Return where in the only image a node's word is, (H, W); the one location, where that is explained."""
    shown = words.words[node["layer"]][0] == node["word"]
    if "row" in node:
        rows, columns = np.indices(shown.shape)
        return (rows == node["row"]) & (columns == node["column"])
    return shown


def _limits(boxes: Mapping[str, Box]) -> Limits:
    left, right = min(box.left for box in boxes.values()) - 1.4, max(box.right for box in boxes.values()) + 0.3
    middle, half = (left + 1.4 + right) / 2, 2.4  # room for four images of a class
    bottom = min(box.bottom for box in boxes.values()) - 0.1
    return Limits(min(left, middle - half), max(right, middle + half), bottom, 0.1)
