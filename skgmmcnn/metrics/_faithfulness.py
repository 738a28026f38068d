"""Faithfulness of graphs: the decision of the network with only the words of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.integrate import trapezoid
from sklearn.utils import check_random_state

from ..features import check_layers
from ._ablation import Ablation
from ._intervals import Estimate, ratio_of_means
from ._orders import (
    STYLES,
    check_orders,
    describe,
    first_of_equal_size,
    inverse,
    leaders_of,
    mean_curve,
    priorities_by_evidence,
    ranks_by_order,
    shares_of_locations,
    sum_over_graphs,
)
from ._parts import Parts, Table, ignore_few_fitted, take_apart
from ._results import BASELINE, ROUNDING, Measurement, Result, Verdict, axes_for

ORDERS = ("graph", "per_location", "frequency", "random")
_ENOUGH = 0.5  # of the log-odds, a rule of thumb


@dataclass(frozen=True, eq=False)
class Circuit:
    """Decisions with parts of some layers; see :func:`faithfulness`."""

    layers: tuple[str, ...]
    full: np.ndarray
    empty: np.ndarray
    graph: np.ndarray
    complement: np.ndarray
    size_matched: Mapping[str, np.ndarray]
    graph_share: np.ndarray
    n_words: np.ndarray
    curves: Mapping[str, np.ndarray]
    shares: Mapping[str, np.ndarray]
    drops: Mapping[str, np.ndarray]
    random_state: int

    @property
    def needed(self) -> float:
        """Share of the words of graphs without which the log-odds fall; NaN without words."""
        drops = np.concatenate([each[~np.isnan(each)] for each in self.drops.values()])
        return float((drops > ROUNDING).mean()) if len(drops) else np.nan

    def faithfulness(self, log_odds: np.ndarray) -> Estimate:
        """Return F of log-odds, as `graph` or `complement`, with its 95 % interval over the images."""
        return self._ratio(log_odds - self.empty)

    def curve(self, order: str = "graph") -> np.ndarray:
        """Return F at each step of `n_words`, shape (S,), from 0 without any word to 1 with all."""
        gain = (self.full - self.empty).mean()
        return (self.curves[order] - self.empty[:, None]).mean(0) / (gain if gain > ROUNDING else np.nan)

    def cpr(self, order: str = "graph") -> Estimate:
        """Return the area under F over the share of columns, with its 95 % interval over the images."""
        return self._ratio(trapezoid(self.curves[order] - self.empty[:, None], self.shares[order].mean(0), axis=1))

    def _ratio(self, gain: np.ndarray) -> Estimate:
        full_gain = self.full - self.empty
        if full_gain.mean() <= ROUNDING:
            return Estimate(np.nan)
        return ratio_of_means(gain, full_gain, self.random_state)

    def measurements(self, how: str) -> list[Measurement]:
        """Return the measured values; `how` describes the filling and the graphs."""
        where = " + ".join(self.layers)
        share = float(self.graph_share.mean())
        measurements = [
            Measurement(f"faithfulness ({how})", where, *self.faithfulness(self.graph), "near 1, above random"),
            Measurement(f"faithfulness ({how}), complement", where, *self.faithfulness(self.complement), "near 0"),
        ]
        for order, values in self.size_matched.items():
            measurements.append(
                Measurement(f"faithfulness ({how}), {order}", where, *self.faithfulness(values), BASELINE)
            )
        for order in self.curves:
            good = "high" if order == "graph" else BASELINE
            measurements.append(Measurement(f"area under the curve ({how}), {order}", where, *self.cpr(order), good))
        return [
            *measurements,
            Measurement(f"words needed ({how})", where, self.needed, good="near 1"),
            Measurement(f"share of locations kept ({how})", where, share, good="low"),
        ]


@dataclass(frozen=True, eq=False)
class Faithfulness(Result):
    """The result of :func:`faithfulness`."""

    together: Circuit
    layers: Mapping[str, Circuit]
    fill: str
    by: str

    @property
    def faithfulness(self) -> Estimate:
        """F of the graphs: 1 if they keep all that the network needs, 0 if nothing."""
        return self.together.faithfulness(self.together.graph)

    @property
    def n_undefined(self) -> int:
        """Number of images whose decision does not depend on the columns."""
        return int((np.abs(self.together.full - self.together.empty) <= ROUNDING).sum())

    def _circuits(self) -> list[Circuit]:
        return [self.together, *(circuit for circuit in self.layers.values() if circuit is not self.together)]

    def measurements(self) -> list[Measurement]:
        how = describe(self.fill, self.by)
        measurements = [measurement for circuit in self._circuits() for measurement in circuit.measurements(how)]
        return [
            *measurements,
            Measurement(f"undefined images ({how})", " + ".join(self.together.layers), self.n_undefined),
        ]

    def verdicts(self) -> list[Verdict]:
        if (self.fill, self.by) != ("mean", "image"):
            return []
        value, low, _ = self.faithfulness
        others = [self.together.faithfulness(values).value for values in self.together.size_matched.values()]
        best = max(others, default=0.0)
        above = low > max(best, 0)
        answer = "yes" if above and value >= _ENOUGH else "partly" if above else "no"
        why = (
            f"they keep {value:.0%} of the log-odds of the decision, other words at equally many locations {best:.0%}."
        )
        return [Verdict("Are the words of the graph sufficient in all layers together?", answer, why)]

    def plot(self, *, ax: Any = None, layer: str | None = None) -> Any:
        """Draw F against the share of the columns that are kept, of orders, graphs and complements."""
        ax = axes_for(ax)
        circuit = self.together if layer is None else self.layers[layer]
        for order, shares in circuit.shares.items():
            ax.plot(shares.mean(0), circuit.curve(order), label=order, **STYLES[order])
        share = circuit.graph_share.mean()
        ax.plot(share, circuit.faithfulness(circuit.graph)[0], "o", color="black", label="graph")
        ax.plot(1 - share, circuit.faithfulness(circuit.complement)[0], "x", color="black", label="all but the graph")
        ax.axhline(1, color="0.4", ls=":")
        ax.set(xlim=(0, 1), xlabel="share of columns kept", ylabel="faithfulness (log-odds)")
        kept = circuit.layers[0] if len(circuit.layers) == 1 else "all layers"
        ax.set_title(f"Kept in {kept} ({self.fill})", parse_math=False)
        ax.legend(fontsize="small")
        return ax


def faithfulness(
    estimator: Any,
    X: Any,
    *,
    by: str = "image",
    layers: Sequence[str] | None = None,
    fill: str = "mean",
    orders: Sequence[str] = ORDERS,
    n_random: int = 3,
    verbose: int = 0,
    random_state: int | np.random.RandomState | None = None,
) -> Faithfulness:
    """Measure the decision of the network with only the words that graphs keep.

    The columns of all other words are replaced, in all layers together; columns kept in an upper layer are computed
    from the changed layers below.  Words are those of the unchanged network.  Faithfulness is

        F = (m(graph) - m(empty)) / (m(full) - m(empty)),

    where m is the mean over images of the log-odds log p / (1 - p) of the decision, in nats [1]_.  Images whose
    decision does not depend on the columns have no weight in this ratio of means.  F should be high for the graph, and
    low for the words outside it (the complement).

    Parameters
    ----------
    estimator : Pipeline
        Fitted, ending with an :class:`~skgmmcnn.InferenceGraph`, as in the example of :func:`trust_report`.
    X : images or FeatureMaps
        Images that the pipeline takes, or feature maps of a network.
    by : {"image", "class"}, default="image"
        Graphs of images, or of all images in X with the same decision.
    layers : sequence of str, default=None
        The layers in which columns are replaced, all if None.
    fill : {"mean", "zero", "resample"}, default="mean"
        Replacement of columns: the layer's mean, zeros, or columns of other images.
    orders : sequence of str, default=all
        Orders of words for the curves, as in :func:`deletion`.
    n_random : int, default=3
        Number of random orders.
    verbose : int, default=0
        Whether to show progress.
    random_state : int, RandomState instance or None, default=None
        Draws orders, columns and resamples.

    Returns
    -------
    faithfulness : Faithfulness
        `together`, a circuit of all layers, and `layers`, a dict of circuits of single layers.  `faithfulness` : F of
        the graphs; `n_undefined` : number of images whose decision does not depend on the columns.
        ``plot(ax=None, layer=None)`` draws F against the share of the columns that are kept.  Of each circuit:

        - `full`, `empty`, `graph`, `complement` : arrays of shape (n,), log-odds of the decision in the unchanged
          network, without any column, with the words of the graph, and with all others; ``faithfulness(log_odds)`` is
          F of one of these, with a 95 % interval over resamples of the images;
        - `size_matched` : by order, the log-odds with the first words whose number of columns is nearest to that of the
          graph's; `graph_share` : array of shape (n,), share of the columns of the graph's words;
        - `curves`, `shares` : by order, arrays of shape (n, S), log-odds with the first `n_words` = 0, 1, 2, 4, ...
          words of each layer, and the share of their columns; ``curve(order)`` is F at these steps, ``cpr(order)`` the
          area under it, the circuit performance ratio [2]_, with its interval;
        - `drops` : by layer, array of shape (n, K), fall of the log-odds without each word of a graph, NaN for other
          words; of images that share a graph, the mean in the first one.  `needed` : share of falls (minimality).

    Notes
    -----
    F may exceed 1, since a graph also leaves out evidence against the decision, and it may be negative, since maps of
    mostly replaced columns are unlike the training data.  Losses add up over layers: compare F with that of frequent
    and random words with equally many columns, and of single layers.

    References
    ----------
    .. [1] Marks, Rager, Michaud, Belinkov, Bau and Mueller, "Sparse Feature Circuits: Discovering and Editing
       Interpretable Causal Graphs in Language Models", ICLR 2025, section 3.2.
    .. [2] Mueller et al., "MIB: A Mechanistic Interpretability Benchmark", ICML 2025, section 3.
    """
    random = check_random_state(random_state)
    parts = take_apart(estimator, X, verbose)
    layers = check_layers(layers, parts.maps.layers)
    if not layers:
        raise ValueError(f"layers is empty; choose from {', '.join(map(repr, parts.maps.layers))}.")
    check_orders(orders, ORDERS, n_random)
    parts.check_scores()
    ablation = Ablation(parts, layers, fill, random)
    plan = _plan(parts, layers, by, orders, n_random, random)
    together = _circuit(plan, layers, ablation, int(random.randint(2**31)))
    if len(layers) == 1:
        return Faithfulness(together, {layers[0]: together}, fill, by)
    single = {layer: _circuit(plan, [layer], ablation, int(random.randint(2**31))) for layer in layers}
    return Faithfulness(together, single, fill, by)


class _Plan(NamedTuple):
    """Tables of words: those that graphs keep, their locations in each image and in all that share a graph, and ranks.

    `n_words` are the numbers of first words that are kept in turn; `leaders` (n,) are the first images of each graph.
    """

    kept: Table
    counts: Table
    graph_counts: Table
    ranks: Mapping[str, Sequence[Table]]
    n_words: np.ndarray
    leaders: np.ndarray


def _plan(
    parts: Parts, layers: Sequence[str], by: str, orders: Sequence[str], n_random: int, random: np.random.RandomState
) -> _Plan:
    leaders = leaders_of(parts, by)
    with ignore_few_fitted():
        kept = parts.kept() if by == "image" else parts.graph.select(parts.words, by=by)
    all_counts = parts.by_layer(sum_over_graphs(parts.words.histogram(), leaders))
    counts = {layer: all_counts[layer] for layer in layers}
    priorities: dict[str, Table] = {"frequency": counts, **priorities_by_evidence(parts, leaders)}
    ranks = ranks_by_order(priorities, counts, leaders, orders, n_random, random)
    most = max(int((each > 0).sum(1).max()) for each in counts.values())
    n_words = np.array([0, *(2**i for i in range((most - 1).bit_length())), most])
    return _Plan(kept, parts.counts, counts, ranks, n_words, leaders)


def _circuit(plan: _Plan, layers: Sequence[str], ablation: Ablation, seed: int) -> Circuit:
    kept = {layer: plan.kept[layer] for layer in layers}
    rest = inverse(kept)
    nodes = _node_numbers(kept)
    n_nodes = max(int(numbers.max()) for numbers in nodes.values()) + 1
    removals: dict[str, Sequence[Table]] = {
        "full": [{}],
        "empty": [{layer: np.ones_like(mask) for layer, mask in kept.items()}],
        "graph": [rest],
        "complement": [kept],
        "nodes": [{layer: rest[layer] | (nodes[layer] == node) for layer in layers} for node in range(n_nodes)],
    }
    shares = {}
    for order, runs in plan.ranks.items():
        first = [{layer: run[layer] < n for layer in layers} for run in runs for n in plan.n_words[1:]]
        mean_shares = mean_curve(shares_of_locations(first, plan.counts), len(runs))
        shares[order] = np.column_stack([np.zeros(len(mean_shares)), mean_shares])
        removals[f"{order}, first"] = [inverse(words) for words in first]
        if order != "graph":  # the graph keeps the first words of this order itself
            removals[f"{order}, size-matched"] = [
                {layer: ~first_of_equal_size(run[layer], plan.graph_counts[layer], kept[layer]) for layer in layers}
                for run in runs
            ]
    log_odds = ablation.run_words(f"faithfulness, {' + '.join(layers)}", layers, removals)
    full, empty, graph, complement = (log_odds[name][0] for name in ("full", "empty", "graph", "complement"))
    curves, size_matched = {}, {}
    for order, runs in plan.ranks.items():
        curves[order] = np.column_stack([empty, mean_curve(log_odds[f"{order}, first"], len(runs))])
        if order != "graph":
            size_matched[order] = log_odds[f"{order}, size-matched"].mean(0)
    return Circuit(
        layers=tuple(layers),
        full=full,
        empty=empty,
        graph=graph,
        complement=complement,
        size_matched=size_matched,
        graph_share=shares_of_locations([kept], plan.counts)[0],
        n_words=plan.n_words,
        curves=curves,
        shares=shares,
        drops=_drops(nodes, graph - log_odds["nodes"], plan.leaders),
        random_state=seed,
    )


def _node_numbers(kept: Table) -> dict[str, np.ndarray]:
    """Return the number of each word among all that its graph keeps, from 0, by layer (n, K); -1 for other words."""
    numbers, n_before = {}, 0
    for layer, mask in kept.items():
        numbers[layer] = np.where(mask, n_before + np.cumsum(mask, axis=1) - 1, -1)
        n_before = n_before + mask.sum(1, keepdims=True)
    return numbers


def _drops(nodes: Table, drops: np.ndarray, leaders: np.ndarray) -> dict[str, np.ndarray]:
    """Return the table of the mean of `drops` (n_nodes, n) over the images of each graph, in its first image."""
    is_first = leaders == np.arange(len(leaders))
    tables = {}
    for layer, numbers in nodes.items():
        tables[layer] = np.full(numbers.shape, np.nan)
        for image, word in np.argwhere((numbers >= 0) & is_first[:, None]):
            tables[layer][image, word] = drops[numbers[image, word], leaders == image].mean()
    return tables
