"""Comparison of two graphs, or of two models."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from sklearn.pipeline import Pipeline

from .._optional import need
from ..dictionary import Alignment, WordMaps, align_words
from ._hierarchy import DECISION
from ._kinds import KINDS, check_graph, kind_of

_SIGNS = {"added": "+", "removed": "-", "changed": "~", "same": "="}


class Difference(NamedTuple):
    """A node or an edge in two graphs; see :func:`compare_graphs`."""

    layer: str
    first: str | None
    second: str | None
    before: float
    after: float
    status: str
    implied: bool


class _Item(NamedTuple):
    """A node or an edge of one graph; None as the key of one that the graph lacks."""

    layer: str
    key: str | None
    weight: float


@dataclass(frozen=True, eq=False)
class GraphComparison:
    """The result of :func:`compare_graphs`."""

    nodes: list[Difference]
    edges: list[Difference]
    evidence: str

    @property
    def node_similarity(self) -> dict[str, float]:
        """Weighted Jaccard similarity of the words of each layer."""
        return _by_layer(self.nodes)

    @property
    def edge_similarity(self) -> dict[str, float]:
        """Weighted Jaccard similarity of the edges from the words of each layer."""
        return _by_layer(self.edges)

    @property
    def similarity(self) -> float:
        """Mean over the layers' nodes and edges; 1 for equal graphs, 0 for graphs without a common word."""
        parts = [*self.node_similarity.values(), *self.edge_similarity.values()]
        return float(np.mean(parts)) if parts else 1.0

    def to_frame(self) -> Any:
        """Return nodes and edges as one pandas table, one row each, with a column `kind`."""
        pandas = need("pandas", "to_frame")
        kinds = {"node": self.nodes, "edge": self.edges}
        rows = [{"kind": kind, **row._asdict()} for kind, rows in kinds.items() for row in rows]
        return pandas.DataFrame(rows, columns=["kind", *Difference._fields])

    def to_text(self) -> str:
        """Return similarity, words and edges layer by layer, without the edges of words that one graph lacks.

        ``=`` in both graphs, ``~`` with other evidence, ``-`` only in the first, ``+`` only in the second.  Where words
        were aligned, keys of the second graph stand in parentheses.
        """
        unit = KINDS[self.evidence].strength.unit
        renamed = any(row.first and row.second and row.first != row.second for row in self.nodes)
        lines = [f"similarity {self.similarity:.2f}"]
        for layer, similarity in self.node_similarity.items():
            edges = self.edge_similarity.get(layer)
            lines.append(f"{layer}: words {similarity:.2f}" + ("" if edges is None else f", edges {edges:.2f}"))
            for indent, rows in (("  ", self.nodes), ("    ", self.edges)):
                of_layer = [row for row in rows if row.layer == layer and not row.implied]
                lines += [f"{indent}{_line(row, renamed)} {unit}" for row in of_layer]
        return "\n".join(lines)


