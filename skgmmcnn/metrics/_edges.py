"""Whether edges tell what a layer passes on to the next: the exact effect of each, beside its evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from sklearn.utils import check_random_state

from .._progress import progress
from ..dictionary import ClassMargin, WordMaps
from ..features import Rerun
from ..graph import InferenceGraph
from ..graph._counting import spread
from ..graph._hierarchy import DECISION, maps_of
from ..graph._influence import handle_of
from ..graph._tracing import NONE, NOTHING, Question, Tracer
from ._correlation import rank_correlation
from ._evidence import graphs_of, kept_by
from ._intervals import Interval
from ._measured import Figure, Measured
from ._parts import check_scores, graph_of, take_apart

_NAMES = {"influence": "flow", "counts": "bits"}  # of the evidence of a pair


@dataclass(frozen=True, eq=False)
class PairEffects(Measured):
    """What the words that graphs keep of one layer do to those that they keep of another.

    Part of :class:`EdgeEffects`.  All pairs (s, t) of such words are here, each in each image, drawn or not.

    Parameters
    ----------
    upper, lower : str
        The layers; the upper one may be ``"decision"``.
    images, upper_words, lower_words : int array of shape (m,)
        Number of the image, s and t.
    drawn : bool array of shape (m,)
        Whether the image's graph has an edge from t to s.
    evidence : array of shape (m,)
        The flow from t into s in nats, to first order; of counts, the bits of all locations of t in the fields of s.
    effects : array of shape (m,)
        By how much the decision's log-odds fall when t is taken away from s alone, in nats.
    named : {"flow", "bits"}
        What the evidence is.
    random_state : int
        Draws the resamples of the intervals.
    """

    upper: str
    lower: str
    images: np.ndarray
    upper_words: np.ndarray
    lower_words: np.ndarray
    drawn: np.ndarray
    evidence: np.ndarray
    effects: np.ndarray
    named: str
    random_state: int

    def correlation(self) -> tuple[float, Interval]:
        """Return Spearman's correlation of evidence and effects.

        Returns
        -------
        correlation : float
            Near 1 where stronger evidence goes with stronger effects; NaN where either is the same for all pairs.
        interval : tuple (low, high)
            95 % interval over resamples of the images, which keep the pairs of an image together.
        """
        return rank_correlation(self.evidence, self.effects, self.images, check_random_state(self.random_state))

    @property
    def same_sign(self) -> float:
        """Share of the pairs with any effect whose effect has the sign of the evidence; NaN without such pairs."""
        some = np.abs(self.effects) > NOTHING
        return float((self.effects * self.evidence > 0)[some].mean()) if some.any() else np.nan

    @property
    def drawn_share(self) -> float:
        """Share of the sum of the absolute effects that is of edges drawn; NaN without effects."""
        sizes = np.abs(self.effects)
        return float(sizes[self.drawn].sum() / sizes.sum()) if sizes.sum() > NOTHING else np.nan

    def figures(self) -> list[Figure]:
        """Return the figures that sum it up.

        Returns
        -------
        figures : list of Figure
            How well the evidence tells the effects.
        """
        where, (rho, between) = f"{self.upper} > {self.lower}", self.correlation()
        return [
            Figure(f"rank correlation, {self.named} and effect", where, rho, *between, "near 1"),
            Figure(f"effects with the sign of the {self.named}", where, self.same_sign, good="near 1"),
            Figure("effects of edges drawn", where, self.drawn_share, good="near 1"),
        ]

    def __str__(self) -> str:
        rho, (low, high) = self.correlation()
        return (
            f"{self.lower} to {self.upper}: {len(self.images)} pairs, rank correlation {rho:.2f} ({low:.2f} to "
            f"{high:.2f}); {self.same_sign:.0%} of the effects have the sign of the {self.named}; edges drawn have "
            f"{self.drawn_share:.0%} of all effects."
        )


@dataclass(frozen=True, eq=False)
class EdgeEffects(Measured):
    """Whether edges of graphs tell what layers pass on.

    Made by :func:`edge_effects`.

    Parameters
    ----------
    pairs : dict of (upper, lower) to PairEffects
        For each pair of layers that graphs keep words of, from the top down.
    """

    pairs: Mapping[tuple[str, str], PairEffects]

    def figures(self) -> list[Figure]:
        return [figure for pair in self.pairs.values() for figure in pair.figures()]

    def __str__(self) -> str:
        named = next((pair.named for pair in self.pairs.values()), "evidence")
        head = (
            f"The {named} of all pairs of words that graphs keep, beside what taking the one away from the other does"
        )
        return "\n  ".join([head, *map(str, self.pairs.values())])


def edge_effects(
    pipe: Any, X: Any, *, verbose: int = 0, random_state: int | np.random.RandomState | None = None
) -> EdgeEffects:
    """Take each lower word of a graph away from each upper one, and compare what happens with the edges.

    Of an edge from t to s the exact effect is that of path patching [1]_: the network runs up to the layer of s with
    the mean of t's layer in the place of t; the locations of s, and nothing else, are replaced by what came of them;
    then the network goes on, and the effect is by how much the log-odds of its decision fall.  An edge into the
    decision has the effect of taking t away.  This is compared with the evidence of the pair, of all pairs of words
    that the graph of an image's decision keeps in two layers, whether it draws an edge or not.

    Parameters
    ----------
    pipe : Pipeline
        Fitted, ending with an :class:`~skgmmcnn.InferenceGraph`.
    X : images or FeatureMaps
        What the pipeline takes, or feature maps of a network.
    verbose : int, default=0
        Whether to show progress.
    random_state : int, RandomState instance or None, default=None
        Draws the resamples of intervals.

    Returns
    -------
    effects : EdgeEffects
        Evidence and effects by pair of layers.

    Notes
    -----
    Under influence the evidence of a pair is its flow, and an edge is drawn where flow and effect agree in sign and are
    large enough, so that drawn edges are true by construction; whether the flow is to be believed elsewhere is told by
    all pairs.  Under counts it is log-ratio times number of locations, and an edge is drawn where that is positive.

    References
    ----------
    .. [1] Goldowsky-Dill, MacLeod, Sato and Arora, "Localizing model behavior with path patching", 2023.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> from skgmmcnn.metrics import edge_effects
    >>> digits = load_digits_network()
    >>> extractor = FeatureExtractor(digits.network, layers=["conv2", "conv3"])
    >>> pipe = make_pipeline(extractor, LayerDictionary(30, random_state=0), InferenceGraph()).fit(digits.images)
    >>> effects = edge_effects(pipe, digits.test_images[:50], random_state=0)
    >>> list(effects.pairs)
    [('decision', 'conv3'), ('conv3', 'conv2')]
    >>> effects.pairs["conv3", "conv2"].correlation()[0] > 0.5
    True
    """
    random = check_random_state(random_state)
    parts = take_apart(pipe, X)
    graph = graph_of(parts)
    check_scores(parts)
    words = parts.words()
    graphs = graphs_of(graph, words, "image")
    kept, fields = kept_by(graphs, words), graph._structure(words).fields
    decisions = words.decisions.astype(np.int64)
    asked = Question(ClassMargin(decisions), decisions, None, words.layers, None, 0, graph.n_steps)

    def work(part: Rerun) -> list[_Compared]:
        tracer = Tracer(words, handle_of(words), asked, part)
        for image, traced in enumerate(tracer.traces, part.rows.start):
            traced.kept = {layer: np.flatnonzero(kept[layer][image]).tolist() for layer in words.layers}
        comparer = _Comparer(graph, words, graphs, tracer, part.rows)
        return [compared for pair in fields for compared in comparer.compare(*pair)]

    found: list[_Compared] = []
    with progress(total=len(words), desc="edge_effects", unit="image", shown=verbose) as bar:
        for n_done, compared in parts.maps.rerun(lambda part: (len(part), work(part)), "edge effects"):
            found += compared
            bar.update(n_done)
    pairs, named = {}, _NAMES[graph._evidence_of(words)]
    for upper, lower in fields:
        rows = [each[2:] for each in found if each[:2] == (upper, lower)]
        if rows:
            images, uppers, lowers, drawn, evidence, effects = map(np.array, zip(*rows, strict=True))
            seed = int(random.randint(2**31))
            pairs[upper, lower] = PairEffects(
                upper, lower, images, uppers, lowers, drawn, evidence, effects, named, seed
            )
    return EdgeEffects(pairs)


class _Compared(NamedTuple):
    """Two words that the graph of one image keeps; see :class:`PairEffects`."""

    upper: str
    lower: str
    image: int
    upper_word: int
    lower_word: int
    drawn: bool
    evidence: float
    effect: float


class _Comparer:
    """Compares the evidence of pairs of words with what they do, for the images of one batch at the same time."""

    def __init__(
        self, graph: InferenceGraph, words: WordMaps, graphs: list[nx.DiGraph], tracer: Tracer, rows: slice
    ) -> None:
        self._graph, self._words, self._graphs, self._tracer, self._rows = graph, words, graphs, tracer, rows
        self._counts = graph._evidence_of(words) == "counts"

    def compare(self, upper: str, lower: str) -> Iterator[_Compared]:
        """Yield all pairs of words kept of two layers."""
        above, below = self._above(upper), self._tracer.ranked(lower)
        effects = [self._effects(upper, lower, words, above) for words in below]
        for number, uppers in enumerate(above):
            evidence = self._bits(upper, lower, uppers) if self._counts else self._flows(upper, lower, uppers)
            for lowers, effect in zip(below, effects, strict=True):
                for i in np.flatnonzero((uppers != NONE) & (lowers != NONE)).tolist():
                    s, t = int(uppers[i]), int(lowers[i])
                    drawn = self._drawn(i, upper, lower, s, t)
                    yield _Compared(upper, lower, self._rows.start + i, s, t, drawn, evidence[i, t], effect[number][i])

    def _above(self, upper: str) -> list[np.ndarray]:
        if upper == DECISION:
            return [self._words.decisions[self._rows].astype(np.int64)]
        return self._tracer.ranked(upper)

    def _effects(self, upper: str, lower: str, words: np.ndarray, above: list[np.ndarray]) -> list[np.ndarray]:
        """Return for each upper word by how much the log-odds fall, (n,)."""
        if upper != DECISION:
            return self._tracer.patched(upper, lower, words, above)
        fall = np.zeros(len(words))
        for i, without in self._tracer.without(lower, words):
            fall[i] = without.effect
        return [fall]

    def _flows(self, upper: str, lower: str, uppers: np.ndarray) -> np.ndarray:
        """Return what each lower word gives to one upper word, (n, K)."""
        if upper == DECISION:
            return np.stack([found.totals[lower] for found in self._tracer.traces])
        return self._tracer.flows_into(upper, lower, uppers)[0]

    def _bits(self, upper: str, lower: str, uppers: np.ndarray) -> np.ndarray:
        """Return the bits of each lower word in the fields of one upper word, (n, K)."""
        ratios = self._graph.log_ratios_[upper, lower]
        field = self._graph._structure(self._words).fields[upper, lower]
        shown = maps_of(self._words, upper)[self._rows] == uppers[:, None, None]
        seen = spread(shown.astype(np.float32), field)  # how many of the fields each location lies in
        maps = self._words.words[lower][self._rows]
        counts = [np.bincount(m.ravel(), n.ravel(), ratios.shape[1]) for m, n in zip(maps, seen, strict=True)]
        return ratios[uppers] * np.stack(counts)

    def _drawn(self, i: int, upper: str, lower: str, s: int, t: int) -> bool:
        key = self._words.vocabulary.key
        head = f"{DECISION}_{s}" if upper == DECISION else key(upper, s)
        return self._graphs[self._rows.start + i].has_edge(key(lower, t), head)
