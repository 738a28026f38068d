"""Evidence of influence: the words that the network used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..dictionary import ClassMargin, Influence, Margin, WordMaps, WordMargin, count_words
from ._evidence import ENOUGH, Evidence, Selection, Strength, Word
from ._hierarchy import DECISION
from ._influence_summary import summarise
from ._influence_traces import Question, Trace, order, salience, trace
from ._influence_wording import InfluenceWording
from ._targets import Targets

# Of 30 photographs a class, over five classes of SqueezeNet: with 10 more, class graphs of two such sets share 70 % of
# their words rather than 64 %, and these carry 2 % less of the influence; with 20 it is 78 %, and 4 %.
_PRIOR_IMAGES = 10


class InfluenceEvidence(Evidence):
    """Integrated gradients, and exact effects of ablating words, in nats."""

    name = "influence"
    strength = Strength(
        unit="nats",
        node="influence",
        root="margin",
        support="effect",
        edge="effect",
        total="effect",
        evidence="flow",
        part="flow",
        share="share",
        comparable_across_rows=True,
        additive=False,
    )
    wording = InfluenceWording
    uses_network = True

    def _validate(self) -> None:
        network_of(self.words)

    def select(self, targets: Targets) -> list[Selection]:
        """Return the words of largest effect on the margin, of each image or of at most `max_images` together."""
        traces = self._traces_together(targets) if targets.together else self._traces(self._question(targets))
        return summarise(traces, targets, self.hierarchy, self.words.spec, self.estimator._seed)

    def totals(self) -> np.ndarray:
        """Return the influence of every word on each image's decision, in nats."""
        traces = self._traces(self._question(Targets(DECISION, self.words.decisions)), keep=False)
        return np.stack([np.concatenate([each.totals[layer] for layer in self.words.layers]) for each in traces])

    @staticmethod
    def priority(n_nodes: Any, evidence: np.ndarray, n_locations: np.ndarray) -> np.ndarray:
        return evidence if n_nodes == ENOUGH else salience(evidence, n_locations)

    def effects(self, kept: dict[str, list[list[int]]]) -> list[dict[tuple[Word, Word], float]]:
        """Return for each image the effects of all pairs of the words `kept`, by layer, and of each on the decision."""
        question = self._question(Targets(DECISION, self.words.decisions))
        traces = self._traces(replace(question, fixed=kept, n_against=0))
        return [
            {pair: flow.effect for pair, flow in trace.flows.items()}
            | {(word, (DECISION, decision)): effect.effect for word, effect in trace.effects.items()}
            for trace, decision in zip(traces, self.words.decisions.tolist(), strict=True)
        ]

    def _traces(self, question: Question, *, keep: bool = True) -> list[Trace]:
        return trace(self.words, network_of(self.words), question, keep=keep)

    def _question(self, targets: Targets) -> Question:
        layers, estimator = self.words.layers, self.estimator
        n_nodes = None if estimator.n_nodes == ENOUGH and targets.layer == DECISION else self.n_nodes
        if targets.layer == DECISION:
            margin: Margin = ClassMargin(targets.words.astype(np.int64), targets.contrast)
        else:
            layers = tuple(layer for layer in layers if layer in self.hierarchy.descendants[targets.layer])
            mixture = network_of(self.words).mixtures[targets.layer]
            margin = WordMargin(targets.layer, targets.words, targets.where(self.words), mixture)
        below = self.hierarchy.below
        pairs = [(upper, lower) for upper in below for lower in below[upper] if {upper, lower} <= set(layers)]
        return Question(margin, layers, pairs, estimator.n_steps, n_nodes, estimator.n_against)

    def _traces_together(self, targets: Targets) -> list[Trace]:
        """Return the traces of at most `max_images` images, with the words kept whose influence is reliable."""
        part, targets = self._sampled(targets)
        question = part._question(targets)
        traces = part._traces(question, keep=False)
        fixed = {}
        for layer in question.layers:
            rank = part._reliability(layer, traces, targets)
            words = order(rank)[: self.n_nodes[layer]] + order(-rank)[: self.estimator.n_against]
            fixed[layer] = [words] * len(traces)
        return part._traces(replace(question, fixed=fixed, n_against=0))

    def _sampled(self, targets: Targets) -> tuple[InfluenceEvidence, Targets]:
        """Return the evidence and the targets of at most `max_images` images, drawn at random."""
        estimator, n_images = self.estimator, len(self.words)
        if n_images <= estimator.max_images:
            return self, targets
        permutation = np.random.RandomState(estimator._seed).permutation(n_images)
        rows = np.sort(permutation[: estimator.max_images])
        return InfluenceEvidence(estimator, self.words[rows], self.hierarchy), targets[rows]

    def _reliability(self, layer: str, traces: list[Trace], targets: Targets) -> np.ndarray:
        """Return a conservative rank (K,) of the words of a layer for many images, from the traces of n images.

        For a class, it is the influence per location times the expected number of locations in an image of the class,
        from the counts of all fitted images; salience would rank words less alike in different images of a class.  For
        a word, or a class without counts, it is the mean salience less its standard error.
        """
        statistics, output = self.words.vocabulary.statistics.get(layer), int(targets.words[0])
        if statistics is not None and targets.layer == DECISION and statistics.counts[:, output].any():
            totals = np.stack([trace.totals[layer] for trace in traces])
            frequency = statistics.counts[:, output] / statistics.counts[:, output].sum()
            return _shrunk_mean(totals, self.words.words[layer]) * frequency * self.words.words[layer][0].size
        saliences = np.stack([trace.saliences[layer] for trace in traces])
        mean = saliences.mean(0)
        error = saliences.std(0, ddof=1) / np.sqrt(len(traces)) if len(traces) > 1 else np.zeros_like(mean)
        return np.sign(mean) * np.maximum(np.abs(mean) - error, 0)


def _shrunk_mean(totals: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Return the mean influence of each word per location (K,), from totals (n, K) and word maps (n, H, W).

    It is shrunk towards the mean of all locations, as if each word occurred in `_PRIOR_IMAGES` more images.
    """
    counts = count_words(maps, totals.shape[1])
    means = totals.sum(0) / np.maximum(counts.sum(0), 1)
    n_images = (counts > 0).sum(0)
    weight = n_images / (n_images + _PRIOR_IMAGES)
    return weight * means + (1 - weight) * totals.sum() / counts.sum()


def network_of(words: WordMaps) -> Influence:
    """Return the network of words, or raise ValueError."""
    if words.influence is None:
        raise ValueError(
            "These words have no network, from which influence is measured: they were made from arrays. Make them of "
            "images by a FeatureExtractor, or use InferenceGraph(evidence='counts')."
        )
    return words.influence
