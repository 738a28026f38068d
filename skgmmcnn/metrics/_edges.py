"""Whether edges are causes: a lower word is taken away, and the words above it change, or do not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from .._device import exact_float32
from ..dictionary import LayerDictionary, WordMaps
from ..features import FeatureBatch, ReceptiveField, Rerun
from ..features._rerun import replace
from ..features._scores import log_proba
from ..graph import InferenceGraph
from ..graph._counting import gather, spread
from ..graph._hierarchy import DECISION, maps_of
from ..mixture import Mixture
from ..mixture._em import Scorer
from ._ablation import Fillings
from ._correlation import rank_correlation
from ._evidence import leaders
from ._intervals import Interval, interval
from ._measured import Figure, Measured
from ._parts import check_scores, graph_of, take_apart

EFFECTS = ("changed", "loss")
_NEAR = 0.1  # matched columns are seen by numbers of locations that differ by no more than this share


@dataclass(frozen=True, eq=False)
class PairEffects(Measured):
    """What the edges between two layers do, each in each image.

    Part of :class:`EdgeEffects`.  Of an edge from t to s, the locations meant are those of s whose fields show t;
    "random" is what other columns of these fields do, as many of them.

    Parameters
    ----------
    upper, lower : str
        The layers; the upper one may be ``"decision"``.
    images, upper_words, lower_words : int array of shape (m,)
        Number of the image, s and t.
    log_ratios : array of shape (m,)
        The edge's evidence, in bits per location.
    n_locations : int array of shape (m,)
        Number of locations of s.
    n_columns : int array of shape (m,)
        How many columns of t are taken away, and how many others; 0 where no others match them.
    doses, doses_random : array of shape (m,)
        How many of them a location sees on average.
    changed, changed_random : array of shape (m,)
        Share of the locations whose word becomes another one; NaN where `n_columns` is 0.
    loss, loss_random : array of shape (m,)
        By how much the log-posterior of s falls, mean over the locations, in nats; that of the target's class
        probability, for the decision.
    random_state : int
        Draws the resamples of the intervals.
    """

    upper: str
    lower: str
    images: np.ndarray
    upper_words: np.ndarray
    lower_words: np.ndarray
    log_ratios: np.ndarray
    n_locations: np.ndarray
    n_columns: np.ndarray
    doses: np.ndarray
    doses_random: np.ndarray
    changed: np.ndarray
    changed_random: np.ndarray
    loss: np.ndarray
    loss_random: np.ndarray
    random_state: int

    def excess(self, of: str = "changed") -> np.ndarray:
        """Return by how much an edge's effect is above that of random columns.

        Parameters
        ----------
        of : {"changed", "loss"}, default="changed"
            Which effect.

        Returns
        -------
        excess : array of shape (m,)
            Above 0 where t does more than other columns.
        """
        _check_effect(of)
        return getattr(self, of) - getattr(self, f"{of}_random")

    def difference(self, of: str = "changed") -> tuple[float, Interval]:
        """Return the mean excess over the edges of an image, over images.

        Parameters
        ----------
        of : {"changed", "loss"}, default="changed"
            Which effect.

        Returns
        -------
        difference : float
            Above 0 where edges are causes; NaN without any that can be compared.
        interval : tuple (low, high)
            95 % interval over resamples of the images.
        """
        means = self._by_image(self.excess(of))
        if not len(means):
            return np.nan, (np.nan, np.nan)
        return float(means.mean()), interval(means, self._random())

    def ratio(self, of: str = "changed") -> float:
        """Return the mean effect of edges by that of random columns.

        Parameters
        ----------
        of : {"changed", "loss"}, default="changed"
            Which effect.

        Returns
        -------
        ratio : float
            Above 1 where edges are causes; NaN where random columns do nothing.
        """
        _check_effect(of)
        means, of_random = (self._by_image(getattr(self, name)) for name in (of, f"{of}_random"))
        return float(means.mean() / of_random.mean()) if len(means) and of_random.mean() > 0 else np.nan

    def correlation(self, of: str = "loss") -> tuple[float, Interval]:
        """Return Spearman's correlation of the excess with the log-ratio.

        Parameters
        ----------
        of : {"changed", "loss"}, default="loss"
            Which effect.

        Returns
        -------
        correlation : float
            Above 0 where stronger evidence goes with stronger causes; NaN where either is the same for all edges.
        interval : tuple (low, high)
            95 % interval over resamples of the images, which keep the edges of an image together.
        """
        excess = self.excess(of)
        known = ~np.isnan(excess)
        return rank_correlation(excess[known], self.log_ratios[known], self.images[known], self._random())

    def _by_image(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of what is known of each image."""
        known = ~np.isnan(values)
        _, image = np.unique(self.images[known], return_inverse=True)
        return np.bincount(image, values[known]) / np.bincount(image)

    def _random(self) -> np.random.RandomState:
        return check_random_state(self.random_state)

    def figures(self) -> list[Figure]:
        """Return the figures that sum it up.

        Returns
        -------
        figures : list of Figure
            By how much edges do more than random columns, and whether stronger ones do more.
        """

        def figure(what: str, value: float, between: Interval) -> Figure:
            return Figure(what, f"{self.upper} > {self.lower}", value, *between, "above 0")

        return [
            figure("changed by edges, above random", *self.difference("changed")),
            figure("loss by edges, above random (nats)", *self.difference("loss")),
            figure("rank correlation, loss and log-ratio", *self.correlation("loss")),
        ]

    def __str__(self) -> str:
        by_image = {name: self._by_image(getattr(self, name)) for name in (*EFFECTS, "changed_random", "loss_random")}
        if not len(by_image["changed"]):
            return f"{self.lower} to {self.upper}: no edge can be compared with other columns of its fields."
        mean = {name: values.mean() for name, values in by_image.items()}
        what, of = ("decisions", "loss") if self.upper == DECISION else ("words", "changed")
        difference, (low, high) = self.difference(of)
        return (
            f"{self.lower} to {self.upper}: {mean['changed']:.0%} of the {what} change, with other locations "
            f"{mean['changed_random']:.0%}; their log-posteriors fall by {mean['loss']:.2f} nats, with other locations "
            f"by {mean['loss_random']:.2f}.  Difference of {'shares' if of == 'changed' else 'nats'}: {difference:.3f} "
            f"({low:.3f} to {high:.3f})."
        )


