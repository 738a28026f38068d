"""Traces of decisions through a network: influence of words, exact effects without them, flows between layers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..dictionary import ClassMargin, Influence, Margin, WordMaps
from ..features import Rerun, attribute, proba_of, replace, runners_up
from ._evidence import NONE, Word

MOST_ENOUGH = 20  # words of a layer
NOTHING = 1e-6  # nats; smaller effects are rounding


class Effect(NamedTuple):
    """Ablation of a word in one image: the fall of the margin (nats), then the target's probability, the decision."""

    effect: float
    probability: float | None
    decision: int | None


class Flow(NamedTuple):
    """Contribution of a lower word to an upper one, in nats: to first order, and exactly."""

    flow: float
    effect: float


@dataclass
class Trace:
    """Measurements of one image."""

    margin: float  # the scalar that is explained, in nats
    probability: float | None = None  # of the target; None if it is a word
    # decision and runner-up, whether the words kept alone keep the decision, and the smallest number that does, if
    # sought and at most 20: attributes of a graph; nothing if the target is a word
    outcome: dict[str, Any] = field(default_factory=dict)
    totals: dict[str, np.ndarray] = field(default_factory=dict)  # the influence of each word, by layer, (K,)
    saliences: dict[str, np.ndarray] = field(default_factory=dict)  # by layer, (K,)
    baseline_margins: dict[str, float] = field(default_factory=dict)  # the margin with the layer's mean everywhere
    # the words kept, by layer, the most salient first; those against the target follow
    kept: dict[str, list[int]] = field(default_factory=dict)
    effects: dict[Word, Effect] = field(default_factory=dict)  # of ablating each of these
    flows: dict[tuple[Word, Word], Flow] = field(default_factory=dict)  # from all lower to all upper words kept
    # the contribution of an upper word, to first order, and the part of it that comes from no word below
    contributions: dict[Word, float] = field(default_factory=dict)
    backgrounds: dict[Word, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """The target of n images, and the words to keep."""

    margin: Margin  # the scalar that is explained
    layers: tuple[str, ...]  # the layers below the target, in network order
    pairs: list[tuple[str, str]]  # layers between which flows are measured, from the top down
    n_steps: int  # number of segments of the integration
    n_nodes: Mapping[str, int] | None  # most words for the target, by layer; None for as many as are enough
    n_against: int = 0  # most words against it
    fixed: Mapping[str, list[list[int]]] | None = None  # words to keep of each image, of any effect


def trace(words: WordMaps, handle: Influence, question: Question, *, keep: bool = True) -> list[Trace]:
    """Return the traces of n images: the influence of all words and, with `keep`, effects and flows of those kept."""

    def run(part: Rerun) -> list[Trace]:
        tracer = Tracer(words, handle, question, part)
        if keep:
            tracer.measure_kept_words()
        return tracer.traces

    return [trace for traces in handle.rerun(run) for trace in traces]


class Tracer:
    """Traces of one batch of images, measured at the same time: the j-th word of each is ablated in one pass."""

    def __init__(self, words: WordMaps, handle: Influence, question: Question, part: Rerun) -> None:
        self._question, self._part, self._handle, self._spec = question, part, handle, words.spec
        self._maps = part.original.activations
        device = next(iter(self._maps.values())).device
        self._word_maps = {
            layer: torch.from_numpy(words.words[layer][part.rows].astype(np.int64)).to(device)
            for layer in question.layers
        }
        self._mean = {layer: handle.baseline(layer, self._maps[layer]) for layer in question.layers}
        self._n_words = {layer: words.vocabulary.n_words[layer] for layer in question.layers}
        self._slopes: dict[str, Tensor] = {}
        with torch.no_grad():
            self._margins = question.margin(part, {}).double()
        self.traces = [Trace(margin) for margin in self._margins.tolist()]
        if isinstance(question.margin, ClassMargin):
            self._describe(question.margin.classes[part.rows])
        for layer in question.layers:
            self._attribute(layer)

    def _describe(self, targets: np.ndarray) -> None:
        """Record probabilities and decisions."""
        self._handle.check(self._part)
        outputs, decisions = self._part.original.outputs, self._part.original.decisions
        probabilities, (seconds, second_probabilities) = proba_of(outputs, targets), runners_up(outputs, targets)
        for i, trace in enumerate(self.traces):
            trace.probability = float(probabilities[i])
            for name, numbers in (("decision", decisions), ("runner_up", seconds)):
                output = int(numbers[i])
                trace.outcome |= {name: output, f"{name}_name": self._spec.class_name(output)}
            trace.outcome["runner_up_probability"] = float(second_probabilities[i])

    def _attribute(self, layer: str) -> None:
        """Record the influence of each word of a layer."""
        attribution = self._handle.attribute(self._part, layer, self._question.margin, self._question.n_steps)
        self._slopes[layer] = attribution.slope
        influence = attribution.influence.flatten(1)
        totals, counts = (self._by_word(layer, values) for values in (influence, torch.ones_like(influence)))
        baseline_margins = attribution.begin.tolist()
        for trace, *values in zip(self.traces, totals, salience(totals, counts), baseline_margins, strict=True):
            trace.totals[layer], trace.saliences[layer], trace.baseline_margins[layer] = values

    def _by_word(self, layer: str, values: Tensor) -> np.ndarray:
        """Return the sums (n, K) of the values (n, H * W) of each word's locations."""
        totals = values.new_zeros(len(values), self._n_words[layer])
        return totals.scatter_add_(1, self._word_maps[layer].flatten(1), values).numpy(force=True)

    def measure_kept_words(self) -> None:
        """Choose the words to keep, and measure their effects, their flows, and whether they are sufficient."""
        self._choose()
        for upper, lower in self._question.pairs:
            self._connect(upper, lower)
        self._record_sufficiency()

    def _choose(self) -> None:
        """Keep words of every layer, and measure the effect of each of them."""
        question, fixed = self._question, None
        if question.fixed is not None:
            fixed = {layer: words[self._part.rows] for layer, words in question.fixed.items()}
        elif question.n_nodes is None:
            fixed = self._enough()
        for layer in question.layers:
            for trace in self.traces:
                trace.kept[layer] = []
            if fixed is not None:
                self._try(layer, fixed[layer], max(map(len, fixed[layer])), 0)
            elif question.n_nodes is not None:
                self._try(layer, [order(trace.saliences[layer]) for trace in self.traces], question.n_nodes[layer], 1)
            if question.n_against:
                self._try(layer, [order(-trace.saliences[layer]) for trace in self.traces], question.n_against, -1)

    def _try(self, layer: str, ranked: list[list[int]], limit: int, sign: int) -> None:
        """Ablate words in turn, and keep the first `limit` of each image with an effect of this sign; 0 is any.

        At most 2 m + 2 words are ablated, of which none may be kept: influence only approximates effects.
        """
        candidates = [words[: 2 * limit + 2] for words in ranked]
        n_kept = [0] * len(ranked)
        for turn in range(max(map(len, candidates))):
            ablated = [
                words[turn] if n < limit and turn < len(words) else NONE
                for n, words in zip(n_kept, candidates, strict=True)
            ]
            for i, effect in self._without(layer, ablated):
                if sign == 0 or sign * effect.effect > NOTHING:
                    self.traces[i].kept[layer].append(ablated[i])
                    self.traces[i].effects[layer, ablated[i]] = effect
                    n_kept[i] += 1

    def _without(self, layer: str, words: list[int]) -> Iterator[tuple[int, Effect]]:
        """Yield the effect of ablating one word of each image; images without one are left out."""
        images = [i for i, word in enumerate(words) if word != NONE]
        if images:
            margins, probabilities, decisions = self._run(
                {layer: replace(self._at(layer, np.array(words)), self._mean[layer])}
            )
            falls = (self._margins - margins).tolist()
            for i in images:
                yield i, Effect(falls[i], probabilities[i], decisions[i])

    def _run(self, edits: Mapping[str, Callable[[Tensor], Tensor]]) -> tuple[Tensor, list[Any], list[Any]]:
        """Return margins with edited layers, and probabilities and decisions unless the target is a word."""
        part, margin = self._part, self._question.margin
        with torch.no_grad():
            if not isinstance(margin, ClassMargin):
                return margin(part, edits).double(), [None] * len(self.traces), [None] * len(self.traces)
            run = part.run(edits)
            probabilities = proba_of(run.outputs, margin.classes[part.rows]).tolist()
            return margin.of_outputs(run.outputs, part.rows).double(), probabilities, run.decisions.tolist()

    def _at(self, layer: str, words: np.ndarray) -> Tensor:
        """Return the locations of one word of each image, bool (n, H, W)."""
        maps = self._word_maps[layer]
        return maps == torch.from_numpy(words).to(maps.device)[:, None, None]

    def _connect(self, upper: str, lower: str) -> None:
        """Measure the flow from each lower word kept to each upper one."""
        above, below = self.ranked(upper), self.ranked(lower)
        falls = [self._patched(upper, lower, words, above) for words in below]
        for i_upper, words in enumerate(above):
            flows, whole, rest = self.flows_into(upper, lower, words)
            for i in np.flatnonzero(words != NONE).tolist():
                s, trace = (upper, int(words[i])), self.traces[i]
                trace.contributions[s] = float(whole[i])
                trace.backgrounds[s] = trace.backgrounds.get(s, trace.contributions[s]) - float(whole[i] - rest[i])
                for lower_words, fall in zip(below, falls, strict=True):
                    t = int(lower_words[i])
                    if t != NONE:
                        trace.flows[(lower, t), s] = Flow(float(flows[i, t]), float(fall[i_upper][i]))

    def ranked(self, layer: str) -> list[np.ndarray]:
        """Return the first word kept of each image, the second one, and so on, shape (n,)."""
        kept = [trace.kept[layer] for trace in self.traces]
        return [np.array(words, np.int64) for words in itertools.zip_longest(*kept, fillvalue=NONE)]

    def _held_between(self, upper: str, lower: str) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return edits that keep the layers between two as they are."""
        names = list(self._maps)
        between = names[names.index(lower) + 1 : names.index(upper)]
        return {layer: lambda _, layer=layer: self._maps[layer] for layer in between}  # type: ignore[misc]

    def flows_into(self, upper: str, lower: str, words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the flows (n, K) into one upper word of each image, and its contributions with and without them (n,).

        All are to first order of the slope at the image.
        """
        held, slope = self._held_between(upper, lower), self._slopes[upper] * self._at(upper, words)[:, None]

        def into(changed: Tensor) -> Tensor:
            reached = self._part.map_of(upper, {lower: lambda _: changed, **held})
            return ((reached - self._mean[upper]) * slope).sum((1, 2, 3))

        attribution = attribute(into, self._maps[lower], self._mean[lower], self._question.n_steps)
        totals = self._by_word(lower, attribution.influence.flatten(1))
        return totals, attribution.end.numpy(force=True), attribution.begin.numpy(force=True)

    def _patched(self, upper: str, lower: str, words: np.ndarray, above: list[np.ndarray]) -> list[np.ndarray]:
        """Return for each upper word the fall of the margin without the contribution of one lower word."""
        held = self._held_between(upper, lower)
        with torch.no_grad():
            without = replace(self._at(lower, words), self._mean[lower])
            patch = self._part.map_of(upper, {lower: without, **held})
            edits = [{upper: replace(self._at(upper, s), patch)} for s in above]
            margins = [self._question.margin(self._part, edit).double() for edit in edits]
        return [(self._margins - each).numpy(force=True) for each in margins]

    def _record_sufficiency(self) -> None:
        """Record whether the words kept are sufficient for the decision."""
        if isinstance(self._question.margin, ClassMargin) and self._question.fixed is None:
            kept = {layer: [trace.kept[layer] for trace in self.traces] for layer in self._question.layers}
            for trace, held in zip(self.traces, self._alone(kept), strict=True):
                trace.outcome["held"] = bool(held)

    def _alone(self, kept: Mapping[str, list[list[int]]]) -> np.ndarray:
        """Return whether images keep their decision, or the sign of a contrast, with only these words, bool (n,)."""
        edits = {}
        for layer, words in kept.items():
            is_kept = torch.zeros(len(words), self._n_words[layer], dtype=torch.bool)
            for row, of_image in zip(is_kept, words, strict=True):
                row[of_image] = True
            maps = self._word_maps[layer]
            is_removed = ~is_kept.to(maps.device).gather(1, maps.flatten(1)).view_as(maps)
            edits[layer] = replace(is_removed, self._mean[layer])
        (margins, _, decisions), margin = self._run(edits), self._question.margin
        if isinstance(margin, ClassMargin) and margin.contrasts is not None:
            return ((margins > 0) == (self._margins > 0)).numpy(force=True)
        return np.equal(decisions, self._part.original.decisions)

    def _enough(self) -> dict[str, list[list[int]]]:
        """Return by layer the fewest words of each image, by influence, that keep the decision; record the number."""
        ranked = {layer: [order(trace.totals[layer]) for trace in self.traces] for layer in self._question.layers}
        for k in range(1, MOST_ENOUGH + 1):
            if all("enough" in trace.outcome for trace in self.traces):
                break
            kept = {layer: [words[:k] for words in each] for layer, each in ranked.items()}
            for trace, held in zip(self.traces, self._alone(kept), strict=True):
                if held:
                    trace.outcome.setdefault("enough", k)
        numbers = [trace.outcome.get("enough", MOST_ENOUGH) for trace in self.traces]
        return {layer: [words[:n] for words, n in zip(each, numbers, strict=True)] for layer, each in ranked.items()}


def salience(influence: np.ndarray, n_locations: np.ndarray) -> np.ndarray:
    """Return the influence of words divided by the square root of the number of their locations, at least 1.

    Influences that scatter alike at every location add up to a scatter of sqrt(n), from which salient words stand out;
    influence itself prefers words that cover most of the image.
    """
    return influence / np.sqrt(np.maximum(n_locations, 1))


def order(ranks: np.ndarray) -> list[int]:
    """Return the words with positive ranks, the largest first; of equal ones the lower number."""
    ranked = np.argsort(-ranks, kind="stable")
    return ranked[ranks[ranked] > NOTHING].tolist()