def compare_graphs(
    first: nx.DiGraph, second: nx.DiGraph, alignment: Alignment | None = None, *, tolerance: float = 0.1
) -> GraphComparison:
    """Compare the words and edges of two inference graphs.

    Parameters
    ----------
    first, second : networkx.DiGraph
        As made by :class:`InferenceGraph`.
    alignment : Alignment, default=None
        Pairs of words of both; None for words of one dictionary.  Words without a partner are in one graph only.
    tolerance : float, default=0.1
        An item is "changed" where its evidence differs by more than this share of the larger.

    Returns
    -------
    comparison : GraphComparison
        `nodes`, `edges` : lists of rows, those of the first graph first, with `layer` (of an edge, the layer of the
        lower word), `first`, `second` (key in each graph or None; of an edge, ``"lower -> upper"``), `before`, `after`
        (evidence per image in each graph or 0: the influence of a node and the flow of an edge, in nats; of counts,
        score and contribution, in bits), `status` ("same", "changed", "added" in the second graph only, "removed" in
        the first only) and `implied` (whether an end of the edge is in one graph only).  Decisions match, also of
        different classes.  `node_similarity`, `edge_similarity` : dicts by layer, with the mean `similarity`.
        ``to_text()`` and ``to_frame()`` return all of it; `evidence` is the kind.

    Notes
    -----
    The similarity is the weighted Jaccard index sum min(a, b) / sum max(a, b) [1]_ of evidence per image, for each
    layer, since layers do not compare.  Words against the target weigh nothing.

    References
    ----------
    .. [1] Ioffe, "Improved consistent sampling, weighted minhash and L1 sketching", ICDM 2010.

    Examples
    --------
    >>> import networkx as nx
    >>> from skgmmcnn.graph import compare_graphs
    >>> def graph_of(*words):
    ...     graph = nx.DiGraph(n_images=1, evidence="counts")
    ...     graph.add_nodes_from((f"conv_w{word:03}", {"layer": "conv", "word": word, "score": 3.0}) for word in words)
    ...     return graph
    >>> print(compare_graphs(graph_of(3, 4), graph_of(3, 5)).to_text())
    similarity 0.33
    conv: words 0.33
      = conv_w003: 3.0 bits
      - conv_w004: 3.0 bits
      + conv_w005: 3.0 bits
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance is a share of the evidence, at least 0; got {tolerance!r}.")
    for graph in (first, second):
        check_graph(graph)
    evidence, other_evidence = (kind_of(graph).name for graph in (first, second))
    if evidence != other_evidence:
        raise ValueError(
            f"One graph shows {evidence}, the other {other_evidence}, which do not compare; make both with the same "
            "InferenceGraph(evidence=)."
        )
    (nodes, edges), (other_nodes, other_edges) = _items(first), _items(second, alignment)
    common = nodes.keys() & other_nodes.keys()
    words = [row for row in _differences(nodes, other_nodes, tolerance) if row.layer != DECISION]
    return GraphComparison(words, _differences(edges, other_edges, tolerance, common), evidence)


@dataclass(frozen=True, eq=False)
class ModelComparison:
    """The result of :func:`compare_models`."""

    alignment: Alignment
    classes: Mapping[str, GraphComparison]
    transitions: Mapping[tuple[str, str], float]

    @property
    def similarity(self) -> float:
        """Mean similarity of the class graphs."""
        return float(np.mean([comparison.similarity for comparison in self.classes.values()]))

    def to_text(self) -> str:
        """Return similarities of words, pairs of words and class graphs."""
        lines = [f"similarity of class graphs {self.similarity:.2f}"]
        lines += [f"  {name}: {comparison.similarity:.2f}" for name, comparison in self.classes.items()]
        lines.append("words")
        for layer, values in self.alignment.similarity.items():
            mean = f"of mean similarity {values.mean():.2f}" if len(values) else ""
            lines.append(f"  {layer}: {len(values)} pairs {mean}".rstrip())
        lines.append("pairs of words in receptive fields")
        lines += [f"  {lower} in {upper}: {value:.2f}" for (upper, lower), value in self.transitions.items()]
        return "\n".join(lines)


def compare_models(first: Pipeline, second: Pipeline, X: Any, *, tolerance: float = 0.1) -> ModelComparison:
    """Compare two fitted pipelines, of two epochs, seeds or data sets, by their explanations of the same images.

    Words are aligned by their locations in these images (:func:`skgmmcnn.dictionary.align_words`), then the graphs of
    all classes are compared.

    Parameters
    ----------
    first, second : Pipeline
        Fitted; both end with an :class:`InferenceGraph`, and model layers of the same names and map sizes.
    X : object
        Images that both take.
    tolerance : float, default=0.1
        As in :func:`compare_graphs`.

    Returns
    -------
    comparison : ModelComparison
        `alignment` : pairs of words of both; `classes` : by name of each class that both networks decide for, the
        comparison of the class graphs, with the mean `similarity`; `transitions` : dict of (upper, lower) to weighted
        Jaccard similarity of the counts of pairs of words, as shares of all.  ``to_text()`` returns all of it.
    """
    words = [model[:-1].transform(X) for model in (first, second)]
    alignment = align_words(*words)
    names = [{part.spec.class_name(c): c for c in np.unique(part.decisions)} for part in words]
    classes = {}
    for name in [name for name in names[0] if name in names[1]]:
        graphs = [
            model[-1].explain_class(part, int(numbers[name]))
            for model, part, numbers in zip((first, second), words, names, strict=True)
        ]
        classes[name] = compare_graphs(graphs[0], graphs[1], alignment, tolerance=tolerance)
    if not classes:
        raise ValueError(
            f"The networks decide for no class in common: {sorted(names[0])[:5]} and {sorted(names[1])[:5]}."
        )
    return ModelComparison(alignment, classes, _compare_counts(first[-1], second[-1], alignment, words))


def _place(key: str, node: Mapping[str, Any], alignment: Alignment | None) -> Any:
    """Return the layer and word of a node in the first graph; its key if it is a word of the second only."""
    if node["layer"] == DECISION:
        return DECISION
    word = node["word"] if alignment is None else alignment.partner(node["layer"], node["word"])
    return ("second", key) if word is None else (node["layer"], word)


def _items(graph: nx.DiGraph, alignment: Alignment | None = None) -> tuple[dict[Any, _Item], dict[Any, _Item]]:
    """Return the nodes of a graph by place, and the edges by the places of their ends."""
    strength = kind_of(graph).strength
    n_images = graph.graph["n_images"] if strength.additive else 1
    places, nodes, edges = {}, {}, {}
    for key, node in graph.nodes.items():
        places[key] = _place(key, node, alignment)
        nodes[places[key]] = _Item(node["layer"], key, max(0.0, strength.of_node(node)) / n_images)
    for (tail, head), edge in graph.edges.items():
        weight = max(0.0, edge[strength.evidence]) / n_images
        edges[places[tail], places[head]] = _Item(graph.nodes[tail]["layer"], f"{tail} -> {head}", weight)
    return nodes, edges


def _differences(
    first: Mapping[Any, _Item], second: Mapping[Any, _Item], tolerance: float, common: Set[Any] | None = None
) -> list[Difference]:
    """Return the items of either graph; for edges, `common` are the places of the nodes that both graphs have."""
    rows = []
    for place in {**first, **second}:
        layer = (first[place] if place in first else second[place]).layer
        one, other = (items.get(place, _Item(layer, None, 0.0)) for items in (first, second))
        if one.key is None or other.key is None:
            status = "added" if one.key is None else "removed"
        else:
            status = "changed" if abs(other.weight - one.weight) > tolerance * max(one.weight, other.weight) else "same"
        implied = common is not None and not set(place) <= common
        rows.append(Difference(layer, one.key, other.key, one.weight, other.weight, status, implied))
    return rows


def _by_layer(rows: list[Difference]) -> dict[str, float]:
    layers = dict.fromkeys(row.layer for row in rows)
    return {layer: _jaccard(*np.array([[r.before, r.after] for r in rows if r.layer == layer]).T) for layer in layers}


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Return sum min / sum max of weights, 1 if all are zero."""
    most = np.maximum(first, second).sum()
    return float(np.minimum(first, second).sum() / most) if most > 0 else 1.0