@dataclass(frozen=True, eq=False)
class EdgeEffects(Measured):
    """Whether edges of graphs are causes.

    Made by :func:`edge_effects`.

    Parameters
    ----------
    pairs : dict of (upper, lower) to PairEffects
        What the edges do, for each pair of layers with edges, from the top down.
    fill, by : str
        As asked for.
    """

    pairs: Mapping[tuple[str, str], PairEffects]
    fill: str
    by: str

    @property
    def n_alone(self) -> int:
        """Number of edges, each in each image, that cannot be compared: no other columns match those of the word."""
        return sum(int((pair.n_columns == 0).sum()) for pair in self.pairs.values())

    def figures(self) -> list[Figure]:
        return [figure for pair in self.pairs.values() for figure in pair.figures()]

    def __str__(self) -> str:
        lines = [
            f"The lower word of each edge taken away, beside as many other locations of the same fields (fill: "
            f"{self.fill}; graphs by {self.by})",
            *map(str, self.pairs.values()),
        ]
        if self.n_alone:
            n_edges = sum(len(pair.images) for pair in self.pairs.values())
            lines.append(f"{self.n_alone} of {n_edges} edges cannot be compared: no other locations match the word's.")
        return "\n  ".join(lines)


def edge_effects(
    pipe: Any,
    X: Any,
    *,
    by: str = "image",
    fill: str = "mean",
    n_random: int = 3,
    verbose: int = 0,
    random_state: int | np.random.RandomState | None = None,
) -> EdgeEffects:
    """Take the lower word of each edge away, and see whether the upper one changes.

    An edge from t to s says that t is more frequent in the fields of s than elsewhere.  Whether the network makes s of
    t is another question.  So the columns of t in the fields of s are replaced, the network runs on to the layer of s,
    and of the locations of s whose fields showed t it is told how many have another word now, and by how much the
    log-posterior of s has fallen.  Beside it stands what as many random other columns of these very fields do.  Where t
    does no more than these, the edge tells that two words go together, and no more.

    For edges into the decision, the field is the whole map, and the log-posterior is the log-probability of the class.

    Parameters
    ----------
    pipe : Pipeline
        Fitted, with a :class:`~skgmmcnn.LayerDictionary` and, at its end, an :class:`~skgmmcnn.InferenceGraph`.
    X : images or FeatureMaps
        What the pipeline takes, or feature maps of a network.
    by : {"image", "class"}, default="image"
        Whether edges are those of the graph of each image's own decision, or those of the graph of all images in X with
        the same decision, in each of these images.
    fill : {"mean", "zero", "resample"}, default="mean"
        What stands in the place of columns: the layer's mean, zeros, or columns of other images.
    n_random : int, default=3
        How often other columns are drawn; effects are means.
    verbose : int, default=0
        Whether to show progress.
    random_state : int, RandomState instance or None, default=None
        Draws other columns, columns that stand in their place, and resamples.

    Returns
    -------
    effects : EdgeEffects
        Effects by pair of layers.

    Notes
    -----
    Each column of t is matched with a random other one of the same fields that as many of the locations see, to within
    10 %, so that both take as much from each location on average (`doses`); without this, edges would seem causes only
    because their words lie where more locations see them.  Columns of t without a match stay; an edge without any
    cannot be compared (`n_alone`), as where its fields show nothing but t.

    Fields are those that the graph counts in.  Where they cover most of the lower map, t may lie far from what makes s,
    and other columns of the fields are nearly any others: expect little there.

    All images of a batch run at the same time, one edge of each.

    References
    ----------
    .. [1] Geiger, Lu, Icard and Potts, "Causal Abstractions of Neural Networks", NeurIPS 2021: why what goes together
       is tested by intervention.

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
    """
    random = check_random_state(random_state)
    parts = take_apart(pipe, X)
    graph = graph_of(parts)
    dictionary = parts.dictionary
    if not isinstance(dictionary, LayerDictionary):
        raise TypeError(
            f"Edges are compared with other columns of their fields; layers of a {type(dictionary).__name__} have one "
            "column. Use a LayerDictionary."
        )
    if n_random < 1:
        raise ValueError(f"n_random must be at least 1; got {n_random}.")
    check_scores(parts)
    fillings = Fillings(fill, parts, parts.maps.layers, random)
    words = parts.words()
    edges = list(_edges(graph, words, by))
    fields = graph._structure(words).fields
    trials = [_trial(words, edge, fields[edge.upper, edge.lower], n_random, random) for edge in edges]
    lowers = [layer for layer in reversed(words.layers) if any(edge.lower == layer for edge in edges)]
    effects = np.full((len(edges), 1 + n_random, len(EFFECTS)), np.nan)
    judge = _Judge(dictionary.mixtures_, words)
    with tqdm(total=len(lowers) * len(words), desc="edge_effects", unit="image", disable=not verbose) as progress:
        for lower in lowers:

            def work(part: Rerun, lower: str = lower) -> int:
                filling = fillings({lower: part.original.activations[lower]}, part.original.start)[lower]
                for at_once in _rounds(edges, trials, lower, part):
                    for variant in range(1 + n_random):
                        run = _without(part, lower, [(edges[e], trials[e].taken[variant]) for e in at_once], filling)
                        for e in at_once:
                            effects[e, variant] = judge(part.original, run, edges[e], trials[e].locations)
                return len(part)

            for n_done in parts.maps.rerun(work):
                progress.update(n_done)
    return EdgeEffects(_by_pair(fields, edges, trials, effects, random), fill, by)


