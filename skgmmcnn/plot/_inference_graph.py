"""InferenceGraphDisplay: an inference graph as a picture."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from textwrap import wrap
from typing import Any

import networkx as nx
import numpy as np
from sklearn.pipeline import Pipeline

from ..dictionary import Representatives, Vocabulary, WordMaps
from ..graph import InferenceGraph
from ..graph._building import NO_WORD, could_be_chance, percent
from ..graph._targets import Target
from ._layout import Box, attach, edge_strengths, place_cells, place_labels, rows_of
from ._reading import check_image, pictures, run, take_apart

_MARK = (0.9, 0.0, 0.5)  # magenta: rare in photographs, and told from greys with any colour vision
_EDGE = (0.12, 0.32, 0.55)
_CAPTION = 0.36
_GAP = 0.45
_RISE = 1.15
_KEY = 0.65


class InferenceGraphDisplay:
    """An inference graph as a picture: the decision on top, below it one row of words per layer.

    A word is shown by what its most typical locations see of the images that the dictionary was fitted on, with a ring
    at the location where that is the whole image.  For the graph of one image, the image stands beside it, with the
    word's locations tinted.  Edges lead up to what a word explains, labelled with its evidence in bits per location
    and its share of the upper word's receptive fields; the stronger the evidence, the wider and darker the edge,
    among those of its row.

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
    >>> display.figure_.savefig("graph.png")  # doctest: +SKIP
    """

    def __init__(
        self,
        graph: nx.DiGraph,
        vocabulary: Vocabulary,
        *,
        images: list[np.ndarray],
        locations: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.graph = graph
        self.vocabulary = vocabulary
        self.images = images
        self.locations = locations

    @classmethod
    def from_estimator(
        cls,
        estimator: InferenceGraph | Pipeline,
        X: Any,
        *,
        image: int = 0,
        label: int | str | None = None,
        target: Target = None,
        contrast: int | str | None = None,
        n_patches: int = 4,
        ax: Any = None,
    ) -> InferenceGraphDisplay:
        """Explain one image, or one class, and draw the graph.

        Parameters
        ----------
        estimator : InferenceGraph or Pipeline
            Fitted; a pipeline ends with an :class:`~skgmmcnn.InferenceGraph`.
        X : WordMaps, or what the pipeline takes
            Words for an InferenceGraph, images for a pipeline.
        image : int, default=0
            Which image of X to explain.
        label : int or str, default=None
            A class, by number or name: explain all images of X that the network gives this class, instead of one.
        target : int, str or tuple, default=None
            What is explained of one image, as in :meth:`InferenceGraph.explain`: its decision, another class, a word
            or a location.
        contrast : int or str, default=None
            A class, by number or name, with which the decision is contrasted.
        n_patches : {1, 4, 9}, default=4
            Typical patches per word.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into; None makes a figure of fitting size.

        Returns
        -------
        display : InferenceGraphDisplay
            The drawn display.
        """
        before, estimator, X = take_apart(estimator, X)
        if label is None:
            X = X[check_image(image, len(X)) :][:1]
            display = cls._of_image(estimator, run(before, X), target, contrast)
        else:
            if target is not None:
                raise ValueError(f"label={label!r} explains a class, target={target!r} one image; give one of them.")
            display = cls._of_class(estimator, run(before, X), label, contrast)
        return display.plot(n_patches=n_patches, ax=ax)

    @classmethod
    def _of_image(
        cls, estimator: InferenceGraph, words: WordMaps, target: Target, contrast: int | str | None
    ) -> InferenceGraphDisplay:
        (graph,) = estimator.explain(words, target, contrast=contrast)
        return cls._of_graph(graph, words)

    @classmethod
    def _of_graph(cls, graph: nx.DiGraph, words: WordMaps) -> InferenceGraphDisplay:
        """Return the display of a graph that explains the only image of `words`."""
        locations = {key: _locations(words, node) for key, node in graph.nodes.items() if node["layer"] in words.words}
        return cls(graph, words.vocabulary, images=pictures(words, [0]), locations=locations)

    @classmethod
    def _of_class(
        cls, estimator: InferenceGraph, words: WordMaps, label: int | str, contrast: int | str | None
    ) -> InferenceGraphDisplay:
        graph = estimator.explain_class(words, label, contrast=contrast)
        rows = np.flatnonzero(words.decisions == graph.graph["target"])
        return cls(graph, words.vocabulary, images=pictures(words, rows[:4]))

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
        caption = _CAPTION + (0.14 if width == 1 else 0)  # numbers in two lines where the cell is narrow
        layers = dict(self.graph.nodes(data="layer"))
        boxes = place_cells(rows, layers, (width, 1 + caption), gap=_GAP, rise=_RISE)
        self.ax_ = _make_axes(boxes) if ax is None else ax
        self.figure_ = self.ax_.figure
        self._draw_edges(boxes)
        for row in rows:
            for _, keys in itertools.groupby(row, key=layers.get):
                self._draw_layer_name(next(keys), row[0], boxes)
            for key in row:
                self._draw_node(key, boxes[key], int(n_patches**0.5))
        self._draw_key(boxes)
        _frame(self.ax_, boxes)
        return self

    def _any_rings(self) -> bool:
        shown = {node["layer"] for _, node in self.graph.nodes(data=True)}
        return any(found.whole for layer, found in self.vocabulary.representatives.items() if layer in shown)

    def _draw_key(self, boxes: Mapping[str, Box]) -> None:
        left, right, bottom, _ = _limits(boxes)
        lines = "\n".join(wrap(self._key(), int(17 * (right - left - 0.4))))
        self.ax_.text(left + 0.2, bottom + _KEY, lines, ha="left", va="top", fontsize=7, color="0.35")

    def _key(self) -> str:
        if len(self.graph) == 1:
            return NO_WORD
        patches = "Patches: what the locations most typical of a word see of the fitted images; grey is outside them."
        rings = "Rings: the location, where it sees nearly the whole image." if self._any_rings() else ""
        shown = "Magenta: where the explained image shows the word." if self.locations is not None else ""
        below = "Below: locations that show it, of all, and their evidence."
        arrows = "Arrows: evidence of one location for the word above, and the share of that word's receptive fields."
        chance = "Dashed: could be chance (q > 0.05)." if any(map(could_be_chance, self._edges())) else ""
        return " ".join(filter(None, [patches, rings, shown, below, arrows, chance]))

    def _edges(self) -> list[Mapping[str, Any]]:
        return [edge for *_, edge in self.graph.edges(data=True)]

    def _draw_layer_name(self, key: str, first: str, boxes: Mapping[str, Box]) -> None:
        """Draw the layer's name to the left of its first node, `key`; at the margin, if that is the row's first."""
        node, box = self.graph.nodes[key], boxes[key]
        per_image = node["n_locations"] // self.graph.graph["n_images"]
        text = (
            "decision"
            if "class_name" in node
            else f"{_in_lines(node['layer'])}\n{per_image} location{'s' if per_image > 1 else ''}\nan image"
        )
        left = min(other.left for other in boxes.values()) - 0.15 if key == first else box.left
        self.ax_.text(left - 0.1, box.top - 0.5, text, ha="right", va="center", fontsize=9, color="0.35")

    def _draw_node(self, key: str, box: Box, side: int) -> None:
        node = self.graph.nodes[key]
        square = Box(box.left, box.top - 1, 1, 1)
        if "class_name" in node:
            self._draw_decision(node, box)
            return
        representatives = self.vocabulary.representatives.get(node["layer"])
        if representatives is None or representatives.patches is None:
            self._draw_text(square, "no patches\nstored")
        else:
            self._draw_patches(square, representatives, node["word"], side)
        if self.locations is not None and self.images:
            self._draw_locations(Box(box.left + 1.06, box.top - 1, 1, 1), self.locations[key])
        name = node.get("word_name")
        title = f"{name} (w{node['word']})" if name else f"w{node['word']}"
        between = "   " if box.width > 1 else "\n"
        evidence = f"{node['count']}/{node['n_locations']}{between}{node['score']:.1f} bits"
        self.ax_.text(box.middle, square.bottom - 0.05, title, ha="center", va="top", fontsize=9, weight="bold")
        self.ax_.text(box.middle, square.bottom - 0.2, evidence, ha="center", va="top", fontsize=8)

    def _draw_decision(self, node: Mapping[str, Any], box: Box) -> None:
        shown = self.images[:4]
        total = len(shown) + 0.06 * (len(shown) - 1)
        for i, image in enumerate(shown):
            self._draw_image(Box(box.middle - total / 2 + 1.06 * i, box.top - 1, 1, 1), image)
        title = node["class_name"] + (f" rather than {node['contrast_name']}" if "contrast_name" in node else "")
        if self.locations is None:
            title += f"   ({len(shown)} of {node['n_locations']} images)"
        self.ax_.text(box.middle, box.top - 1.06, title, ha="center", va="top", fontsize=11, weight="bold")

    def _draw_patches(self, square: Box, representatives: Representatives, word: int, side: int) -> None:
        assert representatives.patches is not None
        step = 1 / side
        for i in range(side * side):
            if representatives.images[word, i] < 0:
                continue
            tile = Box(
                square.left + step * (i % side) + 0.01,
                square.top - step * (i // side + 1) + 0.01,
                step - 0.02,
                step - 0.02,
            )
            drawn = self._draw_image(tile, representatives.patches[word, i])
            if representatives.whole:
                row, column = representatives.marks[word, i]
                x, y = drawn.left + column * drawn.width, drawn.top - row * drawn.height
                self.ax_.plot(x, y, "o", ms=9 / side + 2, mfc="none", mec=_MARK, mew=1.3, zorder=5, clip_on=False)

    def _draw_locations(self, square: Box, shown: np.ndarray) -> None:
        drawn = self._draw_image(square, self.images[0])
        tint = np.zeros((*shown.shape, 4))
        tint[shown] = (*_MARK, 0.55)
        self._imshow(drawn, tint, "nearest")

    def _draw_image(self, box: Box, image: np.ndarray) -> Box:
        """Draw `image` as large as fits into the middle of `box`; return where it is."""
        height, width = image.shape[:2]
        scale = min(box.width / width, box.height / height)
        fitted = Box(
            box.middle - width * scale / 2,
            box.bottom + (box.height - height * scale) / 2,
            width * scale,
            height * scale,
        )
        self._imshow(fitted, image, "nearest" if max(height, width) < 32 else "antialiased")
        return fitted

    def _imshow(self, box: Box, image: np.ndarray, interpolation: str) -> None:
        extent = (box.left, box.right, box.bottom, box.top)
        self.ax_.imshow(image, extent=extent, interpolation=interpolation, aspect="auto", zorder=3)

    def _draw_text(self, box: Box, text: str) -> None:
        from matplotlib.patches import Rectangle

        self.ax_.add_patch(Rectangle((box.left, box.bottom), box.width, box.height, fc="0.95", ec="0.7"))
        self.ax_.text(box.middle, box.bottom + box.height / 2, text, ha="center", va="center", fontsize=8, color="0.4")

    def _draw_edges(self, boxes: Mapping[str, Box]) -> None:
        edges = sorted(self.graph.edges(data=True), key=lambda edge: -edge[2]["log_ratio"])
        if not edges:
            return
        lines, strengths = attach(self.graph, boxes), edge_strengths(self.graph)
        for tail, head, edge in reversed(edges):
            x0, y0, x1, y1 = lines[tail, head]
            strength = strengths[tail, head]
            self.ax_.annotate(
                "",
                (x1, y1),
                (x0, y0),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": tuple(1 - (0.3 + 0.7 * strength) * (1 - part) for part in _EDGE),
                    "linewidth": 0.6 + 3.4 * strength,
                    "shrinkA": 2,
                    "shrinkB": 2,
                    "mutation_scale": 8 + 6 * strength,
                    "linestyle": "--" if could_be_chance(edge) else "-",
                },
                zorder=1,
            )
        attributes = {(tail, head): edge for tail, head, edge in edges}
        for key, box in place_labels([(key, lines[key]) for key in attributes], 0.92, 0.17, boxes.values()).items():
            edge = attributes[key]
            text = f"{edge['log_ratio']:.2f} bits, {percent(edge['frequency'])}"
            self.ax_.text(
                box.middle,
                box.bottom + box.height / 2,
                text,
                ha="center",
                va="center",
                fontsize=7.5,
                zorder=4,
                bbox={"boxstyle": "round,pad=0.12", "fc": "white", "ec": "none", "alpha": 0.85},
            )


def _locations(words: WordMaps, node: Mapping[str, Any]) -> np.ndarray:
    """Return where in the only image a node's word is, (H, W); the one location, where that is explained."""
    shown = words.words[node["layer"]][0] == node["word"]
    if "row" in node:
        rows, columns = np.indices(shown.shape)
        return (rows == node["row"]) & (columns == node["column"])
    return shown


def _in_lines(name: str, width: int = 15) -> str:
    """Return a layer's name in lines of about this width, cut behind dots and underscores."""
    lines = [""]
    for part in re.findall(r"[^._]+[._]?|[._]", name):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _limits(boxes: Mapping[str, Box]) -> tuple[float, float, float, float]:
    left, right = min(box.left for box in boxes.values()) - 1.4, max(box.right for box in boxes.values()) + 0.3
    middle, half = (left + 1.4 + right) / 2, 2.4  # room for four images of a class
    return (
        min(left, middle - half),
        max(right, middle + half),
        min(box.bottom for box in boxes.values()) - 0.1 - _KEY,
        0.1,
    )


def _make_axes(boxes: Mapping[str, Box]) -> Any:
    import matplotlib.pyplot as plt

    left, right, bottom, top = _limits(boxes)
    return plt.figure(figsize=(right - left, top - bottom)).add_axes((0, 0, 1, 1))


def _frame(ax: Any, boxes: Mapping[str, Box]) -> None:
    left, right, bottom, top = _limits(boxes)
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    ax.axis("off")
