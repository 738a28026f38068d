"""Typical patches and classes of words."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
from sklearn.pipeline import Pipeline

from .._pipelines import find_step
from ..chain import LayerHMM
from ..dictionary import LayerDictionary, Vocabulary
from ..graph import percent
from ._drawing import (
    Drawing,
    Limits,
    Theme,
    draw_patches,
    draw_rectangle,
    has_rings,
    in_lines,
    shortened,
    write,
)
from ._layout import Box
from ._reading import named_vocabulary, statistics_of, words_by_name

_NAME, _PATCH, _BARS = 1.35, 0.8, 0.95  # widths of a row's parts; a patch is as high as it is wide
_LINE, _NAME_LINE, _ABOUT_LINE = 0.17, 0.155, 0.125  # of a bar, of a name, and of what stands below it
_GAP = 0.2
_LETTER = 0.068  # mean width of a letter of a class's name
_LONGEST = 32  # letters of a class's name


class _Title(NamedTuple):
    """Lines beside a word's patches: its name, and smaller its layer and frequency."""

    name: list[str]
    about: list[str]

    @property
    def height(self) -> float:
        return _NAME_LINE * len(self.name) + _ABOUT_LINE * len(self.about)


class VisualWordDisplay(Drawing):
    """Typical patches and classes of words, one row per word.

    On the left the patches of fitted images that are most typical of the word; on the right the commonest classes of
    the images that show it.  The line on a bar marks the class's share of all locations, where the bar of a word
    that is independent of the class would end.

    Parameters
    ----------
    vocabulary : Vocabulary
        The words, with representatives and statistics.
    words : sequence of (str, int)
        The words to show, by layer and number.
    n_patches : int, default=5
        Typical patches per word, 1 to 9.
    n_classes : int, default=4
        Most classes per word.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn into.
    figure_ : matplotlib.figure.Figure
        The figure of the axes.

    See Also
    --------
    WordMapDisplay : Where an image shows which words.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, LayerDictionary, VisualWordDisplay
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> pipe = make_pipeline(
    ...     FeatureExtractor(digits.network, layers=["conv2", "conv3"]), LayerDictionary(30, random_state=0)
    ... ).fit(digits.images)
    >>> display = VisualWordDisplay.from_estimator(pipe, [("conv3", 7), "conv2_w012"])
    >>> display.save("words.svg")  # doctest: +SKIP
    """

    def __init__(
        self, vocabulary: Vocabulary, words: Sequence[tuple[str, int]], *, n_patches: int = 5, n_classes: int = 4
    ) -> None:
        if not 1 <= n_patches <= 9 or n_classes < 0:
            raise ValueError(f"1 to 9 patches and 0 or more classes can be drawn; got {n_patches} and {n_classes}.")
        self.vocabulary = vocabulary
        self.words = words
        self.n_patches = n_patches
        self.n_classes = n_classes

    @classmethod
    def from_estimator(
        cls,
        estimator: LayerDictionary | LayerHMM | Pipeline,
        words: Sequence[tuple[str, int] | str],
        *,
        n_patches: int = 5,
        n_classes: int = 4,
        ax: Any = None,
    ) -> VisualWordDisplay:
        """Draw some words of a fitted dictionary.

        Parameters
        ----------
        estimator : LayerDictionary, LayerHMM or Pipeline
            Fitted; a pipeline has one of these among its steps.
        words : sequence of (str, int) or str
            The words, by layer and number, ``("layer3", 17)``, or as graphs and tables name them, ``"layer3_w017"``.
        n_patches : int, default=5
            Typical patches per word, 1 to 9.
        n_classes : int, default=4
            Most classes per word.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into; None makes a figure of fitting size.

        Returns
        -------
        display : VisualWordDisplay
            The drawn display.
        """
        _, model = find_step(estimator, LayerDictionary, LayerHMM)
        vocabulary = named_vocabulary(model)
        statistics_of(vocabulary)
        return cls(vocabulary, words_by_name(vocabulary, words), n_patches=n_patches, n_classes=n_classes).plot(ax=ax)

    def _lay_out(self) -> Limits:
        self._bars = [self._shares(*word) for word in self.words]
        names = max((len(name) for lines in self._bars for name, *_ in lines), default=0) * _LETTER
        self._height = max(
            _PATCH, _LINE * max(map(len, self._bars)), *(self._title(*word).height for word in self.words)
        )
        self._left = _NAME + self.n_patches * _PATCH + 0.2 + names
        right = self._left + (_BARS + 0.6 if names else 0)
        return Limits(-0.1, right, -len(self.words) * (self._height + _GAP), _GAP / 2)

    def _draw(self) -> None:
        scale = _BARS / max((share for lines in self._bars for _, *shares in lines for share in shares), default=1)
        for number, (word, lines) in enumerate(zip(self.words, self._bars, strict=True)):
            middle = -number * (self._height + _GAP) - self._height / 2
            self._draw_word(word, middle)
            self._draw_bars(lines, self._left, middle, scale)

    def _shares(self, layer: str, word: int) -> list[tuple[str, float, float]]:
        """Return names of classes, their shares of the word's locations, and of all locations; 0 for the rest."""
        found = self.vocabulary.statistics[layer]
        if found.counts.shape[1] == 1 or not found.share[word]:  # no classes, or a dead word
            return []
        shares, usual = found.classes[word], found.counts.sum(0) / found.counts.sum()
        order = [int(label) for label in np.argsort(-shares, kind="stable") if shares[label]]
        first, rest = order[: self.n_classes], order[self.n_classes :]
        lines = [(self._class_name(label), float(shares[label]), float(usual[label])) for label in first]
        if rest:
            lines.append((f"{len(rest)} other{'s' if len(rest) > 1 else ''}", float(shares[rest].sum()), 0.0))
        return lines

    def _class_name(self, label: int) -> str:
        names = self.vocabulary.class_names
        return f"class {label}" if names is None else shortened(names[label], _LONGEST)

    def _title(self, layer: str, number: int) -> _Title:
        share = float(self.vocabulary.statistics[layer].share[number])
        name = self.vocabulary.names.get((layer, number))
        return _Title(
            [f"w{number}"] if name is None else [*wrap(shortened(name, 44), 16), f"(w{number})"],
            [*in_lines(layer).splitlines(), f"{percent(share)} of locations" if share else "at no location"],
        )

    def _draw_word(self, word: tuple[str, int], middle: float) -> None:
        layer, number = word
        title = self._title(*word)
        y = middle + title.height / 2
        write(self.ax_, 0, y, "\n".join(title.name), size=9, weight="bold", ha="left", va="top")
        y -= _NAME_LINE * len(title.name)
        write(self.ax_, 0, y, "\n".join(title.about), size=7.5, color=Theme.current().grey(), ha="left", va="top")
        box = Box(_NAME, middle - _PATCH / 2, self.n_patches * _PATCH, _PATCH)
        draw_patches(self.ax_, box, self.vocabulary.representatives.get(layer), number, self.n_patches)

    def _draw_bars(self, lines: list[tuple[str, float, float]], left: float, middle: float, scale: float) -> None:
        for place, (name, share, usual) in enumerate(lines):
            y = middle + _LINE * ((len(lines) - 1) / 2 - place)
            write(self.ax_, left - 0.05, y, name, size=7.5, ha="right")
            colour = Theme.current().ink if usual else "0.7"
            draw_rectangle(self.ax_, Box(left, y - 0.06, scale * share, 0.12), fc=colour, alpha=0.75, ec="none")
            write(self.ax_, left + scale * max(share, usual) + 0.05, y, percent(share), size=7.5, ha="left")
            if usual:
                x = left + scale * usual
                self.ax_.plot(
                    [x, x], [y - 0.08, y + 0.08], color=Theme.current().letters, lw=1, zorder=5, solid_capstyle="butt"
                )

    def _key(self) -> str:
        layers = {layer for layer, _ in self.words}
        shown = [found for layer, found in self.vocabulary.representatives.items() if layer in layers]
        parts = ["Patches: the most typical ones of a word in the fitted images."]
        if any(map(has_rings, shown)):
            parts.append("Rings: the location.")
        if any(self.vocabulary.statistics[layer].counts.shape[1] > 1 for layer in layers):
            parts.append("Bars: classes of the images that show the word; lines: their shares of all locations.")
        return " ".join(parts)