class _Edge(NamedTuple):
    """An edge from the word `t` of the layer `lower` to the word `s` of `upper`, in one image."""

    image: int
    upper: str
    lower: str
    s: int
    t: int
    log_ratio: float


class _Trial(NamedTuple):
    """What is done to an edge.

    The locations (H, W) of s whose fields show t, and which columns (1 + n_random, h, w) are taken away: of t, and as
    many others, several times.  The mean number of these that a location sees, (1 + n_random,).
    """

    locations: np.ndarray
    taken: np.ndarray
    doses: np.ndarray


def _edges(graph: InferenceGraph, words: WordMaps, by: str) -> Iterator[_Edge]:
    """Yield the edges of all graphs, in each image that they are about."""
    first = leaders(words, by)
    if by == "image":
        explained = zip(np.arange(len(words))[:, None], graph.explain(words), strict=True)
    else:
        groups = [np.flatnonzero(first == leader) for leader in np.unique(first)]
        explained = (  # type: ignore[assignment]
            (rows, graph.explain_together(words[rows], int(words.decisions[rows[0]]))) for rows in groups
        )
    for rows, found in explained:
        for tail, head, log_ratio in found.edges(data="log_ratio"):
            for image in rows:
                yield _edge(int(image), found, tail, head, log_ratio)


