"""Maps of the words of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from textwrap import wrap
from typing import Any

import networkx as nx
import numpy as np
from sklearn.pipeline import Pipeline

from .._pipelines import open_pipeline
from ..chain import LayerHMM
from ..dictionary import LayerDictionary, WordMaps
from ..features import check_layers
from ..graph import DECISION, strength_of
from ._cells import cells_of, grey
from ._drawing import PALETTE, Drawing, shorten, wrap_name
from ._layout import Box, height_of_images
from ._reading import find_images, pictures, run, words_by_name

_SIDE, _GAP = 1.75, 0.2
_ENTRY, _PATCH = 0.36, 0.3  # height of an entry of the legend, and side of the patch in it
_COLUMNS = 4
_OPACITY = 0.6  # of colours
_SHORT = 7  # letters of entries that stand two by two


@dataclass(eq=False, repr=False)
class WordMapDisplay(Drawing):
    """An image with its maps of words, one panel per layer.

    In each panel some words are coloured on the grey image.  A legend names them, each with its most typical patch and
    its share of the locations.  A location covers the pixels nearest to the middle of its receptive field.  For a layer
    with a single location the image is framed in the colour of its word.

    Parameters
    ----------
    words : WordMaps
        Words of one image.
    selected_words : dict of str to sequence of int
        The words to colour, by layer: at most eight.

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        The axes drawn into, and their figure.

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

    words: WordMaps
    selected_words: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        for layer, numbers in self.selected_words.items():
            if len(numbers) > len(PALETTE):
                raise ValueError(
                    f"At most {len(PALETTE)} words of a layer can be distinguished; {layer!r} has {len(numbers)}."
                )

    @classmethod
    def from_estimator(
        cls,
        estimator: LayerDictionary | LayerHMM | Pipeline,
        X: Any,
        *,
        image: int | str = 0,
        words: Sequence[tuple[str, int] | str] | None = None,
        graph: nx.DiGraph | None = None,
        layers: str | Sequence[str] | None = None,
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
            Graph whose words to colour, the strongest eight of each layer.
        layers : str or sequence of str, default=None
            Layers to draw; None draws those with words to colour.
        n_words : int, default=6
            Number of words to colour of each layer without `words` and `graph`, the most frequent ones, 1 to 8.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into; None makes a figure of fitting size.

        Returns
        -------
        display : WordMapDisplay
            The drawn display.
        """
        before, model, X = open_pipeline(estimator, X, LayerDictionary, LayerHMM)
        X = X[find_images(image, X)]
        maps = run([*before, model], X)
        if maps.vocabulary.fingerprint != model.vocabulary_.fingerprint:
            raise ValueError(
                "The words of X come from another dictionary than the estimator's; transform the images with it."
            )
        selected_words = _select_words(maps, words, graph, n_words)
        if layers is not None:
            selected_words = {layer: selected_words.get(layer, []) for layer in check_layers(layers, maps.layers)}
        return cls(maps, selected_words).plot(ax=ax)

    def _key(self) -> list[str]:
        return [
            "Colours: words of the image, each with its most typical patch of the fitted images, and its share of "
            "locations.",
            "Grey: other words.",
        ]

    def _draw(self) -> Box:
        images = pictures(self.words)
        picture = images[0] if images else None
        panels = [*([None] if images else []), *self.selected_words]
        columns = ceil(len(panels) / ceil(len(panels) / _COLUMNS))
        shape = next(iter(self.words.words.values())).shape[1:] if picture is None else picture.shape
        height = height_of_images(_SIDE, [shape])
        y = 0.0
        for start in range(0, len(panels), columns):
            row = panels[start : start + columns]
            titles = [self._title(layer) for layer in row]
            y -= 0.46 + 0.16 * max(name.count("\n") for name, _ in titles) + height
            ends = []
            for place, (layer, (name, about)) in enumerate(zip(row, titles, strict=True)):
                box = Box(place * (_SIDE + _GAP), y, _SIDE, height)
                self._write(box.middle, box.top + 0.18, name, 9, weight="bold", va="bottom")
                self._write(box.middle, box.top + 0.04, about, 7.5, color=self._grey(), va="bottom")
                ends.append(self._draw_panel(box, layer, picture))
            y = min(ends) - _GAP
        return Box(-_GAP / 2, y + _GAP / 2, columns * (_SIDE + _GAP), -y - _GAP / 2)

    def _title(self, layer: str | None) -> tuple[str, str]:
        """Return the name above a panel, and a line about it."""
        if layer is None:
            decision = self.words.spec.class_name(int(self.words.decisions[0]))
            return "\n".join(wrap(shorten(decision, 44), 22)), "the decision"
        word_map = self.words.words[layer][0]
        height, width = word_map.shape
        n_words = len(np.unique(word_map))
        about = f"{height} x {width} locations, {n_words} word{'s' if n_words > 1 else ''}"
        return wrap_name(layer, 20), "1 location" if word_map.size == 1 else about

    def _draw_panel(self, box: Box, layer: str | None, picture: np.ndarray | None) -> float:
        """Draw the image, or a map with its legend; return the y of the lower end."""
        if layer is None:
            assert picture is not None
            self._draw_image(box, picture)
            return box.bottom - 0.06
        word_map, words = self.words.words[layer][0], list(self.selected_words[layer])
        ground = np.full((*word_map.shape, 3), 235, np.uint8) if picture is None else grey(picture)
        image_box = self._draw_image(box, ground)
        if word_map.size > 1:
            cells = cells_of(self.words.spec, layer)
            self._tint(image_box, cells, word_map, words, _OPACITY)
            self._outline(image_box, cells, np.where(np.isin(word_map, words), word_map, -1))
        elif word_map[0, 0] in words:
            self._draw_rectangle(image_box, fc="none", ec=PALETTE[words.index(word_map[0, 0])], lw=5)
        return self._draw_legend(box, layer)

    def _draw_legend(self, box: Box, layer: str) -> float:
        """Draw the words of a layer below a map, in two columns if texts are short; return the y of the lower end."""
        typical = self.words.vocabulary.representatives.get(layer)
        words = self.selected_words[layer]
        texts = [self._legend_text(layer, word) for word in words]
        columns = 1 if any(len(line) > _SHORT for text in texts for line in text.split("\n")) else 2
        for place, (word, colour, text) in enumerate(zip(words, PALETTE, texts, strict=False)):
            row, column = divmod(place, columns)
            left, bottom = box.left + column * _SIDE / columns + 0.03, box.bottom - 0.06 - _ENTRY * row - _PATCH - 0.03
            patch = Box(left, bottom, _PATCH, _PATCH)
            if typical is not None and typical.patches is not None and typical.images[word, 0] >= 0:
                self._draw_image(patch, typical.patches[word, 0])
                self._draw_rectangle(patch, fc="none", ec=colour, lw=2.5)
            else:
                self._draw_rectangle(patch, fc=colour, ec="none")
            self._write(patch.right + 0.06, patch.centre, text, 7, ha="left", linespacing=1.1)
        return box.bottom - 0.06 - _ENTRY * ceil(len(words) / columns)

    def _legend_text(self, layer: str, word: int) -> str:
        """Return the name and number of a word, and its share of locations."""
        word_map = self.words.words[layer][0]
        share = f"{(word_map == word).sum()}/{word_map.size}"
        name = self.words.vocabulary.names.get((layer, word))
        return f"w{word}\n{share}" if name is None else f"{shorten(name, 22)}\nw{word}   {share}"


def _select_words(
    maps: WordMaps, words: Sequence[tuple[str, int] | str] | None, graph: nx.DiGraph | None, n_words: int
) -> dict[str, list[int]]:
    """Return the words to colour of each layer that has any, in the order of their colours."""
    if words is not None and graph is not None:
        raise ValueError("The words to colour are those of words= or those of graph=; give one of them.")
    if not 1 <= n_words <= len(PALETTE):
        raise ValueError(f"n_words must be 1 to {len(PALETTE)}; got {n_words}.")
    limit = None
    if graph is not None:
        words, limit = _words_by_strength(graph), len(PALETTE)
    elif words is None:
        words, limit = _words_by_frequency(maps), n_words
    pairs = dict.fromkeys(words_by_name(maps.vocabulary, words))
    selected_words = {layer: [word for other, word in pairs if other == layer][:limit] for layer in maps.layers}
    return {layer: numbers for layer, numbers in selected_words.items() if numbers}


def _words_by_strength(graph: nx.DiGraph) -> list[tuple[str, int]]:
    strength = strength_of(graph)
    nodes = sorted(graph.nodes.values(), key=lambda node: -abs(strength.of_node(node)))
    return [(node["layer"], node["word"]) for node in nodes if node["layer"] != DECISION]


def _words_by_frequency(maps: WordMaps) -> list[tuple[str, int]]:
    pairs = []
    for layer in maps.layers:
        numbers, counts = np.unique(maps.words[layer][0], return_counts=True)
        pairs += [(layer, int(number)) for number in numbers[np.argsort(-counts, kind="stable")]]
    return pairs
