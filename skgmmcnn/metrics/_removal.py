"""Decisions without the words of graphs, compared with decisions without random words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.utils import check_random_state

from ..features import check_layers
from ..graph import probable
from ._ablation import Ablation, Locations, at_locations
from ._intervals import Estimate, share_of
from ._parts import take_apart
from ._results import BASELINE, ROUNDING, Measurement, Result, Thresholds, Verdict, axes_for

_CLEAR = Thresholds(0.95, 0.5)  # shares of the draws
_USED = Thresholds(0.8, 0.5)  # shares of the images


@dataclass(frozen=True, eq=False)
class Removal(Result):
    """The result of :func:`removal`."""

    full: np.ndarray
    without: np.ndarray
    without_random: np.ndarray
    share: np.ndarray

    @property
    def above_random(self) -> np.ndarray:
        """Share of the draws in which the decision falls less, shape (n,); 0 where it does not fall."""
        differs = np.abs(self.without_random - self.without[:, None]) > ROUNDING
        less = differs & (self.without_random > self.without[:, None])
        falls = self.full - self.without > ROUNDING
        return np.where(falls, less.sum(1) / np.maximum(differs.sum(1), 1), 0.0)

    @property
    def used(self) -> Estimate:
        """Share of the images whose decision falls more than in 95 % of the draws, with its 95 % interval."""
        return share_of(self.above_random >= _CLEAR.yes)

    @property
    def proba(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probability of each decision with all words, without those of its graph, and without random ones (mean)."""
        return expit(self.full), expit(self.without), expit(self.without_random).mean(1)

    def measurements(self) -> list[Measurement]:
        full, without, by_chance = (float(values.mean()) for values in self.proba)
        return [
            Measurement("words used more than random ones", "decision", *self.used, "near 1, by chance 0.05"),
            Measurement("probability with all words", "decision", full),
            Measurement("probability without the words shown", "decision", without, good="low"),
            Measurement("probability without random words", "decision", by_chance, good=BASELINE),
            Measurement("share of locations removed", "decision", float(self.share.mean()), good="low"),
        ]

    def verdicts(self) -> list[Verdict]:
        full, without, chance = (values.mean() for values in self.proba)
        used = self.used.value
        why = f"for {used:.0%} of the images the decision falls more without them than without random words"
        advice = "; use only reliable pictures"
        fall = (
            f"the mean probability of the decision falls from {full:.2f} to {without:.2f}; without random words at "
            f"equally many locations, to {chance:.2f}."
        )
        return [
            _USED.verdict("Does the network use the words shown?", used, why, partly=advice, no=advice),
            Verdict("What happens without them?", "", fall),
        ]

    def pictures(self, names: Sequence[str]) -> list[Verdict]:
        """Return the answer for the graph of each image, by the names of the images."""
        verdicts = []
        for name, full, without, chance, above in zip(names, *self.proba, self.above_random, strict=True):
            why = (
                f"probability {probable(full)}, without its words {probable(without)}, without random words "
                f"{probable(chance)}; the decision falls more than in {above:.0%} of the random draws"
            )
            verdicts.append(_CLEAR.verdict(f"Is the picture of {name} reliable?", above, why))
        return verdicts

    def plot(self, *, ax: Any = None) -> Any:
        """Draw the probability of each decision without the graph's words against that without random words."""
        ax = axes_for(ax)
        full, without, chance = self.proba
        ax.plot([0, 1], [0, 1], ":", color="0.4")
        points = ax.scatter(chance, without, c=full, cmap="cividis", vmin=0, vmax=1, s=18)
        ax.figure.colorbar(points, ax=ax, label="with all words")
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title="Probability of each decision")
        ax.set(xlabel="without random words", ylabel="without the words shown")
        return ax


def removal(
    estimator: Any,
    X: Any,
    *,
    layers: Sequence[str] | None = None,
    fill: str = "mean",
    n_draws: int = 20,
    verbose: int = 0,
    random_state: int | np.random.RandomState | None = None,
) -> Removal:
    """Compare decisions without the words of graphs with decisions without random words.

    All words of the graph of an image that support its decision are removed, in all layers together.  Each draw removes
    random words of the same image at equally many locations of each layer, the last word in part.  The network uses the
    words of a graph if the decision falls more without them than in at least 95 % of the draws.

    Parameters
    ----------
    estimator : Pipeline
        Fitted, ending with an :class:`~skgmmcnn.InferenceGraph`, as in the example of :func:`trust_report`.
    X : images or FeatureMaps
        Images that the pipeline takes, or feature maps of a network.
    layers : sequence of str, default=None
        The layers whose words are removed, all if None.
    fill : {"mean", "zero", "resample"}, default="mean"
        Replacement of columns: the layer's mean, zeros, or columns of other images.
    n_draws : int, default=20
        Number of random draws.
    verbose : int, default=0
        Whether to show progress.
    random_state : int, RandomState instance or None, default=None
        Draws words and columns.

    Returns
    -------
    removal : Removal
        `full`, `without` : arrays of shape (n,), log-odds of each decision in nats, with all words and without those of
        the graph; `without_random` : array of shape (n, n_draws), log-odds without random words.  `share` : array of
        shape (n,), share of the locations that are replaced, the mean over the layers.  `above_random` : array of shape
        (n,), share of the draws in which the decision falls less than without the graph's words; draws of the same
        words are ignored.  `used` : share of the images where `above_random` is at least 0.95, with a 95 % interval.
        `proba` : probabilities with all words, without the graph's and without random words, each of shape (n,).
    """
    random = check_random_state(random_state)
    parts = take_apart(estimator, X, verbose)
    layers = check_layers(layers, parts.maps.layers)
    if n_draws < 1:
        raise ValueError(f"n_draws must be at least 1; got {n_draws}.")
    parts.check_scores()
    ablation = Ablation(parts, layers, fill, random)
    kept = parts.kept(least=0)
    words = parts.words.words
    locations = {layer: at_locations(kept[layer], words[layer]) for layer in layers}

    def removals(rows: slice) -> Iterator[Locations]:
        yield {}
        yield {layer: locations[layer][rows] for layer in layers}
        for _ in range(n_draws):
            yield {layer: random_locations(locations[layer][rows], words[layer][rows], random) for layer in layers}

    full, without, *without_random = ablation.run("removal", layers, removals)
    share = np.mean([locations[layer].mean((1, 2)) for layer in layers], axis=0)
    return Removal(full, without, np.stack(without_random, axis=1), share)


def random_locations(locations: np.ndarray, words: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Return the locations of random words, the last one in part, at an equal number of locations, bool (n, H, W)."""
    ranks = random.random_sample((len(words), int(words.max()) + 1)).argsort(1)
    keys = (at_locations(ranks, words) + random.random_sample(words.shape)).reshape(len(words), -1)
    return (keys.argsort(1).argsort(1) < locations.sum((1, 2))[:, None]).reshape(words.shape)
