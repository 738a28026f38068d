"""Typical patches and classes of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from textwrap import wrap
from typing import Any

from sklearn.pipeline import Pipeline

from .._pipelines import find_step
from ..chain import LayerHMM
from ..dictionary import LayerDictionary, Vocabulary
from ..graph import percent
from ._drawing import Drawing, shorten, wrap_name
from ._layout import Box
from ._reading import classes_of, named_vocabulary, statistics_of, words_by_name

_NAME, _PATCH, _BARS = 1.35, 0.8, 0.95  # widths of a row's parts; a patch is as high as it is wide
_LINE, _NAME_LINE, _ABOUT_LINE = 0.17, 0.155, 0.125  # heights of lines: of bars, of names, and of notes below these
_GAP = 0.2
_LETTER = 0.068  # mean width of a letter of a class's name
_LONGEST = 32  # letters of a class's name


@dataclass(eq=False, repr=False)
class VisualWordDisplay(Drawing):
    """Typical patches and classes of words, one row per word.

    On the left are the most typical patches of the word in the fitted images, on the right the commonest classes of the
    images that show it.  The line on a bar marks the class's share of all locations, the length of the bar if word and
    class were independent.

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
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        The axes drawn into, and their figure.

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

    vocabulary: Vocabulary
    words: Sequence[tuple[str, int]]
    _: KW_ONLY
    n_patches: int = 5
    n_classes: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.n_patches <= 9 or self.n_classes < 0:
            raise ValueError(
                f"1 to 9 patches and 0 or more classes can be drawn; got {self.n_patches} and {self.n_classes}."
            )

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

    def _draw(self) -> Box:
        bars = [self._shares(*word) for word in self.words]
        titles = [self._title(*word) for word in self.words]
        title_heights = [_NAME_LINE * len(name) + _ABOUT_LINE * len(about) for name, about in titles]
        height = max(_PATCH, _LINE * max(map(len, bars)), *title_heights)
        names_width = max((len(name) for lines in bars for name, *_ in lines), default=0) * _LETTER
        scale = _BARS / max((share for lines in bars for _, *shares in lines for share in shares), default=1)
        left, middle = _NAME + self.n_patches * _PATCH + 0.2 + names_width, -height / 2
        for (layer, number), (name, about), lines in zip(self.words, titles, bars, strict=True):
            y = middle + (_ABOUT_LINE * len(about) - _NAME_LINE * len(name)) / 2  # where the two meet
            self._write(0, y, "\n".join(name), 9, weight="bold", ha="left", va="bottom")
            self._write(0, y, "\n".join(about), 7.5, color=self._grey(), ha="left", va="top")
            box = Box(_NAME, middle - _PATCH / 2, self.n_patches * _PATCH, _PATCH)
            self._draw_patches(box, self.vocabulary.representatives.get(layer), number, self.n_patches)
            self._draw_bars(lines, left, middle, scale)
            middle -= height + _GAP
        right, bottom = left + (_BARS + 0.6 if names_width else 0), middle + height / 2
        return Box(-0.1, bottom, right + 0.1, _GAP / 2 - bottom)

    def _shares(self, layer: str, word: int) -> list[tuple[str, float, float]]:
        """Return names of classes, their shares of the word's locations, and of all locations; 0 for the rest."""
        statistics, names = self.vocabulary.statistics[layer], self.vocabulary.class_names
        classes = classes_of(statistics, [word])
        overall = statistics.counts.sum(0) / statistics.counts.sum()
        lines = []
        for label, share in classes[: self.n_classes]:
            name = f"class {label}" if names is None else shorten(names[label], _LONGEST)
            lines.append((name, share, float(overall[label])))
        others = [share for _, share in classes[self.n_classes :]]
        if others:
            lines.append((f"{len(others)} other{'s' if len(others) > 1 else ''}", sum(others), 0.0))
        return lines

    def _title(self, layer: str, number: int) -> tuple[list[str], list[str]]:
        """Return the lines beside a word's patches: its name, and its layer and frequency."""
        share = float(self.vocabulary.statistics[layer].share[number])
        name = self.vocabulary.names.get((layer, number))
        return (
            [f"w{number}"] if name is None else [*wrap(shorten(name, 44), 16), f"(w{number})"],
            [*wrap_name(layer).splitlines(), f"{percent(share)} of locations" if share else "at no location"],
        )

    def _draw_bars(self, lines: list[tuple[str, float, float]], left: float, middle: float, scale: float) -> None:
        for place, (name, share, overall) in enumerate(lines):
            y = middle + _LINE * ((len(lines) - 1) / 2 - place)
            self._write(left - 0.05, y, name, 7.5, ha="right")
            self._write(left + scale * max(share, overall) + 0.05, y, percent(share), 7.5, ha="left")
            colour = self._ink(against=False) if overall else "0.7"
            self._draw_rectangle(Box(left, y - 0.06, scale * share, 0.12), fc=colour, alpha=0.75, ec="none")
            if overall:
                x = left + scale * overall
                style: dict[str, Any] = {"color": self._letters, "lw": 1, "zorder": 5, "solid_capstyle": "butt"}
                self.ax_.plot([x, x], [y - 0.08, y + 0.08], **style)

    def _key(self) -> list[str]:
        parts = ["Patches: the most typical ones of a word in the fitted images."]
        if self._has_rings:
            parts.append("Rings: the location.")
        if any(self.vocabulary.statistics[layer].counts.shape[1] > 1 for layer, _ in self.words):
            parts.append("Bars: classes of the images that show the word; lines: their shares of all locations.")
        return parts
