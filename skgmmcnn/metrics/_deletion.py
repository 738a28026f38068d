"""Curves of the probability of a decision while words are removed from the network, or restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import trapezoid
from sklearn.utils import check_random_state

from ..features import check_layers, proba_of
from ._ablation import Ablation
from ._intervals import Estimate, ratio_of_means
from ._orders import (
    STYLES,
    check_orders,
    cumulative_counts,
    describe,
    inverse,
    leaders_of,
    mean_curve,
    priorities_by_evidence,
    ranks_by_order,
    shares_of_locations,
)
from ._parts import Parts, Table, take_apart
from ._results import BASELINE, Measurement, Result, Verdict, axes_for

ORDERS = ("graph", "per_location", "reverse", "frequency", "random")
_VERBS = {"deletion": "removed", "insertion": "restored"}
_CLEARLY_BELOW = 0.8  # of random order, a rule of thumb


@dataclass(frozen=True, eq=False)
class AblationCurves(Result):
    """The result of :func:`deletion`."""

    layer: str
    fill: str
    direction: str
    by: str
    shares: Mapping[str, np.ndarray]
    proba: Mapping[str, np.ndarray]
    random_state: int

    @property
    def areas(self) -> dict[str, np.ndarray]:
        """By order, the area under the curve of each image, shape (n,)."""
        return {order: trapezoid(self.proba[order], self.shares[order], axis=1) for order in self.proba}

    def ratio(self, order: str = "graph", to: str = "random") -> Estimate:
        """Return the ratio of the mean areas in two orders, with its 95 % interval over the images."""
        return ratio_of_means(self.areas[order], self.areas[to], self.random_state)

    def measurements(self) -> list[Measurement]:
        measurements = []
        best = "low" if self.direction == "deletion" else "high"
        for order, area in self.areas.items():
            measure = f"{self.direction} ({describe(self.fill, self.by)}), {order}"
            good = best if order in ("graph", "per_location") else BASELINE
            if "random" not in self.proba:
                measurements.append(Measurement(measure, self.layer, float(area.mean()), good=good))
            elif order != "random":
                measurements.append(Measurement(f"{measure} : random", self.layer, *self.ratio(order), good))
        return measurements

    def verdicts(self) -> list[Verdict]:
        usual = (self.direction, self.fill, self.by) == ("deletion", "mean", "image")
        if not usual or not {"graph", "random"} <= set(self.proba):
            return []
        ratio = self.ratio()
        answer = "yes" if ratio.high < _CLEARLY_BELOW else "partly" if ratio.high < 1 else "no"
        why = (
            f"while they are removed, the mean probability of the decision is {ratio:.2f} times that of a random order "
            "of removal."
        )
        return [Verdict(f"Does the network use the words of {self.layer} that the graph shows?", answer, why)]

    def plot(self, *, ax: Any = None) -> Any:
        """Draw the mean curves."""
        ax = axes_for(ax)
        for order, values in self.proba.items():
            ax.plot(self.shares[order].mean(0), values.mean(0), label=order, **STYLES[order])
        ax.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="probability of the decision")
        ax.set_xlabel(f"share of {self.layer} {_VERBS[self.direction]}", parse_math=False)
        ax.set_title(f"{self.direction.capitalize()}, {self.layer} ({describe(self.fill, self.by)})", parse_math=False)
        ax.legend(fontsize="small")
        return ax


def deletion(
    estimator: Any,
    X: Any,
    layer: str,
    *,
    direction: str = "deletion",
    orders: Sequence[str] = ORDERS,
    by: str = "image",
    fill: str = "mean",
    n_steps: int = 10,
    n_random: int = 3,
    verbose: int = 0,
    random_state: int | np.random.RandomState | None = None,
) -> AblationCurves:
    """Remove the words of a layer from the network, or restore them, in order of importance.

    At each step all columns of further words are replaced in the layer's map, and the rest of the network runs again.
    The earlier the probability of its original decision falls, the better the order shows what the network uses [1]_.
    Insertion starts without any word; the earlier the probability rises, the better.

    Parameters
    ----------
    estimator : Pipeline
        Fitted, ending with an :class:`~skgmmcnn.InferenceGraph`, as in the example of :func:`trust_report`.
    X : images or FeatureMaps
        Images that the pipeline takes, or feature maps of a network.
    layer : str
        The layer whose words are removed.
    direction : {"deletion", "insertion"}, default="deletion"
        Whether words are removed from the full map, or restored in a map without words.
    orders : sequence of str, default=all
        "graph": the order in which the graph chooses words, by the salience of their influence on the decision (the
        influence divided by the square root of the number of locations), or by the bits of their counts;
        "per_location": by the evidence of :meth:`InferenceGraph.transform` divided by the number of locations;
        "reverse": the reversed order of the graph; "frequency": by the number of locations; "random": the mean curve of
        `n_random` random orders.
    by : {"image", "class"}, default="image"
        Evidence of each image, or its mean over all images in X with the same decision.
    fill : {"mean", "zero", "resample"}, default="mean"
        Replacement of columns: the layer's mean, zeros, or columns of other images.
    n_steps : int, default=10
        Number of steps of nearly equal numbers of columns, as words are removed completely.
    n_random : int, default=3
        Number of random orders.
    verbose : int, default=0
        Whether to show progress.
    random_state : int, RandomState instance or None, default=None
        Draws orders, columns and resamples.

    Returns
    -------
    curves : AblationCurves
        By order, `shares` and `proba` : arrays of shape (n, n_steps + 1), share of the columns that are removed (or
        restored) and probability of the decision; `areas` : arrays of shape (n,), area under each curve.
        ``ratio(order="graph", to="random")`` : ratio of the mean areas in two orders, low for good deletion and high
        for good insertion, with a 95 % interval over resamples of the images.  ``plot(ax=None)`` draws the mean curves.

    References
    ----------
    .. [1] Petsiuk, Das and Saenko, "RISE: Randomized input sampling for explanation of black-box models", BMVC 2018.
    """
    if direction not in _VERBS:
        raise ValueError(f"direction must be one of {', '.join(map(repr, _VERBS))}; got {direction!r}.")
    random = check_random_state(random_state)
    parts = take_apart(estimator, X, verbose)
    check_layers(layer, parts.maps.layers)
    if not orders:
        raise ValueError(f"orders is empty; choose from {', '.join(map(repr, ORDERS))}.")
    check_orders(orders, ORDERS, n_random)
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1; got {n_steps}.")
    parts.check_scores()
    leaders = leaders_of(parts, by)
    ablation = Ablation(parts, [layer], fill, random)
    counts = {layer: parts.counts[layer]}
    priorities = _priorities(parts, layer, leaders, orders, random)
    ranks = ranks_by_order(priorities, counts, np.arange(len(parts.maps)), orders, n_random, random)
    shares, removals = {}, {}
    for order, runs in ranks.items():
        first = [{layer: words} for run in runs for words in first_words(run[layer], counts[layer], n_steps)]
        shares[order] = mean_curve(shares_of_locations(first, counts), len(runs))
        removals[order] = first if direction == "deletion" else [inverse(words) for words in first]
    proba = ablation.run_words(f"{direction} {layer}", [layer], removals, proba_of)
    return AblationCurves(
        layer=layer,
        fill=fill,
        direction=direction,
        by=by,
        shares=shares,
        proba={order: mean_curve(each, len(ranks[order])) for order, each in proba.items()},
        random_state=int(random.randint(2**31)),
    )


def _priorities(
    parts: Parts, layer: str, leaders: np.ndarray, orders: Sequence[str], random: np.random.RandomState
) -> dict[str, Table]:
    """Return tables of the removal priority of the words of one layer, by order.

    Where no word of an image has evidence, its order is random, as any other would favour some words.
    """
    counts = parts.counts[layer]
    chance = random.random_sample(counts.shape)
    priorities: dict[str, Table] = {"frequency": {layer: counts}}
    if set(orders) <= {"frequency", "random"}:
        return priorities
    for order, tables in priorities_by_evidence(parts, leaders).items():
        has_evidence = ((tables[layer] != 0) & (counts > 0)).any(1, keepdims=True)
        priorities[order] = {layer: np.where(has_evidence, tables[layer], chance)}
    return priorities


def first_words(ranks: np.ndarray, counts: np.ndarray, n_steps: int) -> np.ndarray:
    """Return the first words at steps of nearly equal numbers of locations, bool (n_steps + 1, n, K).

    `ranks` and `counts` (n, K) are the ranks of words in their image and their numbers of locations.
    """
    sums = cumulative_counts(ranks, counts)
    targets = np.linspace(0, 1, n_steps + 1) * sums[:, -1:]
    n_words = np.abs(sums[:, None] - targets[:, :, None]).argmin(2)
    return ranks < n_words.T[:, :, None]
