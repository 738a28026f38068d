"""Faithfulness of graphs: the decision that is left with only the words that a graph keeps."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.integrate import trapezoid
from sklearn.utils import check_random_state

from ._ablation import Ablation, Gone, at_locations
from ._intervals import Estimate, ratio_of_means
from ._orders import (
    STYLES,
    check_orders,
    describe,
    first_with_as_many,
    leaders_of,
    over_graphs,
    ranked_by_evidence,
    ranks_of,
)
from ._parts import Parts, of_any_worth, take_apart
from ._results import BASELINE, ROUNDING, Measurement, Result, Verdict, axes_for

ORDERS = ("graph", "per_location", "frequency", "random")
_ENOUGH = 0.5  # of the log-odds, a rule of thumb


@dataclass(frozen=True, eq=False)
class Nodes:
    """The nodes of graphs in some layers; see :func:`faithfulness`."""

    images: np.ndarray
    layers: np.ndarray
    words: np.ndarray
    drops: np.ndarray

    @property
    def needed(self) -> float:
        """Share of the nodes without which less is kept; NaN without nodes."""
        return float((self.drops > ROUNDING).mean()) if len(self.drops) else np.nan


@dataclass(frozen=True, eq=False)
class Circuit:
    """The decision in parts of some layers; see :func:`faithfulness`."""

    layers: tuple[str, ...]
    full: np.ndarray
    empty: np.ndarray
    graph: np.ndarray
    complement: np.ndarray
    alike: Mapping[str, np.ndarray]
    graph_share: np.ndarray
    n_words: np.ndarray
    curves: Mapping[str, np.ndarray]
    shares: Mapping[str, np.ndarray]
    nodes: Nodes
    random_state: int

    def of(self, measured: np.ndarray) -> Estimate:
        """Return F of a part of the network, as `graph` or `complement`, and its 95 % interval over the images."""
        return self._ratio(measured - self.empty)

    def curve(self, order: str = "graph") -> np.ndarray:
        """Return F at each step of `n_words`, shape (S,), from 0 without any word to 1 with all."""
        gain = (self.full - self.empty).mean()
        return (self.curves[order] - self.empty[:, None]).mean(0) / (gain if gain > ROUNDING else np.nan)

    def cpr(self, order: str = "graph") -> Estimate:
        """Return the area under F over the share of columns, and its 95 % interval over the images."""
        return self._ratio(trapezoid(self.curves[order] - self.empty[:, None], self.shares[order].mean(0), axis=1))

    def _ratio(self, above: np.ndarray) -> Estimate:
        below = self.full - self.empty
        if below.mean() <= ROUNDING:
            return Estimate(np.nan)
        return ratio_of_means(above, below, self.random_state)

    def measurements(self, how: str) -> list[Measurement]:
        """Return the measured values; `how` describes the filling and the graphs."""
        where = " + ".join(self.layers)
        share = float(self.graph_share.mean())
        measurements = [
            Measurement(f"faithfulness ({how})", where, *self.of(self.graph), "near 1, above random"),
            Measurement(f"faithfulness ({how}), complement", where, *self.of(self.complement), "near 0"),
        ]
        for order, values in self.alike.items():
            measurements.append(Measurement(f"faithfulness ({how}), {order}", where, *self.of(values), BASELINE))
        for order in self.curves:
            good = "high" if order == "graph" else BASELINE
            measurements.append(Measurement(f"area under the curve ({how}), {order}", where, *self.cpr(order), good))
        return [
            *measurements,
            Measurement(f"nodes needed ({how})", where, self.nodes.needed, good="near 1"),
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
    def faithfulness(self) -> float:
        """F of the graphs: 1 where they keep all that the network needs, 0 where nothing."""
        return self.together.of(self.together.graph).value

    @property
    def n_undefined(self) -> int:
        """Number of images for which the columns of the layers make no difference."""
        return int((np.abs(self.together.full - self.together.empty) <= ROUNDING).sum())

    def _circuits(self) -> list[Circuit]:
        return [self.together, *(circuit for circuit in self.layers.values() if circuit is not self.together)]

    def measurements(self) -> list[Measurement]:
        how = describe(self.fill, self.by)
        measurements = [measurement for circuit in self._circuits() for measurement in circuit.measurements(how)]
        return [*measurements, Measurement(f"undefined images ({how})", "all layers", self.n_undefined)]

    def verdicts(self) -> list[Verdict]:
        if (self.fill, self.by) != ("mean", "image"):
            return []
        value, low, _ = self.together.of(self.together.graph)
        other = max((self.together.of(values).value for values in self.together.alike.values()), default=0.0)
        above = low > max(other, 0)
        answer = "yes" if above and value >= _ENOUGH else "partly" if above else "no"
        why = f"with only these {value:.0%} of the decision is left, with other words at as many locations {other:.0%}."
        return [Verdict("Are the words of the graph enough, in all layers at once?", answer, why)]

    def plot(self, *, ax: Any = None, layer: str | None = None) -> Any:
        """Draw F against the share of the columns that stay, with the graphs and the rest of the words."""
        ax = axes_for(ax)
        circuit = self.together if layer is None else self.layers[layer]
        for order, shares in circuit.shares.items():
            ax.plot(shares.mean(0), circuit.curve(order), label=order, **STYLES[order])
        share = circuit.graph_share.mean()
        ax.plot(share, circuit.of(circuit.graph)[0], "o", color="black", label="graph")
        ax.plot(1 - share, circuit.of(circuit.complement)[0], "x", color="black", label="all but the graph")
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
    """Measure the decision that is left with only the words that graphs keep.

    The columns of words that the graph keeps stay, all others are replaced, in all layers at once; an upper layer keeps
    what the network makes of what stayed below.  Words are those of the untouched network.  Faithfulness is

        F = (m(graph) - m(empty)) / (m(full) - m(empty)),

    where m is the mean over images of the log-odds log p / (1 - p) of the decision, in nats [1]_.  Images for which the
    columns make no difference have no weight in this ratio of means.  F should be large for a graph, and small for the
    words that it leaves out (the complement).

    Parameters
    ----------
    estimator : Pipeline
        Fitted, ending with an :class:`~skgmmcnn.InferenceGraph`, as in the example of :func:`trust_report`.
    X : images or FeatureMaps
        Images that the pipeline takes, or feature maps of a network.
    by : {"image", "class"}, default="image"
        Whether graphs are those of each image's own decision, or those of all images in X with the same decision.
    layers : sequence of str, default=None
        The layers in which columns are replaced; all where None.
    fill : {"mean", "zero", "resample"}, default="mean"
        Filling of the columns: the layer's mean, zeros, or columns of other images.
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
        the graphs; `n_undefined` : number of images for which the columns make no difference.  ``plot(ax=None,
        layer=None)`` draws F against the share of the columns that stay.  Of each circuit:

        - `full`, `empty`, `graph`, `complement` : arrays of shape (n,), log-odds of the decision in the untouched
          network, without any column, with the words of the graph, and with all others; ``of(graph)`` is F of these,
          with a 95 % interval over resamples of the images;
        - `alike` : by order, the log-odds with the first words whose number of columns is nearest to the graph's;
          `graph_share` : array of shape (n,), share of the columns of the graph's words;
        - `curves`, `shares` : by order, arrays of shape (n, S), log-odds with the first `n_words` = 0, 1, 2, 4, ...
          words of each layer, and the share of their columns; ``curve(order)`` is F at these steps, ``cpr(order)`` the
          area under it, the circuit performance ratio [2]_, with its interval;
        - `nodes` : arrays `images`, `layers`, `words` and `drops` of shape (m,), the fall of the log-odds without each
          word of each graph; `needed` is the share of falls (minimality).

    Notes
    -----
    F may exceed 1, since a graph also leaves out what speaks against the decision, and it may be negative, since a few
    columns among replaced ones are unlike anything that the network was trained on.  Losses add up over layers: compare
    with frequent and random words that have as many columns, and look at single layers, too.

    References
    ----------
    .. [1] Marks, Rager, Michaud, Belinkov, Bau and Mueller, "Sparse Feature Circuits: Discovering and Editing
       Interpretable Causal Graphs in Language Models", ICLR 2025, section 3.2.
    .. [2] Mueller et al., "MIB: A Mechanistic Interpretability Benchmark", ICML 2025, section 3.
    """
    random = check_random_state(random_state)
    parts = take_apart(estimator, X, verbose)
    layers = parts.check_layers(layers)
    if not layers:
        raise ValueError(f"layers names no layer; there is {', '.join(map(repr, parts.maps.layers))}.")
    check_orders(orders, ORDERS, n_random)
    parts.check_scores()
    ablation = Ablation(parts, layers, fill, random)
    plan = plan_of(parts, layers, by, orders, n_random, random)
    together = _circuit(parts, ablation, plan, int(random.randint(2**31)))
    if len(layers) == 1:
        return Faithfulness(together, {layers[0]: together}, fill, by)
    single = {layer: _circuit(parts, ablation, plan.within(layer), int(random.randint(2**31))) for layer in layers}
    return Faithfulness(together, single, fill, by)


@dataclass(frozen=True, eq=False)
class Plan:
    """The words of some layers, `n_words` by layer, side by side in tables (n, sum of K), and those that graphs keep.

    `kept` is bool; `counts` are the locations of words in each image, `of_graph` those in all images with the same
    graph, and `leaders` (n,) the number of the first of these.  `ranks` are places of words in the runs of each order,
    by layer; `steps` are the numbers of first words of each layer that are kept in turn.
    """

    n_words: Mapping[str, int]
    kept: np.ndarray
    counts: np.ndarray
    of_graph: np.ndarray
    leaders: np.ndarray
    ranks: Mapping[str, Sequence[np.ndarray]]
    steps: np.ndarray

    def by_layer(self, table: np.ndarray) -> dict[str, np.ndarray]:
        """Return the columns of each layer."""
        ends = np.cumsum(list(self.n_words.values()))
        return dict(zip(self.n_words, np.split(table, ends[:-1], axis=1), strict=True))

    def within(self, layer: str) -> Plan:
        """Return the plan of one layer."""
        kept, counts, of_graph = (self.by_layer(table)[layer] for table in (self.kept, self.counts, self.of_graph))
        ranks = {order: [self.by_layer(rank)[layer] for rank in runs] for order, runs in self.ranks.items()}
        return replace(
            self, n_words={layer: self.n_words[layer]}, kept=kept, counts=counts, of_graph=of_graph, ranks=ranks
        )

    @property
    def nodes(self) -> np.ndarray:
        """The number of each word among those that its graph keeps, -1 for other words."""
        return np.where(self.kept, np.cumsum(self.kept, axis=1) - 1, -1)

    def first_as_graph(self, ranks: np.ndarray) -> np.ndarray:
        """Return the first words of each layer, with nearest to as many locations as those that graphs keep."""
        tables = (self.by_layer(table).values() for table in (ranks, self.of_graph, self.kept))
        return np.hstack([first_with_as_many(*of_layer) for of_layer in zip(*tables, strict=True)])

    def share(self, kept: np.ndarray) -> np.ndarray:
        """Return the share of the locations that show the words `kept`, the mean over the layers, shape (n,)."""
        tables = (self.by_layer(table).values() for table in (self.counts, kept))
        return np.mean([(counts * stay).sum(1) / counts.sum(1) for counts, stay in zip(*tables, strict=True)], axis=0)


def plan_of(
    parts: Parts, layers: Sequence[str], by: str, orders: Sequence[str], n_random: int, random: np.random.RandomState
) -> Plan:
    """Return the words of `layers` that the graphs of images, or of all images with one decision, keep, and orders."""
    leaders = leaders_of(parts, by)
    with of_any_worth():
        kept = parts.kept() if by == "image" else parts.graph.select(parts.words, by=by)
    ranked, counts = ranked_by_evidence(parts, leaders), parts.words.histogram()
    of_graph = over_graphs(counts, leaders)

    def rank(order: str, columns: np.ndarray) -> np.ndarray:
        if order == "random":
            priority = random.random_sample((len(leaders), len(columns)))[leaders]
        else:
            priority = (of_graph if order == "frequency" else ranked[order])[:, columns]
        return ranks_of(priority, of_graph[:, columns])

    of_layers, every = [parts.columns([layer]) for layer in layers], parts.columns(layers)
    n_runs = {order: n_random if order == "random" else 1 for order in orders}
    most = max(int((of_graph[:, columns] > 0).sum(1).max()) for columns in of_layers)
    return Plan(
        n_words={layer: kept[layer].shape[1] for layer in layers},
        kept=np.hstack([kept[layer] for layer in layers]),
        counts=counts[:, every],
        of_graph=of_graph[:, every],
        leaders=leaders,
        ranks={
            order: [np.hstack([rank(order, columns) for columns in of_layers]) for _ in range(n)]
            for order, n in n_runs.items()
        },
        steps=np.array([0, *(2**i for i in range((most - 1).bit_length())), most]),
    )


def _circuit(parts: Parts, ablation: Ablation, plan: Plan, seed: int) -> Circuit:
    """Return the decision with the words of the graph, with all others, and with the first words of orders."""
    nodes, layers = plan.nodes, tuple(plan.n_words)
    kept: dict[Hashable, np.ndarray] = {
        "full": np.ones_like(plan.kept),
        "empty": np.zeros_like(plan.kept),
        "graph": plan.kept,
        "complement": ~plan.kept,
    }
    kept |= {("without", node): plan.kept & (nodes != node) for node in range(nodes.max() + 1)}
    for order, runs in plan.ranks.items():
        for i, rank in enumerate(runs):
            kept |= {(order, i, n): rank < n for n in plan.steps[1:]}
            if order != "graph":  # by which the graph itself chooses
                kept["alike", order, i] = plan.first_as_graph(rank)

    def removals(rows: slice) -> Iterator[Gone]:
        for words in kept.values():
            gone = plan.by_layer(~words[rows])
            yield {layer: at_locations(gone[layer], parts.words.words[layer][rows]) for layer in layers}

    scores = ablation.run(f"faithfulness, {' + '.join(layers)}", removals, layers=layers)
    log_odds, shares = dict(zip(kept, scores, strict=True)), {key: plan.share(words) for key, words in kept.items()}

    def curve(values: Mapping[Hashable, np.ndarray], order: str) -> list[np.ndarray]:
        runs = [[values[order, i, n] for n in plan.steps[1:]] for i in range(len(plan.ranks[order]))]
        return [values["empty"], *np.mean(runs, axis=0)]

    return Circuit(
        layers=layers,
        full=log_odds["full"],
        empty=log_odds["empty"],
        graph=log_odds["graph"],
        complement=log_odds["complement"],
        alike={
            order: np.mean([log_odds["alike", order, i] for i in range(len(runs))], axis=0)
            for order, runs in plan.ranks.items()
            if order != "graph"
        },
        graph_share=shares["graph"],
        n_words=plan.steps,
        curves={order: np.column_stack(curve(log_odds, order)) for order in plan.ranks},
        shares={order: np.transpose(curve(shares, order)) for order in plan.ranks},
        nodes=_nodes(plan, log_odds),
        random_state=seed,
    )


def _nodes(plan: Plan, log_odds: Mapping[Hashable, np.ndarray]) -> Nodes:
    """Return the fall of the log-odds without each node of each graph."""
    first_of_graph = plan.leaders == np.arange(len(plan.leaders))
    found = []
    for layer, nodes in plan.by_layer(plan.nodes).items():
        for graph, word in np.argwhere((nodes >= 0) & first_of_graph[:, None]):
            drops = log_odds["graph"] - log_odds["without", nodes[graph, word]]
            found.append((graph, layer, word, drops[plan.leaders == graph].mean()))
    images, names, words, drops = zip(*found, strict=True) if found else ((),) * 4
    return Nodes(np.array(images, int), np.array(names, str), np.array(words, int), np.array(drops, float))
