"""Evidence of influence: questions to the network, and graphs of its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from ..dictionary import ClassMargin, Influence, WordMaps, WordMargin
from ._attributes import add_decision, add_word
from ._hierarchy import DECISION, Hierarchy
from ._targets import root_of
from ._tracing import Flow, Question, Trace, influences, is_edge, order, trace

INTERVAL = (2.5, 97.5)  # percentiles
_N_RESAMPLES = 200
# Of 30 photographs a class, over five classes of SqueezeNet: with 10 more, class graphs of two such sets share 70 % of
# their words rather than 64 %, and these carry 2 % less of the influence; with 20 it is 78 %, and 4 %.
_BELIEVED_IMAGES = 10


@dataclass(frozen=True)
class Wanted:
    """What graphs keep, as the parameters of :class:`InferenceGraph` say; `n_nodes` None for enough words."""

    n_nodes: Mapping[str, int] | None
    n_against: int
    n_steps: int
    max_images: int
    seed: int


def explain(
    words: WordMaps, structure: Hierarchy, targets: Sequence[Any], contrasts: Sequence[int | None], wanted: Wanted
) -> list[nx.DiGraph]:
    """Return for each image the graph of what the network used for its target.

    Targets are outputs, or all the same word ``(layer, word)`` or location ``(layer, row, column)``.
    """
    asked = _ask(words, structure, targets, contrasts, wanted)
    traces = trace(words, structure, handle_of(words), asked)
    return [
        _graph_of(words[i], structure, target, contrast, _Story([found], wanted))
        for i, (target, contrast, found) in enumerate(zip(targets, contrasts, traces, strict=True))
    ]


def explain_together(
    words: WordMaps, structure: Hierarchy, target: Any, contrast: int | None, wanted: Wanted
) -> nx.DiGraph:
    """Return one graph of what the network used for a target in all images, or in `max_images` of them."""
    chosen = words
    if len(words) > wanted.max_images:
        drawn = np.random.RandomState(wanted.seed).permutation(len(words))[: wanted.max_images]
        chosen = words[np.sort(drawn)]
    targets, contrasts = [target] * len(chosen), [contrast] * len(chosen)
    asked = _ask(chosen, structure, targets, contrasts, wanted)
    own = influences(chosen, handle_of(chosen), asked)
    n_nodes = wanted.n_nodes or dict.fromkeys(words.layers, 3)
    fixed = {}
    for layer in asked.layers:
        sure = _sure(chosen, layer, np.stack([found.totals[layer] for found in own]), target)
        fixed[layer] = order(sure)[: n_nodes[layer]] + order(-sure)[: wanted.n_against]
    asked = Question(asked.margin, asked.classes, asked.contrasts, asked.layers, None, 0, wanted.n_steps, fixed)
    traces = trace(chosen, structure, handle_of(chosen), asked)
    return _graph_of(words, structure, target, contrast, _Story(traces, wanted))


def transform(words: WordMaps, structure: Hierarchy, wanted: Wanted) -> np.ndarray:
    """Return the influence of every word on each image's decision, float (n, sum of K over the layers)."""
    asked = _ask(words, structure, words.decisions.tolist(), [None] * len(words), wanted)
    traces = influences(words, handle_of(words), asked)
    return np.stack([np.concatenate([found.totals[layer] for layer in words.layers]) for found in traces])


def handle_of(words: WordMaps) -> Influence:
    """Return the influence of words, or raise an error that explains itself."""
    if words.influence is None:
        raise ValueError(
            "These words have no network that could tell what it used: they were made from arrays. Make them of images "
            "by a FeatureExtractor, or use InferenceGraph(evidence='counts')."
        )
    return words.influence