def _edge(image: int, graph: nx.DiGraph, tail: str, head: str, log_ratio: float) -> _Edge:
    lower, upper = graph.nodes[tail], graph.nodes[head]
    return _Edge(image, upper["layer"], lower["layer"], upper["word"], lower["word"], log_ratio)


def _trial(words: WordMaps, edge: _Edge, field: ReceptiveField, n_random: int, random: np.random.RandomState) -> _Trial:
    """Return which columns are taken away of t, and of others in the same fields."""
    shown = words.words[edge.lower][edge.image] == edge.t
    locations = (maps_of(words, edge.upper)[edge.image] == edge.s) & (gather(shown.astype(np.float32), field) > 0)
    seen = spread(locations.astype(np.float32), field)
    own, others = np.flatnonzero((seen > 0) & shown), np.flatnonzero((seen > 0) & ~shown)
    own = random.permutation(own)[: len(others)]
    taken = np.zeros((1 + n_random, *shown.shape), dtype=bool)
    for variant in taken[1:]:
        others = random.permutation(others)
        matches = _matches(seen.flat[own], seen.flat[others])
        taken[0].flat[own[list(matches)]] = True  # the same ones each time
        variant.flat[others[list(matches.values())]] = True
    doses = gather(taken.astype(np.float32), field)[:, locations]
    return _Trial(locations, taken, doses.mean(1) if locations.any() else np.zeros(len(taken)))


def _matches(seen: np.ndarray, others: np.ndarray) -> dict[int, int]:
    """Return for each of some columns another one, each but once, that nearly as many locations see.

    `seen` and `others` are the numbers of locations; those that most see choose first, the larger of two that are as
    near.  A column without any near enough is left out.
    """
    free, found = others.astype(float), {}
    for number in np.argsort(-seen, kind="stable")[: len(others)]:
        best = int((2 * np.abs(free - seen[number]) - (free > seen[number])).argmin())
        if abs(free[best] - seen[number]) <= _NEAR * seen[number]:
            found[int(number)] = best
            free[best] = np.inf
    return found


def _rounds(edges: list[_Edge], trials: list[_Trial], lower: str, part: Rerun) -> Iterator[list[int]]:
    """Yield numbers of edges that can be tried at the same time: at most one of each image of a batch."""
    start, stop = part.original.start, part.original.start + len(part.original.decisions)
    of_image = defaultdict(list)
    for number, (edge, trial) in enumerate(zip(edges, trials, strict=True)):
        if edge.lower == lower and start <= edge.image < stop and trial.taken[0].any():
            of_image[edge.image].append(number)
    for turn in range(max(map(len, of_image.values()), default=0)):
        yield [numbers[turn] for numbers in of_image.values() if turn < len(numbers)]


