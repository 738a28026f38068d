"""Exact effects of edges, compared with their evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from ..graph import pair_effects
from ._intervals import Estimate, rank_correlation
from ._parts import take_apart
from ._results import ROUNDING, Measurement, Result, Verdict

_QUANTITIES = {"influence": "flow", "counts": "bits"}  # the evidence of pairs
_IN_ORDER = 0.5  # rank correlation, a rule of thumb


@dataclass(frozen=True, eq=False)
class PairEffects(Result):
    """Evidence and effects of the pairs of words in two layers; see :func:`edge_effects`."""

    upper: str
    lower: str
    images: np.ndarray
    upper_words: np.ndarray
    lower_words: np.ndarray
    has_edge: np.ndarray
    evidence: np.ndarray
    effects: np.ndarray
    quantity: str
    random_state: int

    @cached_property
    def correlation(self) -> Estimate:
        """Spearman's correlation of evidence and effects, with its 95 % interval over resamples of images."""
        return rank_correlation(self.evidence, self.effects, self.images, self.random_state)

    @property
    def same_sign(self) -> float:
        """Share of the nonzero effects with the sign of the evidence; NaN without such effects."""
        nonzero = np.abs(self.effects) > ROUNDING
        return float((self.effects * self.evidence > 0)[nonzero].mean()) if nonzero.any() else np.nan

    @property
    def edge_share(self) -> float:
        """Share of edges in the sum of absolute effects; NaN without effects."""
        sizes = np.abs(self.effects)
        return float(sizes[self.has_edge].sum() / sizes.sum()) if sizes.sum() > ROUNDING else np.nan

    def measurements(self) -> list[Measurement]:
        where = f"{self.upper} > {self.lower}"
        return [
            Measurement(f"rank correlation, {self.quantity} and effect", where, *self.correlation, "near 1"),
            Measurement(f"effects with the sign of the {self.quantity}", where, self.same_sign, good="near 1"),
            Measurement("effects of edges", where, self.edge_share, good="near 1"),
        ]

    def verdicts(self) -> list[Verdict]:
        rho = self.correlation
        answer = "no" if not rho.low > 0 else "yes" if rho.value >= _IN_ORDER else "partly"
        are = {"yes": "are", "partly": "are often", "no": "are not"}[answer]
        advice = '; read these arrows as "goes with", not "causes"' if answer == "no" else ""
        why = f"strong arrows {are} those with a large effect: rank correlation {rho:.2f}, 1 is best{advice}."
        return [Verdict(f"Do arrows from {self.lower} to {self.upper} show what it computes?", answer, why)]


@dataclass(frozen=True, eq=False)
class EdgeEffects(Result):
    """The result of :func:`edge_effects`."""

    pairs: Mapping[tuple[str, str], PairEffects]

    def measurements(self) -> list[Measurement]:
        return [measurement for pair in self.pairs.values() for measurement in pair.measurements()]

    def verdicts(self) -> list[Verdict]:
        return [verdict for pair in self.pairs.values() for verdict in pair.verdicts()]


def edge_effects(
    estimator: Any, X: Any, *, verbose: int = 0, random_state: int | np.random.RandomState | None = None
) -> EdgeEffects:
    """Compare the evidence of pairs of words with the effect of removing the lower word from the upper one.

    The exact effect of an edge from t to s is measured by path patching [1]_: the network runs up to the layer of s
    with the mean of the layer in place of t; the result replaces only the locations of s, and the effect is the fall of
    the log-odds of the decision.  For an edge into the decision, t is removed.  Pairs are all pairs of words that the
    graph of an image keeps in two layers, with an edge or without.

    Parameters
    ----------
    estimator : Pipeline
        Fitted, ending with an :class:`~skgmmcnn.InferenceGraph`, as in the example of :func:`trust_report`.
    X : images or FeatureMaps
        Images that the pipeline takes, or feature maps of a network.
    verbose : int, default=0
        Whether to show progress.
    random_state : int, RandomState instance or None, default=None
        Draws the resamples of intervals.

    Returns
    -------
    effects : EdgeEffects
        `pairs` : by names (upper, lower) of layers, from the top down, the m pairs of words (s, t), with

        - `images`, `upper_words`, `lower_words` : int arrays of shape (m,), number of the image, s and t;
        - `has_edge` : bool array of shape (m,), whether the graph has an edge from t to s;
        - `evidence` : array of shape (m,), flow from t to s in nats, to first order; for counts, the bits of all
          locations of t in the fields of s; `quantity` is "flow" or "bits";
        - `effects` : array of shape (m,), fall of the log-odds of the decision when t is removed from s, in nats;
        - `correlation` : Spearman's correlation of evidence and effects, NaN where either is constant, and a 95 %
          interval over resamples of the images;
        - `same_sign` : share of the nonzero effects with the sign of the evidence;
        - `edge_share` : share of edges in the sum of absolute effects.

    Notes
    -----
    A graph of influence has an edge where flow and effect have the same sign and are large enough, so its edges are
    true by construction; all pairs show whether flow is reliable elsewhere.  A graph of counts has an edge where the
    bits, log-ratio times number of locations, are positive.

    References
    ----------
    .. [1] Goldowsky-Dill, MacLeod, Sato and Arora, "Localizing model behavior with path patching", 2023.
    """
    random = check_random_state(random_state)
    parts = take_apart(estimator, X, verbose)
    parts.check_scores()
    kind, by_pair = pair_effects(parts.graph, parts.words, parts.selections)
    pairs = {}
    for (upper, lower), rows in by_pair.items():
        if rows:
            images, s, t, has_edge, evidence, effects = map(np.array, zip(*rows, strict=True))
            seed = int(random.randint(2**31))
            pairs[upper, lower] = PairEffects(
                upper, lower, images, s, t, has_edge, evidence, effects, _QUANTITIES[kind], seed
            )
    return EdgeEffects(pairs)