def _line(row: Difference, renamed: bool) -> str:
    names = [row.first, f"({row.second})" if renamed and row.second else row.second]
    weights = [row.before, row.after] if row.status == "changed" else [max(row.before, row.after)]
    evidence = " -> ".join(f"{weight:.1f}" for weight in weights)
    return f"{_SIGNS[row.status]} {' '.join(dict.fromkeys(filter(None, names)))}: {evidence}"


def _compare_counts(first: Any, second: Any, alignment: Alignment, words: list[WordMaps]) -> dict[tuple, float]:
    """Return the similarity of both tables of counts for each pair of layers that both models have."""
    outputs = [{part.spec.class_name(c): c for c in range(part.spec.n_outputs)} for part in words]
    decisions = np.array([(outputs[0][name], outputs[1][name]) for name in outputs[0] if name in outputs[1]])
    aligned = {**alignment.pairs, DECISION: decisions.reshape(-1, 2)}
    return {
        pair: _shares_in_common(table, second.transition_counts_[pair], *(aligned[layer] for layer in pair))
        for pair, table in first.transition_counts_.items()
        if pair in second.transition_counts_
    }


def _shares_in_common(first: np.ndarray, second: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> float:
    """Return sum min / sum max of the shares of all cells; those of words without a partner count as different."""
    one, other = (table / max(1, table.sum()) for table in (first, second))
    common = np.minimum(one[np.ix_(upper[:, 0], lower[:, 0])], other[np.ix_(upper[:, 1], lower[:, 1])]).sum()
    return float(common / (one.sum() + other.sum() - common))
