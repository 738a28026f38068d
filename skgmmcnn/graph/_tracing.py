"""Traces of decisions through a network: influence of words, exact effects without them, flows between layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..dictionary import Influence, Margin, WordMaps
from ..features import Rerun, attribute, proba_of, replace, runners_up
from ._evidence import NONE, Word

MOST_ENOUGH = 20  # words of a layer
NOTHING = 1e-6  # nats; smaller effects are rounding


class Effect(NamedTuple):
    """One image without a word: the fall of the margin (nats), and its probability and decision then."""

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
    probability: float | None = None  # of the target; None where the target is a word
    decision: int | None = None
    runner_up: int | None = None
    runner_up_probability: float | None = None
    totals: dict[str, np.ndarray] = field(default_factory=dict)  # the influence of each word, by layer, (K,)
    # the same relative to the number of locations, (K,)
    saliences: dict[str, np.ndarray] = field(default_factory=dict)
    begins: dict[str, float] = field(default_factory=dict)  # the margin with the layer's mean everywhere
    # the words kept, by layer, the most salient first; those that spoke against follow
    kept: dict[str, list[int]] = field(default_factory=dict)
    effects: dict[Word, Effect] = field(default_factory=dict)  # without each of these
    # from all lower words kept to the upper words kept
    flows: dict[tuple[Word, Word], Flow] = field(default_factory=dict)
    # the contribution of an upper word, to first order, and the part of it that comes from no word below
    wholes: dict[Word, float] = field(default_factory=dict)
    backgrounds: dict[Word, float] = field(default_factory=dict)
    held: bool | None = None  # whether the words kept, and nothing else, keep the decision
    # the smallest number of words of every layer that keeps it, where it was looked for and found
    enough: int | None = None


@dataclass(frozen=True)
class Question:
    """The target of n images, and the words to keep."""

    margin: Margin  # the scalar that is explained
    outputs: np.ndarray | None  # the target of each image; None where it is a word, (n,)
    contrasted: bool  # whether the margin is the lead over another output
    layers: tuple[str, ...]  # the layers below the target, in network order
    pairs: list[tuple[str, str]]  # layers between which flows are measured, from the top down
    n_steps: int  # number of segments of the integration
    n_nodes: Mapping[str, int] | None  # most words that speak for the target, by layer; None for as many as are enough
    n_against: int = 0  # most words that speak against it
    fixed: Mapping[str, list[list[int]]] | None = None  # words to keep of each image, whatever they do


def influences(words: WordMaps, handle: Influence, question: Question) -> list[Trace]:
    """Return for each image the margin and the influence of every word; nothing is taken away."""

    def work(part: Rerun) -> list[Trace]:
        return Tracer(words, handle, question, part).traces

    return [trace for traces in handle.rerun(work) for trace in traces]


def trace(words: WordMaps, handle: Influence, question: Question) -> list[Trace]:
    """Return for each image what the network used: words kept, their effects, and flows between them."""

    def work(part: Rerun) -> list[Trace]:
        tracer = Tracer(words, handle, question, part)
        tracer.choose()
        for upper, lower in question.pairs:
            tracer.connect(upper, lower)
        tracer.hold()
        return tracer.traces

    return [found for traces in handle.rerun(work) for found in traces]


class Tracer:
    """Traces the images of one batch, all at the same time: the j-th word of each is taken away in one pass."""

    def __init__(self, words: WordMaps, handle: Influence, question: Question, part: Rerun) -> None:
        self._question, self._part, self._handle = question, part, handle
        self._maps = part.original.activations
        device = next(iter(self._maps.values())).device
        self._shown = {
            layer: torch.from_numpy(words.words[layer][part.rows].astype(np.int64)).to(device)
            for layer in question.layers
        }
        self._mean = {layer: handle.baseline(layer, self._maps[layer]) for layer in question.layers}
        with torch.no_grad():
            self._margins = question.margin(part, {}).double()
        self.traces = [Trace(float(margin)) for margin in self._margins.tolist()]
        self._n_words = {layer: words.vocabulary.n_words[layer] for layer in question.layers}
        self._slopes: dict[str, Tensor] = {}
        self._describe()
        self._attribute()

    def _describe(self) -> None:
        """Note probabilities and decisions."""
        if self._question.outputs is None:
            return
        self._handle.check(self._part)
        outputs, targets = self._part.original.outputs, self._question.outputs[self._part.rows]
        seconds = zip(*(each.tolist() for each in runners_up(outputs, targets)), strict=True)
        known = zip(self.traces, proba_of(outputs, targets), self._part.original.decisions, seconds, strict=True)
        for trace, probability, decision, (second, second_probability) in known:
            trace.probability, trace.decision = float(probability), int(decision)
            trace.runner_up, trace.runner_up_probability = second, second_probability

    def _attribute(self) -> None:
        for layer in self._question.layers:
            attribution = self._handle.attribute(self._part, layer, self._question.margin, self._question.n_steps)
            self._slopes[layer] = attribution.slope
            influence = attribution.influence.flatten(1)
            totals, counts = (self._by_word(layer, values) for values in (influence, torch.ones_like(influence)))
            saliences = salience(totals, counts)
            for i, trace in enumerate(self.traces):
                trace.totals[layer], trace.saliences[layer] = totals[i], saliences[i]
                trace.begins[layer] = float(attribution.begin[i])

    def _by_word(self, layer: str, values: Tensor) -> np.ndarray:
        """Return the sums (n, K) of the values (n, H * W) of each word's locations."""
        totals = values.new_zeros(len(values), self._n_words[layer])
        return totals.scatter_add_(1, self._shown[layer].flatten(1), values).numpy(force=True)

    def choose(self) -> None:
        """Keep words of every layer, and measure what each of them does."""
        question = self._question
        if question.n_nodes is None and question.fixed is None:
            self._find_enough()
        for layer in question.layers:
            for trace in self.traces:
                trace.kept[layer] = []
            enough = question.n_nodes is None
            orders = [order((trace.totals if enough else trace.saliences)[layer]) for trace in self.traces]
            if question.fixed is not None:
                fixed = question.fixed[layer][self._part.rows]
                self._try(layer, fixed, [len(each) for each in fixed], any_sign)
            elif question.n_nodes is None:
                self._try(layer, orders, [trace.enough or MOST_ENOUGH for trace in self.traces], any_sign)
            else:
                self._try(layer, orders, [question.n_nodes[layer]] * len(orders), speaks_for)
            if question.n_against:
                reverse = [order(-trace.saliences[layer]) for trace in self.traces]
                self._try(layer, reverse, [question.n_against] * len(reverse), speaks_against)

    def _try(self, layer: str, orders: list[list[int]], limits: list[int], accepts: Callable[[float], bool]) -> None:
        """Take words away in turn, and keep the first ones of each image, up to its limit, with an accepted effect.

        Of the 2 m + 2 words that are tried none may be accepted: influence is then no more than a hint.
        """
        candidates = [each[: 2 * limit + 2] for each, limit in zip(orders, limits, strict=True)]
        n_kept = np.zeros(len(candidates), np.int64)
        for turn in range(max(map(len, candidates))):
            tried = np.full(len(candidates), NONE)
            for i, (each, limit) in enumerate(zip(candidates, limits, strict=True)):
                if n_kept[i] < limit and turn < len(each):
                    tried[i] = each[turn]
            if (tried == NONE).all():
                return
            for i, effect in self._without(layer, tried):
                if accepts(effect.effect):
                    self.traces[i].kept[layer].append(int(tried[i]))
                    self.traces[i].effects[layer, int(tried[i])] = effect
                    n_kept[i] += 1

    def _without(self, layer: str, words: np.ndarray) -> Iterator[tuple[int, Effect]]:
        """Yield what happens to each image without one of its words."""
        part, question = self._part, self._question
        edits = {layer: replace(self._at(layer, words), self._mean[layer])}
        with torch.no_grad():
            if question.outputs is None:
                margins = question.margin(part, edits).double()
                probabilities, decisions = [None] * len(words), [None] * len(words)
            else:
                run = part.run(edits)
                margins = question.margin.of_outputs(run.outputs, part.rows).double()  # type: ignore[attr-defined]
                probabilities = proba_of(run.outputs, question.outputs[part.rows]).tolist()
                decisions = run.decisions.tolist()
        falls = (self._margins - margins).tolist()
        for i in np.flatnonzero(words != NONE).tolist():
            yield i, Effect(falls[i], probabilities[i], decisions[i])

    def _at(self, layer: str, words: np.ndarray) -> Tensor:
        """Return where each image shows one word, bool (n, H, W)."""
        shown = self._shown[layer]
        return shown == torch.from_numpy(words).to(shown.device)[:, None, None]

    def connect(self, upper: str, lower: str) -> None:
        """Measure what each upper word kept gets from each lower one."""
        above, below = self.ranked(upper), self.ranked(lower)
        falls = [self._patched(upper, lower, words, above) for words in below]
        for i_upper, words in enumerate(above):
            flows, whole, rest = self.flows_into(upper, lower, words)
            for i in np.flatnonzero(words != NONE).tolist():
                s, trace = (upper, int(words[i])), self.traces[i]
                trace.wholes[s] = float(whole[i])
                trace.backgrounds[s] = trace.backgrounds.get(s, trace.wholes[s]) - float(whole[i] - rest[i])
                for lower_words, fall in zip(below, falls, strict=True):
                    t = int(lower_words[i])
                    if t != NONE:
                        trace.flows[(lower, t), s] = Flow(float(flows[i, t]), float(fall[i_upper][i]))

    def ranked(self, layer: str) -> list[np.ndarray]:
        """Return the first word kept of each image, the second one, and so on, shape (n,)."""
        most = max(len(trace.kept[layer]) for trace in self.traces)
        padded = [trace.kept[layer] + [NONE] * (most - len(trace.kept[layer])) for trace in self.traces]
        return list(np.array(padded, np.int64).reshape(len(padded), most).T)

    def _held_between(self, upper: str, lower: str) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return edits that keep the other layers between two where they are."""
        names = list(self._maps)
        between = names[names.index(lower) + 1 : names.index(upper)]
        return {layer: lambda _, layer=layer: self._maps[layer] for layer in between}  # type: ignore[misc]

    def flows_into(self, upper: str, lower: str, words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the flow (n, K) from each lower word into one upper word, the contribution of the latter (n,), and the
        rest of it without the lower layer (n,); all to first order of the slope at the image."""
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

    def hold(self) -> None:
        """Note whether the words kept are enough for the decision."""
        if self._question.outputs is None or self._question.fixed is not None:
            return
        kept = {layer: [trace.kept[layer] for trace in self.traces] for layer in self._question.layers}
        for trace, held in zip(self.traces, self._alone(kept), strict=True):
            trace.held = bool(held)

    def _alone(self, kept: Mapping[str, list[list[int]]]) -> np.ndarray:
        """Return whether images keep their decision, or the sign of a contrast, with only these words, bool (n,)."""
        part, edits = self._part, {}
        for layer, words in kept.items():
            stays = torch.zeros(len(words), self._n_words[layer], dtype=torch.bool)
            for row, of_image in zip(stays, words, strict=True):
                row[of_image] = True
            shown = self._shown[layer]
            gone = ~stays.to(shown.device).gather(1, shown.flatten(1)).view_as(shown)
            edits[layer] = replace(gone, self._mean[layer])
        with torch.no_grad():
            run = part.run(edits)
            if self._question.contrasted:
                margin = self._question.margin
                margins = margin.of_outputs(run.outputs, part.rows).double()  # type: ignore[attr-defined]
                return ((margins > 0) == (self._margins > 0)).numpy(force=True)
        return run.decisions == part.original.decisions

    def _find_enough(self) -> None:
        """Note the smallest number of words of every layer that keeps the decision, taken by influence."""
        layers = self._question.layers
        for k in range(1, MOST_ENOUGH + 1):
            if all(trace.enough is not None for trace in self.traces):
                return
            kept = {layer: [order(trace.totals[layer])[:k] for trace in self.traces] for layer in layers}
            for trace, held in zip(self.traces, self._alone(kept), strict=True):
                if held and trace.enough is None:
                    trace.enough = k


def salience(influence: np.ndarray, n_locations: np.ndarray) -> np.ndarray:
    """Return the influence of words divided by the square root of the number of their locations.

    Influences that scatter alike at every location add up to a scatter of sqrt(n): this ranks words by how far they
    stand out from it, where their influence itself prefers those that cover most of the image.  Less than one location,
    on average over images, is no reason to rank a word higher.
    """
    return influence / np.sqrt(np.maximum(n_locations, 1))


def order(ranks: np.ndarray) -> list[int]:
    """Return the words with positive ranks, the largest first; of equal ones the lower number."""
    ranked = np.argsort(-ranks, kind="stable")
    return ranked[ranks[ranked] > NOTHING].tolist()


def speaks_for(effect: float) -> bool:
    """Return whether the margin falls without a word."""
    return effect > NOTHING


def speaks_against(effect: float) -> bool:
    """Return whether the margin rises without a word."""
    return effect < -NOTHING


def any_sign(effect: float) -> bool:
    """Return True: a word is kept whatever it does."""
    return True
