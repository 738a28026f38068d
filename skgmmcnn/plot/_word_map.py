"""Maps of the words of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import networkx as nx
import numpy as np
from sklearn.pipeline import Pipeline

from .._pipelines import open_pipeline
from ..chain import LayerHMM
from ..dictionary import LayerDictionary, WordMaps
from ..graph import DECISION, strength_of
from ._cells import cells_of, draw_borders, draw_cells, equal_cells
from ._drawing import (
    PALETTE,
    Drawing,
    Limits,
    Theme,
    draw_image,
    draw_rectangle,
    grey,
    in_lines,
    shortened,
    write,
)
from ._layout import Box
from ._reading import check_layers, find_images, pictures, run, words_by_name

_SIDE, _GAP = 1.75, 0.2
_ENTRY, _PATCH = 0.36, 0.3  # height of an entry of the legend, and side of the patch in it
_COLUMNS = 4
_TINT = 0.6  # how opaque colours are
_KEY = (
    "Colours: words of the image, each with its most typical patch of the fitted images, and the locations that show "
    "it, of all. Grey: other words."
)
_SHORT = 7  # letters of entries that stand two by two


class WordMapDisplay(Drawing):
    """An image with its maps of words, one panel per layer.

    In each panel some words are coloured on the grey image, and named below, each with its most typical patch and the
    number of locations that show it, of all.  A location is drawn on the pixels nearest to the middle of its
    receptive field.  For a layer with a single location the image is framed in the colour of its word.

    Parameters
    ----------
    words : WordMaps
        Words of one image.
    chosen : dict of str to sequence of int
        The words to colour, by layer: at most eight.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn into.
    figure_ : matplotlib.figure.Figure
        The figure of the axes.

    See Also
    --------
    VisualWordDisplay : Typical patches of words.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, LayerDictionary, WordMapDisplay
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> pipe = make_pipeline(
    ...     FeatureExtractor(digits.network, layers=["conv2", "conv3"]), LayerDictionary(30, random_state=0)
    ... ).fit(digits.images)
    >>> display = WordMapDisplay.from_estimator(pipe, digits.test_images, image=3)
    >>> display.save("where.svg")  # doctest: +SKIP
    """

    def __init__(self, words: WordMaps, chosen: Mapping[str, Sequence[int]]) -> None:
        self.words = words
        self.chosen = chosen

    @classmethod
    def from_estimator(
        cls,
        estimator: LayerDictionary | LayerHMM | Pipeline,
        X: Any,
        *,
        image: int | str = 0,
        words: Sequence[tuple[str, int] | str] | None = None,
        graph: nx.DiGraph | None = None,
        layers: Sequence[str] | None = None,
        n_words: int = 6,
        ax: Any = None,
    ) -> WordMapDisplay:
        """Draw the words of one image.

        Parameters
        ----------
        estimator : LayerDictionary, LayerHMM or Pipeline
            Fitted; a pipeline has one of these among its steps.
        X : WordMaps or FeatureMaps, or what the pipeline takes
            Images.
        image : int or str, default=0
            The image of X to draw, by number or file name.
        words : sequence of (str, int) or str, default=None
            Words to colour, by layer and number, ``("layer3", 17)``, or as graphs and tables name them,
            ``"layer3_w017"``.
        graph : networkx.DiGraph, default=None
            Colour the words of this graph, of each layer at most eight, the strongest.
        layers : sequence of str, default=None
            Layers to draw; all if None, or those that have words to colour.
        n_words : int, default=6
            Most words to colour of each layer where these are not given: those that the image shows most, 1 to 8.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into; None makes a figure of fitting size.

        Returns
        -------
        display : WordMapDisplay
            The drawn display.
        """
        before, model, X = open_pipeline(estimator, X, LayerDictionary, LayerHMM)
        X = X[find_images(image, X)]
        maps = X if isinstance(X, WordMaps) else model.transform(run(before, X))
        if maps.vocabulary.fingerprint != model.vocabulary_.fingerprint:
            raise ValueError("These words come from another dictionary than the one that is given.")
        chosen = _choose(maps, words, graph, n_words)
        if layers is not None:
            chosen = {layer: chosen.get(layer, []) for layer in check_layers(layers, maps)}
        return cls(maps, chosen).plot(ax=ax)

    def _lay_out(self) -> Limits:
        for layer, numbers in self.chosen.items():
            if len(numbers) > len(PALETTE):
                raise ValueError(
                    f"At most {len(PALETTE)} words of a layer can be distinguished; {layer!r} has {len(numbers)}."
                )
        self._picture = next(iter(pictures(self.words, [0])), None)
        self._boxes, bottom = self._place(self._picture)
        return Limits(-_GAP / 2, max(box.right for box in self._boxes.values()) + _GAP / 2, bottom, 0)

    def _draw(self) -> None:
        for layer, box in self._boxes.items():
            self._draw_title(layer, box)
            if layer is not None:
                self._draw_map(layer, box, self._picture)
                self._draw_legend(layer, box)
            elif self._picture is not None:
                draw_image(self.ax_, box, self._picture)

    def _key(self) -> str:
        return _KEY

    def _place(self, picture: np.ndarray | None) -> tuple[dict[str | None, Box], float]:
        """Return boxes for the image, None, and the maps, and where the lowest legend ends."""
        panels: list[str | None] = [*([] if picture is None else [None]), *self.chosen]
        n_rows = -(-len(panels) // _COLUMNS)
        columns = -(-len(panels) // n_rows)
        height, width = next(iter(self.words.words.values())).shape[1:] if picture is None else picture.shape[:2]
        tall, y = _SIDE * min(max(height / width, 0.4), 1.6), 0.0
        boxes: dict[str | None, Box] = {}
        for row in (panels[start : start + columns] for start in range(0, len(panels), columns)):
            y -= max(map(self._title_height, row))
            boxes |= {panel: Box(place * (_SIDE + _GAP), y - tall, _SIDE, tall) for place, panel in enumerate(row)}
            y -= tall + max(map(self._legend_height, row)) + _GAP
        return boxes, y + _GAP / 2

    def _title(self, layer: str | None) -> tuple[str, str]:
        """Return the name above a panel, and a line about it."""
        if layer is None:
            decision = self.words.spec.class_name(int(self.words.decisions[0]))
            return "\n".join(wrap(shortened(decision, 44), 22)), "the decision"
        shown = self.words.words[layer][0]
        height, width = shown.shape
        if shown.size == 1:
            return in_lines(layer, 20), "1 location"
        n_words = len(np.unique(shown))
        about = f"{height} x {width} locations, {n_words} word{'s' if n_words > 1 else ''}"
        return in_lines(layer, 20), about

    def _title_height(self, layer: str | None) -> float:
        return 0.16 * (1 + self._title(layer)[0].count("\n")) + 0.3

    def _draw_title(self, layer: str | None, box: Box) -> None:
        name, about = self._title(layer)
        write(self.ax_, box.middle, box.top + 0.18, name, size=9, weight="bold", va="bottom")
        write(self.ax_, box.middle, box.top + 0.04, about, size=7.5, color=Theme.current().grey(), va="bottom")

    def _draw_map(self, layer: str, box: Box, picture: np.ndarray | None) -> None:
        shown, spec = self.words.words[layer][0], self.words.spec
        ground = np.full((*shown.shape, 3), 235, np.uint8) if picture is None else grey(picture)
        drawn = draw_image(self.ax_, box, ground)
        if shown.size == 1:
            for colour in self._colours(layer)[shown[0, 0] == np.array(self.chosen[layer])]:
                draw_rectangle(self.ax_, drawn, fc="none", ec=colour, lw=5)
            return
        colours = np.zeros((*shown.shape, 4))
        for colour, word in zip(self._colours(layer), self.chosen[layer], strict=True):
            colours[shown == word] = (*colour, _TINT)
        cells = equal_cells(shown.shape) if picture is None else cells_of(spec, layer)
        draw_cells(self.ax_, drawn, cells, colours)
        draw_borders(self.ax_, drawn, cells, np.where(np.isin(shown, self.chosen[layer]), shown, -1))

    def _colours(self, layer: str) -> np.ndarray:
        from matplotlib.colors import to_rgb

        return np.array([to_rgb(colour) for colour in PALETTE[: len(self.chosen[layer])]])

    def _entries(self, layer: str | None) -> list[str]:
        """Return the texts of a legend, of two lines each."""
        if layer is None:
            return []
        shown, names = self.words.words[layer][0], self.words.vocabulary.names
        entries = []
        for word in self.chosen[layer]:
            count, name = f"{(shown == word).sum()}/{shown.size}", names.get((layer, word))
            entries.append(f"w{word}\n{count}" if name is None else f"{shortened(name, 22)}\nw{word}   {count}")
        return entries

    def _legend_height(self, layer: str | None) -> float:
        entries = self._entries(layer)
        return _ENTRY * -(-len(entries) // _columns(entries)) + 0.06

    def _draw_legend(self, layer: str, box: Box) -> None:
        entries, found = self._entries(layer), self.words.vocabulary.representatives.get(layer)
        columns = _columns(entries)
        for place, (word, colour, entry) in enumerate(zip(self.chosen[layer], PALETTE, entries, strict=False)):
            row, column = divmod(place, columns)
            left, bottom = box.left + column * _SIDE / columns + 0.03, box.bottom - 0.06 - _ENTRY * row - _PATCH - 0.03
            patch = Box(left, bottom, _PATCH, _PATCH)
            if found is not None and found.patches is not None and found.images[word, 0] >= 0:
                draw_image(self.ax_, patch, found.patches[word, 0])
                draw_rectangle(self.ax_, patch, fc="none", ec=colour, lw=2.5)
            else:
                draw_rectangle(self.ax_, patch, fc=colour, ec="none")
            write(self.ax_, patch.right + 0.06, bottom + _PATCH / 2, entry, size=7, ha="left", linespacing=1.1)


def _columns(entries: Sequence[str]) -> int:
    return 1 if any(len(line) > _SHORT for entry in entries for line in entry.split("\n")) else 2


def _choose(
    maps: WordMaps, words: Sequence[tuple[str, int] | str] | None, graph: nx.DiGraph | None, n_words: int
) -> dict[str, list[int]]:
    """Return the words to colour of each layer that has any, in the order of their colours."""
    if words is not None and graph is not None:
        raise ValueError("The words to colour are those of words= or those of graph=; give one of them.")
    if not 1 <= n_words <= len(PALETTE):
        raise ValueError(f"n_words must be 1 to {len(PALETTE)}; got {n_words}.")
    if words is None and graph is None:
        return {layer: _most_frequent(maps.words[layer][0], n_words) for layer in maps.layers}
    if graph is not None:
        strength = strength_of(graph)
        nodes = sorted(graph.nodes.values(), key=lambda node: -abs(strength.of_node(node)))
        words = [(node["layer"], node["word"]) for node in nodes if node["layer"] != DECISION]
    chosen: dict[str, list[int]] = {layer: [] for layer in maps.layers}
    for layer, word in dict.fromkeys(words_by_name(maps.vocabulary, words or [])):
        chosen[layer].append(word)
    most = None if graph is None else len(PALETTE)
    return {layer: numbers[:most] for layer, numbers in chosen.items() if numbers}


def _most_frequent(shown: np.ndarray, n_words: int) -> list[int]:
    counts = np.bincount(shown.ravel())
    return [int(word) for word in np.argsort(-counts, kind="stable")[:n_words] if counts[word]]
