"""InfluenceMapDisplay: what each location of an image contributed to a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from ..chain import LayerHMM
from ..dictionary import LayerDictionary, WordMaps
from ..graph._text import nats
from ._cells import cells_of, draw_cells
from ._drawing import (
    AGAINST,
    INK,
    Display,
    Limits,
    Theme,
    draw_image,
    draw_rectangle,
    frame,
    grey,
    in_lines,
    make_axes,
    shortened,
    with_key,
    write,
    write_key,
)
from ._layout import Box
from ._reading import check_image, check_layers, pictures, run, take_apart

_SIDE, _GAP, _BAR, _TITLE = 1.75, 0.25, 0.09, 0.5
_MOST = 0.9  # how opaque the largest influence is
_KEY = "Blue: speaks for it. Orange: speaks against it. Each layer has a scale of its own."


class InfluenceMapDisplay(Display):
    """What each location of an image contributed to a decision: one heat map a layer, laid over the image.

    Locations that spoke for the class are blue, those that spoke against it orange, the stronger the more; a location
    is drawn where it looks.  The bar below a map is in nats of the log-odds of the class, or of its lead over another
    one.  Above a map stands what the influences of the layer add up to: the log-odds less those that the network gives
    where every location of the layer has the mean activity.

    Parameters
    ----------
    words : WordMaps
        Words of one image.
    maps : dict of str to float array of shape (H, W)
        The influence of each location, by layer, in nats.
    title : str
        What is explained.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn into.
    figure_ : matplotlib.figure.Figure
        The figure of the axes.

    See Also
    --------
    InferenceGraphDisplay : Which words these are, and what they are made of.
    WordMapDisplay : Which word each location shows.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, InfluenceMapDisplay, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> pipe = make_pipeline(
    ...     FeatureExtractor(digits.network, layers=["conv2", "conv3"]), LayerDictionary(30, random_state=0)
    ... ).fit(digits.images)
    >>> display = InfluenceMapDisplay.from_estimator(pipe, digits.test_images, image=3)
    >>> display.save("what_spoke_for_it.png")  # doctest: +SKIP
    """

    def __init__(self, words: WordMaps, maps: Mapping[str, np.ndarray], *, title: str) -> None:
        self.words = words
        self.maps = maps
        self.title = title

    @classmethod
    def from_estimator(
        cls,
        estimator: LayerDictionary | LayerHMM | Pipeline,
        X: Any,
        *,
        image: int = 0,
        target: int | str | None = None,
        contrast: int | str | None = None,
        layers: Sequence[str] | None = None,
        n_steps: int = 4,
        ax: Any = None,
    ) -> InfluenceMapDisplay:
        """Ask the network what contributed to its decision for one image, and draw that.

        Parameters
        ----------
        estimator : LayerDictionary, LayerHMM or Pipeline
            Fitted; a pipeline has one of these among its steps.
        X : WordMaps or FeatureMaps, or what the pipeline takes
            Images.
        image : int, default=0
            Which image of X to draw.
        target : int or str, default=None
            A class, by number or name; the network's decision if None.
        contrast : int or str, default=None
            A class over which the lead of the target is explained.
        layers : sequence of str, default=None
            Layers to draw; all if None.
        n_steps : int, default=4
            Of the integration, as in :class:`~skgmmcnn.InferenceGraph`.
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into; None makes a figure of fitting size.

        Returns
        -------
        display : InfluenceMapDisplay
            The drawn display.
        """
        before, model, X = take_apart(estimator, X, LayerDictionary, LayerHMM)
        X = X[check_image(image, len(X)) :][:1]
        words = X if isinstance(X, WordMaps) else model.transform(run(before, X))
        if words.influence is None:
            raise ValueError(
                "These words have no network that could tell what contributed to its decision: they were made from "
                "arrays. Make them of images by a FeatureExtractor; WordMapDisplay draws the words themselves."
            )
        spec = words.spec
        layers = words.layers if layers is None else check_layers(layers, words)
        explained = int(words.decisions[0]) if target is None else spec.class_index(target)
        other = None if contrast is None else spec.class_index(contrast)
        if other == explained:
            raise ValueError(f"contrast={contrast!r} is the very class that is explained; give another one.")
        others = None if other is None else [other]
        found = words.influence.of_classes([explained], others, layers=layers, n_steps=n_steps).maps
        title = spec.class_name(explained) + ("" if other is None else f" rather than {spec.class_name(other)}")
        return cls(words, {layer: found[layer][0] for layer in layers}, title=title).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> InfluenceMapDisplay:
        """Draw the maps.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to draw into; None makes a figure of fitting size.

        Returns
        -------
        display : InfluenceMapDisplay
            The display itself.
        """
        (picture,) = pictures(self.words, [0])
        tall = _SIDE * min(max(picture.shape[0] / picture.shape[1], 0.4), 1.6)
        boxes = [Box(place * (_SIDE + _GAP), -tall, _SIDE, tall) for place in range(len(self.maps) + 1)]
        title = "\n".join(wrap(shortened(self.title, 66), 22))
        above = _TITLE + 0.16 * max(text.count("\n") for text in (title, *map(in_lines, self.maps)))
        limits, key = with_key(Limits(-_GAP, boxes[-1].right + _GAP, -tall - 0.4, above), _KEY)
        self.ax_ = make_axes(limits) if ax is None else ax
        self.figure_ = self.ax_.figure
        self._draw_title(boxes[0], title, "what is explained")
        draw_image(self.ax_, boxes[0], picture)
        for box, (layer, influence) in zip(boxes[1:], self.maps.items(), strict=True):
            self._draw_title(box, in_lines(layer), f"adds up to {nats(influence.sum())}")
            self._draw_map(box, layer, picture, influence)
        write_key(self.ax_, limits, key)
        frame(self.ax_, limits)
        return self

    def _draw_title(self, box: Box, name: str, about: str) -> None:
        write(self.ax_, box.middle, box.top + 0.18, name, size=9, weight="bold", va="bottom")
        write(self.ax_, box.middle, box.top + 0.04, about, size=7.5, color=Theme.current().grey(), va="bottom")

    def _draw_map(self, box: Box, layer: str, picture: np.ndarray, influence: np.ndarray) -> None:
        """Draw the heat map of a layer, and below it its bar."""
        most = float(np.abs(influence).max())
        drawn = draw_image(self.ax_, box, grey(picture))
        draw_cells(self.ax_, drawn, cells_of(self.words.spec, layer), _colours(influence, most))
        bar = Box(box.left, box.bottom - 0.06 - _BAR, box.width, _BAR)
        scale = _colours(np.linspace(-most, most, 101)[None], most)
        self.ax_.imshow(scale, extent=(bar.left, bar.right, bar.bottom, bar.top), aspect="auto", zorder=3)
        draw_rectangle(self.ax_, bar, fc="none", ec="0.4", lw=0.6)
        ends = ((bar.left, -most, "left"), (bar.right, most, "right")) if most else ()
        for x, value, side in ((bar.middle, 0.0, "center"), *ends):
            write(self.ax_, x, bar.bottom - 0.03, nats(value) if value else "0", size=7, ha=side, va="top")


def _colours(influence: np.ndarray, most: float) -> np.ndarray:
    """Return colours (H, W, 4): none where there is no influence, full where it is `most`."""
    colours = np.where((influence > 0)[..., None], INK, AGAINST)
    return np.concatenate([colours, _MOST * np.abs(influence)[..., None] / (most or 1)], -1)
