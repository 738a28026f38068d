"""Similarity of words and graphs to those of refits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
from sklearn.utils import check_random_state

from .._progress import progress
from ..dictionary import assign, similarity_of_means
from ..graph import GraphComparison
from ._intervals import interval_of_mean
from ._refits import Comparisons, Reference, open_for_refits, refit, seed_of, similarities
from ._results import BASELINE, Measurement, Result

KINDS = ("resample", "seed", "both")
Edge = tuple[str, str]


@dataclass(frozen=True, eq=False)
class GraphStability:
    """Similarity of graphs to those of refits; see :func:`stability`."""

    names: tuple[str, ...]
    similarity: np.ndarray
    chance: np.ndarray
    interval: tuple[float, float]
    edges: tuple[Mapping[Edge, float], ...]
    chance_edges: tuple[Mapping[Edge, float], ...]

    @property
    def stable_edges(self) -> float:
        """Share of the edges of all graphs that at least half of the refits have, too; NaN without edges."""
        return _stable(self.edges)

    @property
    def stable_by_chance(self) -> float:
        """Share of stable edges with random partners."""
        return _stable(self.chance_edges)


def _stable(edges: tuple[Mapping[Edge, float], ...]) -> float:
    shares = np.array([share for graph in edges for share in graph.values()])
    return float((shares >= 0.5).mean()) if len(shares) else np.nan


@dataclass(frozen=True, eq=False)
class Stability(Result):
    """The result of :func:`stability`."""

    kind: str
    words: Mapping[str, np.ndarray]
    chance_words: Mapping[str, np.ndarray]
    classes: GraphStability
    images: GraphStability

    def measurements(self) -> list[Measurement]:
        measurements = []
        for layer, cosines in self.words.items():
            name = f"cosine of words, {self.kind}"
            chance = float(self.chance_words[layer].mean())
            measurements += [
                Measurement(name, layer, float(cosines.mean()), good="near 1"),
                Measurement(f"{name}, random partners", layer, chance, good=BASELINE),
            ]
        for kind, graphs in (("class", self.classes), ("image", self.images)):
            name = f"similarity of {kind} graphs, {self.kind}"
            edges = f"stable edges of {kind} graphs, {self.kind}"
            measurements += [
                Measurement(name, "graph", float(graphs.similarity.mean()), *graphs.interval, "near 1"),
                Measurement(f"{name}, random partners", "graph", float(graphs.chance.mean()), good=BASELINE),
                Measurement(edges, "graph", graphs.stable_edges, good="near 1"),
                Measurement(f"{edges}, random partners", "graph", graphs.stable_by_chance, good=BASELINE),
            ]
        return measurements


def stability(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    n_refits: int = 5,
    kind: str = "resample",
    explained: Any = None,
    n_images: int = 20,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
) -> Stability:
    """Fit words and graph again, and compare them with those of the first fit.

    Words of each refit are paired with the first ones, layer by layer, such that the sum of the cosines of their means
    is maximal (Hungarian method).  Graphs are compared by the weighted Jaccard index of their words and edges
    (:func:`skgmmcnn.graph.compare_graphs`); an edge is stable if at least half of the refits have it between the
    partners of its words [1]_.

    Parameters
    ----------
    estimator : Pipeline
        Fitted: extractor, words and :class:`InferenceGraph`, or the latter two; an example is in :func:`trust_report`.
    X : images or FeatureMaps
        Data of the refits, preferably the images that `estimator` was fitted to.  Up to 2 GiB of activations of images
        are held in memory; FeatureMaps are read again by every refit, so they should be in memory
        (:meth:`FeatureMaps.compute`) or stored.
    y : array-like of shape (n,), default=None
        Output numbers or class names if the words were fitted with them.
    n_refits : int, default=5
        Number of refits.
    kind : {"resample", "seed", "both"}, default="resample"
        "resample" fits bootstrap samples of the images, with the seed of `estimator` if it is a number; "seed" fits the
        same images with other seeds; "both" fits bootstrap samples with other seeds.
    explained : images or FeatureMaps, default=None
        Images whose graphs are compared, X if None.
    n_images : int, default=20
        Number of random images whose graphs are compared.  Graphs of classes use all images.
    random_state : int, RandomState instance or None, default=None
        Draws resamples, seeds, images and random partners.
    verbose : int, default=0
        Whether to show the progress of the refits.

    Returns
    -------
    result : Stability
        `words` : by layer, array of shape (n_refits, K), cosine of the means of each word and its partner in each
        refit; `chance_words` : by layer, array of shape (n_refits,), mean cosine of random partners.  `classes`,
        `images` : the graphs of all classes and of images, with `names`; `similarity`, `chance` : arrays of shape
        (n_graphs, n_refits), similarity of each graph to that of each refit, with the paired words and with random
        partners; `interval` : 95 % interval of the mean similarity over resamples of the graphs; `edges`,
        `chance_edges` : for each graph a dict of (tail, head) to the share of refits that have the edge;
        `stable_edges`, `stable_by_chance` : share of stable edges.

    Notes
    -----
    After a ReLU any two words have a large cosine, so compare with random partners.  These do not include the gain of
    the best pairing, which is positive even if words have nothing in common.

    Training starts from columns of its images: with resamples, the same seed starts from other means.  Classes without
    a decision of the network have no graph.

    References
    ----------
    .. [1] Kuhn, "The Hungarian method for the assignment problem", Naval Research Logistics Quarterly 2, 1955; Ioffe,
       "Improved consistent sampling, weighted minhash and L1 sketching", ICDM 2010; Efron, "Bootstrap methods: another
       look at the jackknife", Annals of Statistics 7, 1979.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}; got {kind!r}.")
    if n_refits < 1 or n_images < 1:
        raise ValueError(f"n_refits and n_images must be at least 1; got {n_refits} and {n_images}.")
    random = check_random_state(random_state)
    parts, explained_maps = open_for_refits(estimator, X, explained)
    n = len(parts.maps)
    labels = None if y is None else parts.maps.spec.encode(y, n)
    first = Reference(parts, explained_maps, n_images, random)
    cosines = []  # of all pairs of words
    alignments = []
    comparisons = []
    for _ in progress(range(n_refits), desc="refits", shown=verbose):
        rows = np.arange(n) if kind == "seed" else random.randint(n, size=n)
        seed = seed_of(parts.dictionary, random) if kind == "resample" else int(random.randint(2**31))
        dictionary, graph = refit(parts, parts.maps[rows], None if labels is None else labels[rows], seed)
        cosines.append(similarity_of_means(parts.dictionary, dictionary, "cosine"))
        alignments.append(assign(cosines[-1]))
        comparisons.append(first.compare(graph, dictionary.transform(explained_maps), alignments[-1]))
    classes, images = zip(*comparisons, strict=True)
    return Stability(
        kind=kind,
        # partners are sorted by the first words, each of which has one
        words={layer: np.stack([each.similarity[layer] for each in alignments]) for layer in cosines[0]},
        # the mean over all matchings is the mean over all pairs
        chance_words={layer: np.array([each[layer].mean() for each in cosines]) for layer in cosines[0]},
        classes=_graph_stability(first.class_names, first.class_graphs, classes, random),
        images=_graph_stability(first.image_names, first.image_graphs, images, random),
    )


def _graph_stability(
    names: tuple[str, ...], graphs: list[nx.DiGraph], refits: Sequence[Comparisons], random: np.random.RandomState
) -> GraphStability:
    aligned, chance = zip(*refits, strict=True)
    similarity = np.stack(list(map(similarities, aligned)), axis=1)
    return GraphStability(
        names=names,
        similarity=similarity,
        chance=np.stack(list(map(similarities, chance)), axis=1),
        interval=interval_of_mean(similarity.mean(1), random),
        edges=_shares_of_edges(graphs, aligned),
        chance_edges=_shares_of_edges(graphs, chance),
    )


def _shares_of_edges(
    graphs: list[nx.DiGraph], refits: Sequence[list[GraphComparison]]
) -> tuple[Mapping[Edge, float], ...]:
    """Return the share of the refits that have each edge of each graph."""
    shares = []
    for graph, *comparisons in zip(graphs, *refits, strict=True):
        common = [{edge.first for edge in each.edges if edge.first and edge.second} for each in comparisons]
        shares.append(
            {
                (tail, head): float(np.mean([f"{tail} -> {head}" in edges for edges in common]))
                for tail, head in graph.edges
            }
        )
    return tuple(shares)