def _ask(
    words: WordMaps, structure: Hierarchy, targets: Sequence[Any], contrasts: Sequence[int | None], wanted: Wanted
) -> Question:
    n_nodes, n_against, n_steps = wanted.n_nodes, wanted.n_against, wanted.n_steps
    if not isinstance(targets[0], tuple):
        classes = np.array(targets, np.int64)
        against = None if contrasts[0] is None else np.array(contrasts, np.int64)
        return Question(ClassMargin(classes, against), classes, against, words.layers, n_nodes, n_against, n_steps)
    layer, *_ = targets[0]
    where, numbers = _places(words, targets[0])
    margin = WordMargin(layer, numbers, where, handle_of(words).mixtures[layer])
    below = structure.reached(layer)
    layers = tuple(name for name in words.layers if name in below)
    return Question(margin, None, None, layers, n_nodes or dict.fromkeys(layers, 3), n_against, n_steps)


def _places(words: WordMaps, target: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Return where each image shows the target (n, H, W), and which word that is (n,)."""
    layer, *place = target
    shown = words.words[layer].astype(np.int64)
    if len(place) == 1:
        return shown == place[0], np.full(len(shown), place[0])
    where = np.zeros(shown.shape, dtype=bool)
    where[:, place[0], place[1]] = True
    return where, shown[:, place[0], place[1]]


def _sure(words: WordMaps, layer: str, totals: np.ndarray, target: Any) -> np.ndarray:
    """Return how much each word (K,) surely did over images, of which `totals` (n, K) are the influences.

    Words of a class: their influence per location, times the number of locations that images of the class have in the
    vocabulary's statistics, which count all fitted images.  A word that few images show is believed, as if some more
    had been seen, to do what the average location does.  Else the mean over the images less its standard error, towards
    zero.
    """
    statistics = words.vocabulary.statistics.get(layer)
    if statistics is not None and not isinstance(target, tuple) and statistics.counts[:, target].any():
        shown = np.stack([np.bincount(each.ravel(), minlength=totals.shape[1]) for each in words.words[layer]])
        share = statistics.counts[:, target] / statistics.counts[:, target].sum()
        each, average = totals.sum(0) / np.maximum(shown.sum(0), 1), totals.sum() / shown.sum()
        n_images = (shown > 0).sum(0)
        trust = n_images / (n_images + _BELIEVED_IMAGES)
        return (trust * each + (1 - trust) * average) * share * words.words[layer][0].size
    mean = totals.mean(0)
    spread = totals.std(0, ddof=1) / np.sqrt(len(totals)) if len(totals) > 1 else np.zeros_like(mean)
    return np.sign(mean) * np.maximum(np.abs(mean) - spread, 0)


class _Story:
    """Means over the traces of the images that a graph explains."""

    def __init__(self, traces: list[Trace], wanted: Wanted) -> None:
        self.traces, self._wanted = traces, wanted
        self.layers = list(traces[0].totals)
        self.alone = len(traces) == 1

    def mean(self, of: Callable[[Trace], Any]) -> float:
        """Return the mean of what images have."""
        return float(np.mean([of(found) for found in self.traces]))

    def begin(self, layer: str) -> float:
        """Return the margin with the layer's mean everywhere."""
        return self.mean(lambda found: found.begins[layer])

    def words(self, layer: str) -> list[int]:
        """Return the words kept of a layer, the most influential first."""
        kept = self.traces[0].kept[layer]
        return sorted(kept, key=lambda word: -self.influence(layer, word))

    def influence(self, layer: str, word: int) -> float:
        """Return the influence of a word."""
        return self.mean(lambda found: found.totals[layer][word])

    def whole(self, layer: str, word: int) -> float:
        """Return what a word does to first order, 0 of words without a layer below."""
        return self.mean(lambda found: found.wholes.get((layer, word), 0.0))

    def word(self, layer: str, word: int) -> dict[str, Any]:
        """Return the attributes of a word that come from the traces."""
        influence = np.array([found.totals[layer][word] for found in self.traces])
        effects = [found.effects[layer, word] for found in self.traces]
        lead = self.mean(lambda found: found.margin) - self.begin(layer)
        attributes: dict[str, Any] = {
            "influence": float(influence.mean()),
            "share": float(influence.mean() / lead) if lead else 0.0,
            "effect": float(np.mean([each.effect for each in effects])),
        }
        if effects[0].probability is not None:
            attributes["probability_without"] = float(np.mean([each.probability for each in effects]))
        if self.alone and effects[0].decision is not None:
            attributes["decision_without"] = effects[0].decision
        if not self.alone:
            attributes |= self._over_images(layer, word, influence, [each.decision for each in effects])
        whole = self.whole(layer, word)
        if whole:
            attributes["background"] = self.mean(lambda found: found.backgrounds.get((layer, word), 0.0)) / whole
        return attributes

    def _over_images(
        self, layer: str, word: int, influence: np.ndarray, decisions: list[int | None]
    ) -> dict[str, float]:
        """Return the interval of the mean influence over resamples of the images, and in which share a word is kept."""
        n = len(influence)
        drawn = np.random.RandomState(self._wanted.seed).randint(n, size=(_N_RESAMPLES, n))
        low, high = np.percentile(influence[drawn].mean(1), INTERVAL)
        most = len(self.traces[0].kept[layer])
        among = [word in order(np.sign(influence.mean()) * found.totals[layer])[:most] for found in self.traces]
        found = {"low": float(low), "high": float(high), "selected": float(np.mean(among))}
        if decisions[0] is not None:
            changed = [now != was.decision for now, was in zip(decisions, self.traces, strict=True)]
            found["changed"] = float(np.mean(changed))
        return found

    def edges(self) -> dict[tuple[tuple[str, int], tuple[str, int]], dict[str, float]]:
        """Return the attributes of edges between words; images without an edge count as nothing."""
        pairs = dict.fromkeys(pair for found in self.traces for pair in found.flows)
        edges = {}
        for lower, upper in pairs:
            found = [each.flows.get((lower, upper), Flow(0.0, 0.0)) for each in self.traces]
            flow, effect = np.mean(found, axis=0).tolist()
            if is_edge(flow, effect, self.influence(*upper)):
                whole = self.whole(*upper)
                edges[lower, upper] = {"flow": flow, "share": flow / whole if whole else 0.0, "effect": effect}
        return edges


def _graph_of(words: WordMaps, structure: Hierarchy, target: Any, contrast: int | None, story: _Story) -> nx.DiGraph:
    """Return the words that traces keep, with their effects, and the flows between them."""
    graph: nx.DiGraph = nx.DiGraph(n_images=len(words), n_explained=len(story.traces), evidence="influence")
    depths = structure.depths()
    graph.graph["margin"] = story.mean(lambda found: found.margin)
    graph.graph |= {f"baseline_margin_{layer}": story.begin(layer) for layer in story.layers}
    margin = graph.graph["margin"]
    if isinstance(target, tuple):
        top, word, place = root_of(words, target)
        root = add_word(graph, words, top, word, **place, margin=margin, depth=depths[top])
        graph.graph["root"] = root
    else:
        top, graph.graph["probability"] = DECISION, story.mean(lambda found: found.probability)
        root = add_decision(graph, words, target, contrast, margin=margin, probability=graph.graph["probability"])
        if story.alone:
            _tell_outcome(graph, words, story.traces[0])
    tops = structure.below[top]
    for layer in reversed(story.layers):
        for word in story.words(layer):
            found = story.word(layer, word)
            if "decision_without" in found:
                found["class_without"] = words.spec.class_name(found["decision_without"])
            key = add_word(graph, words, layer, word, **found, depth=depths[layer])
            if layer in tops:
                graph.add_edge(key, root, flow=found["influence"], share=found["share"], effect=found["effect"])
    for (lower, upper), attributes in story.edges().items():
        graph.add_edge(words.vocabulary.key(*lower), words.vocabulary.key(*upper), **attributes)
    return graph


def _tell_outcome(graph: nx.DiGraph, words: WordMaps, found: Trace) -> None:
    """Note what the network decided for the only image, and whether the words kept are enough for that."""
    assert found.decision is not None
    assert found.runner_up is not None
    graph.graph |= {
        "decision": found.decision,
        "decision_name": words.spec.class_name(found.decision),
        "runner_up": found.runner_up,
        "runner_up_name": words.spec.class_name(found.runner_up),
        "runner_up_probability": found.runner_up_probability,
    }
    graph.graph |= {} if found.held is None else {"held": found.held}
    graph.graph |= {} if found.enough is None else {"enough": found.enough}
