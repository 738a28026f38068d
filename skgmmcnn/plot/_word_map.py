"""Maps of the words of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from ._drawing import PALETTE, Drawing, in_lines, shortened
from ._layout import Box
from ._reading import find_images, pictures, run, words_by_name

_SIDE, _GAP = 1.75, 0.2
_ENTRY, _PATCH = 0.36, 0.3  # height of an entry of the legend, and side of the patch in it
_COLUMNS = 4
_TINT = 0.6  # how opaque colours are
_SHORT = 7  # letters of entries that stand two by two


@dataclass(eq=False, repr=False)
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
    chosen: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        for layer, numbers in self.chosen.items():
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
            Colour the words of this graph, of each layer at most eight, the strongest.
        layers : str or sequence of str, default=None
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
        maps = run([*before, model], X)
        if maps.vocabulary.fingerprint != model.vocabulary_.fingerprint:
            raise ValueError("These words come from another dictionary than the one that is given.")
        chosen = _choose(maps, words, graph, n_words)
        if layers is not None:
            chosen = {layer: chosen.get(layer, []) for layer in check_layers(layers, maps.layers)}
        return cls(maps, chosen).plot(ax=ax)

    def _key(self) -> list[str]:
        colours = (
            "words of the image, each with its most typical patch of the fitted images, and its share of locations."
        )
        return [f"Colours: {colours}", "Grey: other words."]

    def _draw(self) -> Box:
        picture = next(iter(pictures(self.words)), None)
        panels: list[str | None] = [*([] if picture is None else [None]), *self.chosen]
        columns = -(-len(panels) // -(-len(panels) // _COLUMNS))
        height, width = next(iter(self.words.words.values())).shape[1:] if picture is None else picture.shape[:2]
        tall, y = _SIDE * min(max(height / width, 0.4), 1.6), 0.0
        for row in (panels[start : start + columns] for start in range(0, len(panels), columns)):
            titles = [self._title(layer) for layer in row]
            y -= 0.46 + 0.16 * max(name.count("\n") for name, _ in titles) + tall
            boxes = [Box(place * (_SIDE + _GAP), y, _SIDE, tall) for place in range(len(row))]
            for box, (name, about) in zip(boxes, titles, strict=True):
                self._write(box.middle, box.top + 0.18, name, 9, weight="bold", va="bottom")
                self._write(box.middle, box.top + 0.04, about, 7.5, color=self._grey(), va="bottom")
            y = min(self._draw_panel(box, layer, picture) for box, layer in zip(boxes, row, strict=True)) - _GAP
        return Box(-_GAP / 2, y + _GAP / 2, columns * (_SIDE + _GAP), -y - _GAP / 2)

    def _title(self, layer: str | None) -> tuple[str, str]:
        """Return the name above a panel, and a line about it."""
        if layer is None:
            decision = self.words.spec.class_name(int(self.words.decisions[0]))
            return "\n".join(wrap(shortened(decision, 44), 22)), "the decision"
        shown = self.words.words[layer][0]
        height, width = shown.shape
        n_words = len(np.unique(shown))
        about = f"{height} x {width} locations, {n_words} word{'s' if n_words > 1 else ''}"
        return in_lines(layer, 20), "1 location" if shown.size == 1 else about

    def _draw_panel(self, box: Box, layer: str | None, picture: np.ndarray | None) -> float:
        """Draw the image, or a map with its legend; return the y of the lower end."""
        if layer is None:
            assert picture is not None
            self._draw_image(box, picture)
            return box.bottom - 0.06
        shown, cells, chosen = self.words.words[layer][0], cells_of(self.words.spec, layer), self.chosen[layer]
        ground = np.full((*shown.shape, 3), 235, np.uint8) if picture is None else grey(picture)
        drawn = self._draw_image(box, ground)
        if shown.size > 1:
            self._tint(drawn, cells, shown, chosen, _TINT)
            self._outline(drawn, cells, np.where(np.isin(shown, chosen), shown, -1))
        elif shown[0, 0] in chosen:
            self._draw_rectangle(drawn, fc="none", ec=PALETTE[list(chosen).index(shown[0, 0])], lw=5)
        return self._draw_legend(box, layer)

    def _draw_legend(self, box: Box, layer: str) -> float:
        shown, names = self.words.words[layer][0], self.words.vocabulary.names
        typical = self.words.vocabulary.representatives.get(layer)
        entries = []
        for word in self.chosen[layer]:
            count, name = f"{(shown == word).sum()}/{shown.size}", names.get((layer, word))
            entries.append(f"w{word}\n{count}" if name is None else f"{shortened(name, 22)}\nw{word}   {count}")
        columns = 1 if any(len(line) > _SHORT for entry in entries for line in entry.split("\n")) else 2
        for place, (word, colour, entry) in enumerate(zip(self.chosen[layer], PALETTE, entries, strict=False)):
            row, column = divmod(place, columns)
            left, bottom = box.left + column * _SIDE / columns + 0.03, box.bottom - 0.06 - _ENTRY * row - _PATCH - 0.03
            patch = Box(left, bottom, _PATCH, _PATCH)
            if typical is not None and typical.patches is not None and typical.images[word, 0] >= 0:
                self._draw_image(patch, typical.patches[word, 0])
                self._draw_rectangle(patch, fc="none", ec=colour, lw=2.5)
            else:
                self._draw_rectangle(patch, fc=colour, ec="none")
            self._write(patch.right + 0.06, patch.centre, entry, 7, ha="left", linespacing=1.1)
        return box.bottom - 0.06 - _ENTRY * -(-len(entries) // columns)


def _choose(
    maps: WordMaps, words: Sequence[tuple[str, int] | str] | None, graph: nx.DiGraph | None, n_words: int
) -> dict[str, list[int]]:
    """Return the words to colour of each layer that has any, in the order of their colours."""
    if words is not None and graph is not None:
        raise ValueError("The words to colour are those of words= or those of graph=; give one of them.")
    if not 1 <= n_words <= len(PALETTE):
        raise ValueError(f"n_words must be 1 to {len(PALETTE)}; got {n_words}.")
    chosen: dict[str, list[int]] = {layer: [] for layer in maps.layers}
    if words is None and graph is None:
        for layer in maps.layers:
            counts = np.bincount(maps.words[layer][0].ravel())
            chosen[layer] = [int(word) for word in np.argsort(-counts, kind="stable")[:n_words] if counts[word]]
        return chosen
    if graph is not None:
        strength = strength_of(graph)
        nodes = sorted(graph.nodes.values(), key=lambda node: -abs(strength.of_node(node)))
        words = [(node["layer"], node["word"]) for node in nodes if node["layer"] != DECISION]
    for layer, word in dict.fromkeys(words_by_name(maps.vocabulary, words or [])):
        chosen[layer].append(word)
    most = None if graph is None else len(PALETTE)
    return {layer: numbers[:most] for layer, numbers in chosen.items() if numbers}
