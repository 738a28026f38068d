"""Maps of the influence of locations on decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from textwrap import wrap
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from .._pipelines import open_pipeline
from ..chain import LayerHMM
from ..dictionary import LayerDictionary, WordMaps
from ..features import check_layers
from ..graph import nats, probable, salience, with_number
from ._cells import cells_of, grey, interpolate
from ._drawing import PALETTE, Drawing, shorten, wrap_name
from ._layout import Box, height_of_images
from ._reading import correctness, find_images, pictures, run

_SIDE, _GAP, _MARGIN = 1.9, 0.2, 1.15
_LINE, _LETTERS = 0.17, 24  # height and length of a line of text
_MOST_IMAGES = 8
_HEAT_OPACITY, _WORD_OPACITY = 0.95, 0.3  # of the largest influence, and of a word


@dataclass(eq=False, repr=False)
class InfluenceMapDisplay(Drawing):
    """Influence of the locations of images on decisions, laid over the images, one column per image.

    Each layer has a heat map, blue for the class and orange against it, on a scale of its own, with the sum of the
    influence, in nats of the log-odds of the class or of its lead over another one, and the largest absolute value of a
    location.  Below it, the words of largest salience, by which graphs select words, are segments of the image.

    Parameters
    ----------
    words : WordMaps
        Words of n images.
    maps : dict of str to float array of shape (n, H, W)
        The influence of each location, by layer, in nats.
    titles : sequence of str
        The target of each image, as text.
    labels : int array of shape (n,), default=None
        The true class of each image.
    n_words : int, default=3
        Most words to draw of each layer, 0 to 8; with 0 only heat maps are drawn.

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        The axes drawn into, and their figure.

    See Also
    --------
    InferenceGraphDisplay : Graphs of these words, with their effects.
    WordMapDisplay : The word of each location.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, InfluenceMapDisplay, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> pipe = make_pipeline(
    ...     FeatureExtractor(digits.network, layers=["conv2", "conv3"]), LayerDictionary(30, random_state=0)
    ... ).fit(digits.images)
    >>> display = InfluenceMapDisplay.from_estimator(pipe, digits.test_images[:5])
    >>> display.save("what_spoke_for_it.png")  # doctest: +SKIP
    """

    words: WordMaps
    maps: Mapping[str, np.ndarray]
    _: KW_ONLY
    titles: Sequence[str]
    labels: np.ndarray | None = None
    n_words: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.n_words <= len(PALETTE):
            raise ValueError(f"n_words must be 0 to {len(PALETTE)}; got {self.n_words}.")

    @classmethod
    def from_estimator(
        cls,
        estimator: LayerDictionary | LayerHMM | Pipeline,
        X: Any,
        y: Any = None,
        *,
        image: int | str | Sequence[int | str] | None = None,
        target: int | str | None = None,
        contrast: int | str | None = None,
        layers: str | Sequence[str] | None = None,
        n_words: int = 3,
        n_steps: int = 4,
        ax: Any = None,
    ) -> InfluenceMapDisplay:
        """Compute the influence of locations on decisions, and draw it.

        Parameters
        ----------
        estimator : LayerDictionary, LayerHMM or Pipeline
            Fitted; a pipeline has one of these among its steps.
        X : WordMaps or FeatureMaps, or what the pipeline takes
            Images.
        y : array-like of shape (n,), default=None
            The true classes of X, by number or name, to be written above the images.
        image : int, str or sequence of these, default=None
            The images of X to draw, by number or file name; None takes the first eight.
        target : int or str, default=None
            A class, by number or name; the network's decisions if None.
        contrast : int or str, default=None
            A class over which the lead of the target is explained.
        layers : str or sequence of str, default=None
            Layers to draw; the uppermost if None.
        n_words : int, default=3
            Most words to draw of each layer, 0 to 8; with 0 only heat maps are drawn.
        n_steps : int, default=4
            Of the integration, as in :class:`~skgmmcnn.InferenceGraph`.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into; None makes a figure of fitting size.

        Returns
        -------
        display : InfluenceMapDisplay
            The drawn display.
        """
        before, model, X = open_pipeline(estimator, X, LayerDictionary, LayerHMM)
        rows = find_images(range(min(len(X), _MOST_IMAGES)) if image is None else image, X)
        n_images = len(X)
        words = run([*before, model], X[rows])
        if words.influence is None or words.pictures is None:
            raise ValueError(
                "Influence needs the network and its images, but these words were made from arrays or vectors. Make "
                "them from images with a FeatureExtractor, or draw the words with WordMapDisplay."
            )
        spec = words.spec
        layers = check_layers(words.layers[-1:] if layers is None else layers, words.layers)
        targets = words.decisions if target is None else np.full(len(words), spec.class_index(target))
        contrasts = None if contrast is None else np.full(len(words), spec.class_index(contrast))
        if contrasts is not None and (contrasts == targets).any():
            raise ValueError(f"contrast={contrast!r} is the class that is explained; give another one.")
        influence = words.influence.of_classes(targets, contrasts, layers=layers, n_steps=n_steps)
        titles = [spec.class_name(int(label)) for label in targets]
        if contrasts is None:  # the log-odds are those of the probability
            probabilities = (1 / (1 + np.exp(-influence.margins))).tolist()
            titles = [with_number(name, probable(p)) for name, p in zip(titles, probabilities, strict=True)]
        else:
            titles = [f"{name} rather than {spec.class_name(int(contrasts[0]))}" for name in titles]
        labels = None if y is None else spec.encode(y, n_images)[rows]
        return cls(words, influence.maps, titles=titles, labels=labels, n_words=n_words).plot(ax=ax)

    _key_size = 9.0

    def _draw(self) -> Box:
        images = pictures(self.words)
        height = height_of_images(_SIDE, [image.shape for image in images])
        titles = [self._title(number) for number in range(len(images))]
        for number, (image, title) in enumerate(zip(images, titles, strict=True)):
            left, y = number * (_SIDE + _GAP), -height
            self._write_lines(left, _LINE * len(title) + 0.05, title)
            self._draw_image(Box(left, y, _SIDE, height), image)
            y -= 0.12
            for layer in self.maps:
                y -= height
                self._draw_heat(Box(left, y, _SIDE, height), layer, number, image)
                if number == 0:
                    self._write(-0.15, y + height / 2, wrap_name(layer), 10, color=self._grey(), ha="right")
                y -= 2 * _LINE + 0.15
                if self.n_words:
                    y -= height
                    self._draw_words(Box(left, y, _SIDE, height), layer, number, image)
                    y -= _LINE * self.n_words + 0.2
        above = _LINE * max(map(len, titles)) + 0.15
        return Box(-_MARGIN, y, _MARGIN + len(images) * (_SIDE + _GAP), above - y)

    def _title(self, number: int) -> list[tuple[str, dict[str, Any]]]:
        """Return the lines above an image with their styles."""
        styles: list[tuple[str, int, dict[str, Any]]] = [(self.titles[number], 3, {"weight": "bold"})]
        if self.labels is not None:
            text = correctness(self.words, number, self.labels)
            is_wrong = self.labels[number] != self.words.decisions[number]
            styles.append((text, 2, {"color": self._ink(against=is_wrong)}))
        return [
            (line, style)
            for text, n_lines, style in styles
            for line in wrap(shorten(text, n_lines * _LETTERS), _LETTERS)
        ]

    def _write_lines(self, x: float, y: float, lines: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        for place, (line, style) in enumerate(lines):
            self._write(x, y - _LINE * place, line, 9.5, ha="left", va="top", **style)

    def _draw_heat(self, box: Box, layer: str, number: int, image: np.ndarray) -> None:
        """Draw the heat map of a layer, and below it its sum and maximum."""
        from matplotlib.colors import to_rgb

        influence = self.maps[layer][number]
        largest = float(np.abs(influence).max())
        heat = interpolate(influence, cells_of(self.words.spec, layer), image.shape[:2])[..., None]
        colours = np.where(heat > 0, to_rgb(PALETTE[0]), to_rgb(PALETTE[1]))
        opacity = _HEAT_OPACITY * np.abs(heat) / (largest or 1)
        self._draw_image(box, grey(image) / 255 * (1 - opacity) + colours * opacity)
        texts = [
            f"in all {nats(float(influence.sum()))}",
            f"a location at most {nats(largest, sign='')}".removesuffix(" nats"),
        ]
        self._write_lines(box.left, box.bottom - 0.05, [(text, {}) for text in texts])

    def _draw_words(self, box: Box, layer: str, number: int, image: np.ndarray) -> None:
        """Draw the words of largest salience as segments of an image, with a legend below."""
        word_map, cells = self.words.words[layer][number], cells_of(self.words.spec, layer)
        flat = word_map.ravel().astype(np.int64)
        sums = np.bincount(flat, self.maps[layer][number].ravel())
        order = np.argsort(-np.abs(salience(sums, np.bincount(flat))), kind="stable")
        words = [int(word) for word in order[: self.n_words] if sums[word]]
        image_box = self._draw_image(box, image)
        self._tint(image_box, cells, word_map, words, _WORD_OPACITY)
        for place, (word, colour) in enumerate(zip(words, PALETTE, strict=False)):
            self._outline(image_box, cells, np.where(word_map == word, 0, -1), colour=colour, halo="white")
            y = box.bottom - 0.05 - _LINE * place
            self._draw_rectangle(Box(box.left, y - 0.13, 0.13, 0.1), fc=colour, ec="none")
            name = shorten(self.words.vocabulary.names.get((layer, word), f"w{word}"), 12)
            self._write_lines(box.left + 0.2, y, [(f"{name}  {nats(float(sums[word]))}", {})])

    def _key(self) -> list[str]:
        parts = ["Maps: influence of locations on the class, blue for it, orange against it, each on its own scale."]
        if self.n_words:
            parts.append("Segments: the most salient words, with the sum over their locations.")
        return [*parts, "Nats of the log-odds: +1 makes the odds 2.7 times as large."]
