"""Paths of classes through the words of a fully connected network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
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
from ._drawing import MARK, PALETTE, Drawing, shorten
from ._layout import Box, Line, place_labels
from ._reading import find_images, named_vocabulary, run

_MOST_CLASSES = 4
_STEP, _RISE = 2.7, 1.75  # from column to column, from row to row, in sides of a word's square
_WIDEST = 16.0  # points, of a line that all images of a class take


class Node(NamedTuple):
    """A word of a layer, or a class where the layer is the last column."""

    column: int
    number: int


@dataclass(eq=False, repr=False)
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
        The words, with their representatives, and the names of all decisions.
    n_paths : int, default=3
        Most paths per class.
    image : int, default=None
        Number of the image whose path is drawn, too.
    true_label : int, default=None
        Its true class.
    picture : uint8 array of shape (height, width, 3), default=None
        The image itself.

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        The axes drawn into, and their figure.

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

    paths: InferencePaths
    targets: Sequence[int]
    vocabulary: Vocabulary
    _: KW_ONLY
    n_paths: int = 3
    image: int | None = None
    true_label: int | None = None
    picture: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.targets) <= _MOST_CLASSES:
            raise ValueError(f"1 to {_MOST_CLASSES} classes can be drawn; got {len(self.targets)}.")

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
            Fitted; a pipeline has a :class:`~skgmmcnn.LayerHMM` among its steps.
        X : object
            Images for a pipeline, or the input of the chain.
        y : array-like of shape (n,), default=None
            True classes, for `image`.
        targets : sequence of int or str, default=None
            Decisions whose paths are drawn, by number or name.  None draws the true class and the decision of `image`
            if these differ, and otherwise the two most frequent decisions.
        image : int or str, default=None
            An image, by number or file name, whose path is drawn, too.
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
        classes = hmm.classes_
        if paths.decisions is None or classes is None:
            raise ValueError("The chain has no classes, as it was fitted on arrays without y; fit it with y.")
        row = None if image is None else find_images(image, X, len(paths)).item()
        of_network = isinstance(X, FeatureMaps)
        number = X.spec.class_index if of_network else partial(_class_index, classes=classes)
        true_label = None if y is None or row is None else number(np.asarray(y)[row].item())
        if targets is not None:
            labels = [number(target) for target in targets]
        elif row is not None and true_label not in (None, paths.decisions[row]):
            labels = [true_label, int(paths.decisions[row])]
        else:
            labels = np.bincount(paths.decisions).argsort()[::-1][:2].tolist()
        names = X.spec.class_names if of_network else tuple(map(str, classes.tolist()))
        pictures = X.pictures() if of_network and row is not None else None
        return cls(
            paths,
            labels,
            replace(named_vocabulary(hmm), class_names=names),
            n_paths=n_paths,
            image=row,
            true_label=true_label,
            picture=None if pictures is None else pictures[row],
        ).plot(ax=ax)

    _key_size = 8.5

    def _draw(self) -> Box:
        flows = [self._flow(target) for target in self.targets]
        path = self._image_path()
        boxes = self._place({node for flow in flows for step in flow for node in step}, path)
        self._draw_flows(flows, boxes)
        for node, box in boxes.items():
            if node.column == len(self.paths.layers):
                self._draw_class(node, box, flows)
            elif node.column >= 0:
                self._draw_word(node, box)
        top = max(box.top for box in boxes.values()) + 0.25
        for column, name in enumerate([*(f"layer {layer}" for layer in self.paths.layers), "decision"]):
            self._write(column * _STEP + 0.5, top, name, 10, color=self._grey(), va="bottom")
        if path:
            self._draw_image_path(path, boxes)
        return Box.around(boxes.values(), 0.4, 0.4, 0.65, 0.65)

    def _flow(self, target: int) -> dict[tuple[Node, Node], float]:
        """Return the share of the class's images on each step of its most used paths."""
        table = self.paths.path_table(target, n_paths=self.n_paths)
        flow: dict[tuple[Node, Node], float] = defaultdict(float)
        for path, share in zip(table.paths.tolist(), table.shares.tolist(), strict=True):
            for step in pairwise(_nodes([*path, target])):
                flow[step] += share
        return flow

    def _image_path(self) -> list[Node]:
        """Return the image, in column -1, its words and its decision; nothing without an image."""
        if self.image is None or self.paths.decisions is None:
            return []
        numbers = [0, *self.paths.words[self.image].tolist(), int(self.paths.decisions[self.image])]
        return _nodes(numbers, first_column=-1)

    def _place(self, nodes: set[Node], path: list[Node]) -> dict[Node, Box]:
        """Return a square for every node, words of the first class on top of its column."""
        n_layers = len(self.paths.layers)
        columns = [[node for node in nodes | set(path) if node.column == i] for i in range(n_layers + 1)]
        n_rows = max(map(len, columns))
        boxes = {}
        for i, column in enumerate(columns):
            column.sort(key=lambda node: (-self._lead(node), node.number))
            n_gaps = len(column) - 1
            spread = min(2.5, (n_rows - 1) / max(1, n_gaps)) if i == n_layers else 1
            top = (n_gaps * spread + 1 - n_rows) * _RISE / 2
            for row, node in enumerate(column):
                boxes[node] = Box(i * _STEP, top - row * spread * _RISE - 1, 1, 1)
        if path:
            boxes[path[0]] = Box(0.4 - _STEP, boxes[path[1]].bottom, 1, 1)
        return boxes

    def _lead(self, node: Node) -> float:
        """Return the difference in probability of the first and the last class after a word."""
        proba = self._proba(node)
        return float(proba[self.targets[0]] - proba[self.targets[-1]])

    def _proba(self, node: Node) -> np.ndarray:
        """Return the probability of each class after a word; 1 for a class itself."""
        assert self.paths.class_tables is not None
        if node.column == len(self.paths.layers):
            return np.eye(self.paths.class_tables[-1].shape[1])[node.number]
        return self.paths.class_tables[node.column][node.number]

    def _name(self, label: int) -> str:
        names = self.vocabulary.class_names
        return str(label) if names is None else names[label]

    def _draw_flows(self, flows: list[dict[tuple[Node, Node], float]], boxes: dict[Node, Box]) -> None:
        lines, shares = {}, {}
        for number, flow in enumerate(flows):
            offset = 0.3 * ((len(flows) - 1) / 2 - number)
            for (tail, head), share in flow.items():
                x, y, end_x, end_y = line = _line(boxes[tail], boxes[head], offset)
                style: dict[str, Any] = {"alpha": 0.55, "solid_capstyle": "butt", "zorder": 1}
                width = max(1.0, _WIDEST * share)
                self.ax_.plot([x, end_x], [y, end_y], color=PALETTE[number], linewidth=width, **style)
                lines[tail, head, number] = line
                shares[tail, head, number] = share
        obstacles = [Box(box.middle - 0.8, box.bottom - 0.5, 1.6, 0.5 + box.height) for box in boxes.values()]
        by_share = {key: lines[key] for key in sorted(lines, key=lambda key: -shares[key])}
        for key, box in place_labels(by_share, 0.5, 0.22, obstacles).items():
            self._write(box.middle, box.centre, percent(shares[key]), 8, color=PALETTE[key[2]], box=True)

    def _draw_word(self, node: Node, box: Box) -> None:
        layer = self.paths.layers[node.column]
        self._draw_patches(box, self.vocabulary.representatives.get(layer), node.number, 2, 2)
        name = self.vocabulary.names.get((layer, node.number))
        title = f"w{node.number}" if name is None else f"{shorten(name, 22)} (w{node.number})"
        proba = self._proba(node)
        labels = [label for label in proba.argsort()[::-1][:2] if proba[label] >= 0.05]
        text = "\n".join(f"{shorten(self._name(label), 18)}: {percent(float(proba[label]))}" for label in labels)
        self._write(box.middle, box.bottom - 0.03, title, 8.5, weight="bold", va="top")
        self._write(box.middle, box.bottom - 0.2, text, 8, va="top")

    def _draw_class(self, node: Node, box: Box, flows: list[dict[tuple[Node, Node], float]]) -> None:
        name = self._name(node.number)
        colour = "0.5"
        if node.number in self.targets:
            number = list(self.targets).index(node.number)
            colour = PALETTE[number]
            share = sum(share for (_, head), share in flows[number].items() if head == node)
            n_images = int(np.sum(self.paths.decisions == node.number))
            text = f"{percent(share)} of {n_images}\nimages shown"
            self._write(box.middle, box.bottom - 0.05, text, 8, va="top")
        self._draw_rectangle(box, fc=(colour, 0.15), ec=colour, linewidth=2)
        size = 16 if len(name) <= 6 else 9
        lines = wrap(shorten(name, 44), 11)
        self._write(box.middle, box.centre, "\n".join(lines), size, weight="bold", color=colour)

    def _draw_image_path(self, path: list[Node], boxes: dict[Node, Box]) -> None:
        box = boxes[path[0]]
        true_label = self.true_label
        if self.picture is None:
            self._draw_rectangle(box, fc="0.95", ec="0.7")
        else:
            self._draw_image(box, self.picture)
        title = f"image {self.image}" + ("" if true_label is None else f"\nlabel: {self._name(true_label)}")
        self._write(box.middle, box.bottom - 0.05, title, 9, va="top", color=MARK)
        for tail, head in pairwise(path):
            line = _line(boxes[tail], boxes[head], 0)
            self._draw_arrow(line, color=MARK, linewidth=1.8, shrinkA=1, shrinkB=1, zorder=2)
            self._draw_rectangle(boxes[tail], fc="none", ec=MARK, linewidth=2)
        if true_label not in (None, path[-1].number):
            (layer,) = self.paths[self.image].departures([true_label])
            box, text = boxes[path[1 + layer]], f"leaves the paths of {self._name(true_label)}"
            self._write(box.middle, box.bottom - 0.5, text, 8, weight="bold", color=MARK, va="top", box=True)

    def _key(self) -> list[str]:
        parts = [
            "Squares: words, shown by their most typical fitted images.",
            "Below: the most probable decisions after a word.",
            f"Lines: the {self.n_paths} most used paths of each class; percentages are shares of the class's images.",
        ]
        if self.image is not None:
            parts.append("Magenta: the path of one image, inferred from its activations without the decision.")
        return parts


def _nodes(numbers: Iterable[int], first_column: int = 0) -> list[Node]:
    return [Node(column, number) for column, number in enumerate(numbers, first_column)]


def _class_index(label: Any, classes: np.ndarray) -> int:
    names = classes.tolist()
    if label not in names:
        raise ValueError(f"There is no class {label!r}; the classes are {names[:10]}.")
    return names.index(label)


def _line(tail: Box, head: Box, offset: float) -> Line:
    return tail.right, tail.bottom + 0.5 + offset, head.left, head.bottom + 0.5 + offset