def _without(part: Rerun, lower: str, taken: list[tuple[_Edge, np.ndarray]], filling: Tensor) -> FeatureBatch:
    """Run the network without some columns of some images."""
    where = np.zeros((len(part.original.decisions), *taken[0][1].shape), dtype=bool)
    for edge, columns in taken:
        where[edge.image - part.original.start] = columns
    with torch.no_grad():
        return part.run({lower: replace(torch.from_numpy(where).to(filling.device), filling)})


class _Judge:
    """Tells what has become of words and decisions."""

    def __init__(self, mixtures: Mapping[str, Mixture], words: WordMaps) -> None:
        self._mixtures, self._words = mixtures, words
        self._scorers: dict[str, Scorer] = {}

    def __call__(
        self, before: FeatureBatch, after: FeatureBatch, edge: _Edge, locations: np.ndarray
    ) -> tuple[float, float]:
        """Return the share of the locations of s that show it no more, and the fall of its log-posterior."""
        was, now = (self._log_posteriors(batch, edge, locations) for batch in (before, after))
        changed = (now.argmax(1) != edge.s).double().mean()
        return float(changed), float((was[:, edge.s] - now[:, edge.s]).double().mean())

    def _log_posteriors(self, batch: FeatureBatch, edge: _Edge, locations: np.ndarray) -> Tensor:
        """Return the log-posteriors of all words at some locations of one image, (locations, K); of outputs, (1, C)."""
        image = edge.image - batch.start
        if edge.upper == DECISION:
            return log_proba(batch.outputs)[image][None]
        values = batch.activations[edge.upper][image]
        rows = values[:, torch.from_numpy(locations).to(values.device)].T
        if edge.upper not in self._scorers:
            self._scorers[edge.upper] = Scorer(self._mixtures[edge.upper], rows)
        scorer = self._scorers[edge.upper]
        with exact_float32(), torch.no_grad():
            return torch.cat([scorer.log_joint(scorer.features(block)) for block in scorer.blocks(rows)]).log_softmax(1)


def _by_pair(
    known: Iterable[tuple[str, str]],
    edges: list[_Edge],
    trials: list[_Trial],
    effects: np.ndarray,
    random: np.random.RandomState,
) -> dict[tuple[str, str], PairEffects]:
    pairs = {}
    for upper, lower in known:
        chosen = [
            number
            for number, edge in enumerate(edges)
            if (edge.upper, edge.lower) == (upper, lower) and trials[number].locations.any()
        ]
        if not chosen:
            continue
        doses = np.array([trials[number].doses for number in chosen])
        own, others = effects[chosen, 0], effects[chosen, 1:].mean(1)
        pairs[upper, lower] = PairEffects(
            upper=upper,
            lower=lower,
            images=np.array([edges[number].image for number in chosen]),
            upper_words=np.array([edges[number].s for number in chosen]),
            lower_words=np.array([edges[number].t for number in chosen]),
            log_ratios=np.array([edges[number].log_ratio for number in chosen]),
            n_locations=np.array([trials[number].locations.sum() for number in chosen]),
            n_columns=np.array([trials[number].taken[0].sum() for number in chosen]),
            doses=doses[:, 0],
            doses_random=doses[:, 1:].mean(1),
            changed=own[:, 0],
            changed_random=others[:, 0],
            loss=own[:, 1],
            loss_random=others[:, 1],
            random_state=int(random.randint(2**31)),
        )
    return pairs


def _check_effect(of: str) -> None:
    if of not in EFFECTS:
        raise ValueError(f"of must be 'changed' or 'loss'; got {of!r}.")
