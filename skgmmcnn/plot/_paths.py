"""Paths of classes through the words of a fully connected network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
from sklearn.pipeline import Pipeline

from .._pipelines import open_pipeline
from ..chain import InferencePaths, LayerHMM
from ..dictionary import Vocabulary
from ..features import FeatureMaps
from ..graph import percent
from ._drawing import (
    MARK,
    PALETTE,
    Drawing,
    Limits,
    Theme,
    draw_arrow,
    draw_image,
    draw_patches,
    draw_rectangle,
    shortened,
    write,
)
from ._layout import Box, Line, place_labels
from ._reading import find_images, named_vocabulary, run

_MOST_CLASSES = 4
_STEP, _RISE = 2.7, 1.75  # from column to column, from row to row, in sides of a word's square
_WIDEST = 16.0  # points, of a line that all images of a class take


class Node(NamedTuple):
    """A word of a layer, or a class where the layer is the last column."""

    column: int
    number: int


class PathDisplay(Drawing):
    """The most used paths of some classes, from the lowest layer on the left to the decision on the right.

    A word is shown by its most typical fitted images, above the most probable decisions after it.  The width of a line
    is the share of the class's images on it.  The path of one image may be added, with a mark where it leaves the paths
    of its true class.

    Parameters
    ----------
    paths : InferencePaths
        Paths of the images to draw from.
    targets : sequence of int
        The decisions whose paths are drawn; at most four.
    vocabulary : Vocabulary
        The words, with their representatives.
    class_names : sequence of str, default=None
        Names of all decisions; numbers if None.
    n_paths : int, default=3
        Most paths per class.
    image : int, default=None
        Number of the image whose path is drawn along.
    true_label : int, default=None
        Its true class.
    picture : uint8 array of shape (height, width, 3), default=None
        The image itself.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn into.
    figure_ : matplotlib.figure.Figure
        The figure of the axes.

    Examples
    --------
    >>> import numpy as np
    >>> from skgmmcnn import LayerHMM, PathDisplay
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 200)
    >>> layers = [rng.normal(6 * y[:, None], 1, (200, 3)), rng.normal(-6 * y[:, None], 1, (200, 2))]
    >>> hmm = LayerHMM(4, solver="em", random_state=0).fit(layers, y)
    >>> display = PathDisplay.from_estimator(hmm, layers)
    >>> display.save("paths.png")  # doctest: +SKIP
    """

    def __init__(
        self,
        paths: InferencePaths,
        targets: Sequence[int],
        vocabulary: Vocabulary,
        *,
        class_names: Sequence[str] | None = None,
        n_paths: int = 3,
        image: int | None = None,
        true_label: int | None = None,
        picture: np.ndarray | None = None,
    ) -> None:
        self.paths = paths
        self.targets = targets
        self.vocabulary = vocabulary
        self.class_names = class_names
        self.n_paths = n_paths
        self.image = image
        self.true_label = true_label
        self.picture = picture

    @classmethod
    def from_estimator(
        cls,
        estimator: LayerHMM | Pipeline,
        X: Any,
        y: Any = None,
        *,
        targets: Sequence[int | str] | None = None,
        image: int | str | None = None,
        n_paths: int = 3,
        ax: Any = None,
    ) -> PathDisplay:
        """Draw the paths of some classes in X.

        Parameters
        ----------
        estimator : LayerHMM or Pipeline
            A fitted chain, or a fitted pipeline with one.
        X : object
            Images as the pipeline takes them, or what the chain reads.
        y : array-like of shape (n,), default=None
            True classes, for `image`.
        targets : sequence of int or str, default=None
            Decisions whose paths are drawn, by number or name.  None takes the image's true class and its decision,
            where these are known, and otherwise the two most frequent decisions.
        image : int or str, default=None
            An image, by number or file name, whose path is drawn along.
        n_paths : int, default=3
            Most paths per class.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into; None makes a figure of fitting size.

        Returns
        -------
        display : PathDisplay
            The drawn display.
        """
        before, hmm, X = open_pipeline(estimator, X, LayerHMM)
        X = run(before, X)
        paths = hmm.paths(X)
        if paths.decisions is None or hmm.classes_ is None:
            raise ValueError("These paths lead to no decision: the chain was fitted on plain arrays without y.")
        row: int | None = None if image is None else find_images(image, X, len(paths)).item()
        of_network = isinstance(X, FeatureMaps)
        classes: np.ndarray = hmm.classes_
        names = X.class_names if of_network else tuple(map(str, classes.tolist()))

        def number(label: Any) -> int:
            return X.spec.class_index(label) if of_network else _place(label, classes)

        true_label = None if y is None or row is None else number(np.asarray(y)[row].item())
        if targets is not None:
            chosen = [number(target) for target in targets]
        elif row is not None and true_label not in (None, paths.decisions[row]):
            chosen = [true_label, int(paths.decisions[row])]
        else:
            chosen = np.bincount(paths.decisions).argsort()[::-1][:2].tolist()
        pictures = X.pictures() if of_network else None
        display = cls(
            paths,
            chosen,
            named_vocabulary(hmm),
            class_names=names,
            n_paths=n_paths,
            image=row,
            true_label=true_label,
            picture=None if pictures is None or row is None else pictures[row],
        )
        return display.plot(ax=ax)

    _key_size = 8.5

    def _lay_out(self) -> Limits:
        if not 1 <= len(self.targets) <= _MOST_CLASSES:
            raise ValueError(f"1 to {_MOST_CLASSES} classes can be drawn; got {len(self.targets)}.")
        self._flows = [self._flow(target) for target in self.targets]
        self._boxes = self._place(self._flows)
        return Limits.around(self._boxes.values(), 0.4, 0.4, 0.65, 0.65)

    def _draw(self) -> None:
        flows, boxes = self._flows, self._boxes
        self._draw_flows(flows, boxes)
        for node, box in boxes.items():
            if node.column == len(self.paths.layers):
                self._draw_class(node, box, flows)
            elif node.column >= 0:
                self._draw_word(node, box)
        self._draw_layer_names(boxes)
        if self.image is not None:
            self._draw_image_path(boxes)

    def _flow(self, target: int) -> dict[tuple[Node, Node], float]:
        """Return the share of the class's images on each step of its most used paths."""
        table = self.paths.path_table(target, n_paths=self.n_paths)
        flow: dict[tuple[Node, Node], float] = {}
        for path, share in zip(table.paths.tolist(), table.shares.tolist(), strict=True):
            for step in _steps([*path, target]):
                flow[step] = flow.get(step, 0.0) + share
        return flow

    def _image_nodes(self) -> list[Node]:
        if self.image is None:
            return []
        assert self.paths.decisions is not None
        path = [*self.paths.words[self.image].tolist(), int(self.paths.decisions[self.image])]
        return [Node(column, number) for column, number in enumerate(path)]

    def _place(self, flows: list[dict[tuple[Node, Node], float]]) -> dict[Node, Box]:
        """Return a square for every node, words of the first class on top of its column."""
        nodes = {node for flow in flows for step in flow for node in step} | {*self._image_nodes()}
        columns = [[node for node in nodes if node.column == i] for i in range(len(self.paths.layers) + 1)]
        tallest = max(map(len, columns))
        boxes = {}
        for i, column in enumerate(columns):
            column.sort(key=lambda node: (-self._leaning(node), node.number))
            pitch = _RISE * min(2.5, (tallest - 1) / max(1, len(column) - 1)) if i == len(columns) - 1 else _RISE
            top = -(tallest * _RISE - (len(column) - 1) * pitch - _RISE) / 2
            for row, node in enumerate(column):
                boxes[node] = Box(i * _STEP, top - row * pitch - 1, 1, 1)
        if self.image is not None:
            middle = boxes[self._image_nodes()[0]].bottom
            boxes[Node(-1, 0)] = Box(-_STEP + 0.4, middle, 1, 1)
        return boxes

    def _leaning(self, node: Node) -> float:
        """Return the difference in probability of the first and the last class after a word."""
        first, last = self.targets[0], self.targets[-1]
        if node.column == len(self.paths.layers):
            return float(node.number == first) - float(node.number == last)
        chances = self._chances(node)
        return float(chances[first] - chances[last])

    def _chances(self, node: Node) -> np.ndarray:
        assert self.paths.class_tables is not None
        return self.paths.class_tables[node.column][node.number]

    def _name(self, label: int) -> str:
        return str(label) if self.class_names is None else str(self.class_names[label])

    def _draw_flows(self, flows: list[dict[tuple[Node, Node], float]], boxes: dict[Node, Box]) -> None:
        lines = []
        for i, flow in enumerate(flows):
            offset = 0.3 * ((len(flows) - 1) / 2 - i)
            for (tail, head), share in flow.items():
                line = _line(boxes[tail], boxes[head], offset)
                style: dict[str, Any] = {
                    "linewidth": max(1.0, _WIDEST * share),
                    "alpha": 0.55,
                    "solid_capstyle": "butt",
                    "zorder": 1,
                }
                self.ax_.plot(line[::2], line[1::2], color=PALETTE[i], **style)
                lines.append(((tail, head, i), line, share))
        lines.sort(key=lambda entry: -entry[2])
        below = [Box(box.middle - 0.8, box.bottom - 0.5, 1.6, 0.5 + box.height) for box in boxes.values()]
        placed = place_labels([(key, line) for key, line, _ in lines], 0.5, 0.22, below)
        for key, _, share in lines:
            if key in placed:
                box = placed[key]
                write(self.ax_, box.middle, box.bottom + 0.11, percent(share), color=PALETTE[key[2]], size=8, box=True)

    def _draw_word(self, node: Node, box: Box) -> None:
        layer = self.paths.layers[node.column]
        draw_patches(self.ax_, box, self.vocabulary.representatives.get(layer), node.number, 2, 2)
        name = self.vocabulary.names.get((layer, node.number))
        title = f"w{node.number}" if name is None else f"{shortened(name, 22)} (w{node.number})"
        chances = self._chances(node)
        likely = [label for label in chances.argsort()[::-1][:2] if chances[label] >= 0.05]
        text = "\n".join(f"{shortened(self._name(label), 18)}: {percent(float(chances[label]))}" for label in likely)
        write(self.ax_, box.middle, box.bottom - 0.03, title, size=8.5, weight="bold", va="top")
        write(self.ax_, box.middle, box.bottom - 0.2, text, size=8, va="top")

    def _draw_class(self, node: Node, box: Box, flows: list[dict[tuple[Node, Node], float]]) -> None:
        shown = node.number in self.targets
        colour = PALETTE[list(self.targets).index(node.number)] if shown else "0.5"
        draw_rectangle(self.ax_, box, fc=(colour, 0.15), ec=colour, linewidth=2)
        middle = box.bottom + 0.5
        name = self._name(node.number)
        size = 16 if len(name) <= 6 else 9
        lines = "\n".join(wrap(shortened(name, 44), 11))
        write(self.ax_, box.middle, middle, lines, size=size, weight="bold", color=colour)
        if shown:
            flow = flows[list(self.targets).index(node.number)]
            share = sum(share for (_, head), share in flow.items() if head.column == node.column)
            assert self.paths.decisions is not None
            n_images = int((self.paths.decisions == node.number).sum())
            text = f"{percent(share)} of {n_images}\nimages shown"
            write(self.ax_, box.middle, box.bottom - 0.05, text, size=8, va="top")

    def _draw_layer_names(self, boxes: dict[Node, Box]) -> None:
        top = max(box.top for box in boxes.values()) + 0.25
        names = [f"layer {layer}" for layer in self.paths.layers]
        for i, name in enumerate([*names, "decision"]):
            write(self.ax_, i * _STEP + 0.5, top, name, size=10, color=Theme.current().grey(), va="bottom")

    def _draw_image_path(self, boxes: dict[Node, Box]) -> None:
        assert self.image is not None
        nodes = self._image_nodes()
        box = boxes[Node(-1, 0)]
        if self.picture is None:
            draw_rectangle(self.ax_, box, fc="0.95", ec="0.7")
        else:
            draw_image(self.ax_, box, self.picture)
        draw_rectangle(self.ax_, box, fc="none", ec=MARK, linewidth=2)
        title = f"image {self.image}" + ("" if self.true_label is None else f"\nlabel: {self._name(self.true_label)}")
        write(self.ax_, box.middle, box.bottom - 0.05, title, size=9, va="top", color=MARK)
        for tail, head in zip([Node(-1, 0), *nodes[:-1]], nodes, strict=True):
            line = _line(boxes[tail], boxes[head], 0)
            draw_arrow(self.ax_, line, color=MARK, linewidth=1.8, shrinkA=1, shrinkB=1, zorder=2)
        for node in nodes[:-1]:
            draw_rectangle(self.ax_, boxes[node], fc="none", ec=MARK, linewidth=2)
        self._mark_leaving(boxes, nodes)

    def _mark_leaving(self, boxes: dict[Node, Box], nodes: list[Node]) -> None:
        if self.true_label is None or nodes[-1].number == self.true_label:
            return
        (layer,) = self.paths[self.image].leaves([self.true_label])
        box = boxes[nodes[layer]]
        text = f"leaves the paths of {self._name(self.true_label)}"
        write(self.ax_, box.middle, box.bottom - 0.5, text, size=8, weight="bold", color=MARK, va="top", box=True)

    def _key(self) -> str:
        parts = [
            "Squares: words, shown by their most typical fitted images.",
            "Below: the most probable decisions after a word.",
            f"Lines: the {self.n_paths} most used paths of each class; percentages are shares of the class's images.",
        ]
        if self.image is not None:
            parts.append("Magenta: the path of one image, inferred from its activations without the decision.")
        return " ".join(parts)


def _place(label: Any, classes: np.ndarray) -> int:
    places = np.flatnonzero(classes == label)
    if not len(places):
        raise ValueError(f"There is no class {label!r}; the classes are {classes.tolist()[:10]}.")
    return int(places[0])


def _steps(path: list[int]) -> Iterator[tuple[Node, Node]]:
    nodes = [Node(column, number) for column, number in enumerate(path)]
    return pairwise(nodes)


def _line(tail: Box, head: Box, offset: float) -> Line:
    return tail.right, tail.bottom + 0.5 + offset, head.left, head.bottom + 0.5 + offset
