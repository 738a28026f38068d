"""Evidence of influence: the words that the network used."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..dictionary import ClassMargin, Influence, Margin, WordMaps, WordMargin
from ._evidence import Evidence, Selection, Strength, Word
from ._hierarchy import DECISION
from ._influence_wording import InfluenceWording
from ._summary import summarise
from ._targets import Targets
from ._tracing import Question, Trace, order, salience, trace

if TYPE_CHECKING:
    from ._inference_graph import InferenceGraph

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
        compared="flow",
        part="flow",
        share="share",
        comparable=True,
        additive=False,
    )
    wording = InfluenceWording
    uses_network = True

    @staticmethod
    def check(estimator: InferenceGraph, words: WordMaps) -> None:
        """Refuse words without a network."""
        network_of(words)

    def select(self, targets: Targets) -> list[Selection]:
        """Return the words without which the margin falls most, of each image or of at most `max_images` together."""
        traces = self._traces_together(targets) if targets.together else self._traces(self._question(targets))
        return summarise(traces, targets, self.structure, self.words.spec, self.estimator._seed)

    def totals(self) -> np.ndarray:
        """Return the influence of every word on each image's decision, in nats."""
        traces = self._traces(self._question(Targets(DECISION, self.words.decisions)), keep=False)
        return np.stack([np.concatenate([each.totals[layer] for layer in self.words.layers]) for each in traces])

    def priority(self, evidence: np.ndarray, n_locations: np.ndarray) -> np.ndarray:
        return evidence if self.estimator.n_nodes == "enough" else salience(evidence, n_locations)

    def effects(self, kept: dict[str, list[list[int]]]) -> list[dict[tuple[Word, Word], float]]:
        """Return for each image the effects of all pairs of given words, by layer, and of these on the decision."""
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
        n_nodes = None if estimator.n_nodes == "enough" and targets.layer == DECISION else self.n_nodes
        if targets.layer == DECISION:
            margin: Margin = ClassMargin(targets.words.astype(np.int64), targets.contrast)
        else:
            layers = tuple(layer for layer in layers if layer in self.structure.reached[targets.layer])
            mixture = network_of(self.words).mixtures[targets.layer]
            margin = WordMargin(targets.layer, targets.words, targets.where(self.words), mixture)
        below = self.structure.below
        pairs = [(upper, lower) for upper in below for lower in below[upper] if {upper, lower} <= set(layers)]
        return Question(margin, layers, pairs, estimator.n_steps, n_nodes, estimator.n_against)

    def _traces_together(self, targets: Targets) -> list[Trace]:
        """Return the traces of at most `max_images` images, with the words kept of which influence is reliable."""
        chosen, estimator = self, self.estimator
        if len(self.words) > estimator.max_images:
            drawn = np.random.RandomState(estimator._seed).permutation(len(self.words))[: estimator.max_images]
            rows = np.sort(drawn)
            chosen = InfluenceEvidence(estimator, self.words[rows], self.structure, self.n_nodes)
            contrast = None if targets.contrast is None else targets.contrast[rows]
            targets = replace(targets, words=targets.words[rows], contrast=contrast)
        question = chosen._question(targets)
        traces, fixed = chosen._traces(question, keep=False), {}
        for layer in question.layers:
            reliable = chosen._reliable(layer, traces, targets)
            kept = order(reliable)[: self.n_nodes[layer]] + order(-reliable)[: estimator.n_against]
            fixed[layer] = [kept] * len(traces)
        return chosen._traces(replace(question, fixed=fixed, n_against=0))

    def _reliable(self, layer: str, traces: list[Trace], targets: Targets) -> np.ndarray:
        """Return a cautious rank (K,) of each word in many images, from traces of n images.

        Words of a class: their influence per location, times the expected number of locations in an image of the class,
        from the counts of all fitted images.  The influence per location of a word that few images show is shrunk
        towards that of the average location, as if it had been seen in some more.  Salience would rank them less alike
        in different images of a class.  Else the mean salience over the images less its standard error, towards zero.
        """
        statistics = self.words.vocabulary.statistics.get(layer)
        output = int(targets.words[0])
        if statistics is not None and targets.layer == DECISION and statistics.counts[:, output].any():
            totals, images = np.stack([each.totals[layer] for each in traces]), self.words.words[layer]
            shown = np.stack([np.bincount(each.ravel(), minlength=totals.shape[1]) for each in images])
            expected = statistics.counts[:, output] / statistics.counts[:, output].sum() * images[0].size
            each, average = totals.sum(0) / np.maximum(shown.sum(0), 1), totals.sum() / shown.sum()
            n_images = (shown > 0).sum(0)
            trust = n_images / (n_images + _PRIOR_IMAGES)
            return (trust * each + (1 - trust) * average) * expected
        saliences = np.stack([each.saliences[layer] for each in traces])
        mean = saliences.mean(0)
        error = saliences.std(0, ddof=1) / np.sqrt(len(traces)) if len(traces) > 1 else np.zeros_like(mean)
        return np.sign(mean) * np.maximum(np.abs(mean) - error, 0)


def network_of(words: WordMaps) -> Influence:
    """Return the network behind words; the error names the remedy if there is none."""
    if words.influence is None:
        raise ValueError(
            "These words have no network, from which influence is measured: they were made from arrays. Make them of "
            "images by a FeatureExtractor, or use InferenceGraph(evidence='counts')."
        )
    return words.influence
