"""What a network used: words by influence, exact effects of taking them away, and flows between layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..dictionary import Influence, Margin, WordMaps
from ..features import Attribution, Rerun, attribute, proba_of, replace, runners_up
from ._hierarchy import DECISION, Hierarchy

MOST_ENOUGH = 20  # words of a layer
LEAST_EFFECT = 0.02  # share of what the upper word does; edges with less are not drawn
NOTHING = 1e-6  # nats; smaller effects are rounding

NONE = -1  # in an array of words: none


class Effect(NamedTuple):
    """What happens to one image without a word: the fall of the margin (nats), its probability and decision then."""

    effect: float
    probability: float | None
    decision: int | None


class Flow(NamedTuple):
    """What an upper word gets from a lower one: of what it does, to first order; and exactly; in nats."""

    flow: float
    effect: float


@dataclass
class Trace:
    """What the network did with one image.

    Parameters
    ----------
    margin : float
        What is explained, in nats.
    probability, decision, runner_up, runner_up_probability : float, int, int, float or None
        Of the target; None where the target is a word.
    totals : dict of str to array of shape (K,)
        The influence of each word, by layer.
    begins : dict of str to float
        The margin with the layer's mean everywhere.
    kept : dict of str to list of int
        The words kept, by layer, the most influential first; those that spoke against follow.
    effects : dict of (str, int) to Effect
        Without each of these.
    flows : dict of ((str, int), (str, int)) to Flow
        From lower words to the upper words that they explain.
    wholes, backgrounds : dict of (str, int) to float
        What an upper word does, to first order, and what of that does not come from the words of the layers below.
    held : bool or None
        Whether the words kept, and nothing else, keep the decision.
    enough : int or None
        The smallest number of words of every layer that keeps it, where that was asked for and found.
    """

    margin: float
    probability: float | None = None
    decision: int | None = None
    runner_up: int | None = None
    runner_up_probability: float | None = None
    totals: dict[str, np.ndarray] = field(default_factory=dict)
    begins: dict[str, float] = field(default_factory=dict)
    kept: dict[str, list[int]] = field(default_factory=dict)
    effects: dict[tuple[str, int], Effect] = field(default_factory=dict)
    flows: dict[tuple[tuple[str, int], tuple[str, int]], Flow] = field(default_factory=dict)
    wholes: dict[tuple[str, int], float] = field(default_factory=dict)
    backgrounds: dict[tuple[str, int], float] = field(default_factory=dict)
    held: bool | None = None
    enough: int | None = None


@dataclass(frozen=True)
class Question:
    """What is traced.

    Parameters
    ----------
    margin : Margin
        What is explained.
    classes : int array of shape (n,) or None
        The target of each image; None where it is a word.
    contrasts : int array of shape (n,) or None
        What it is contrasted with.
    layers : tuple of str
        The layers below the target, in network order.
    n_nodes : dict of str to int, or None
        Most words that speak for the target, by layer; None for as many as are enough.
    n_against : int
        Most words that speak against it.
    n_steps : int
        Of the integration.
    fixed : dict of str to list of int or None
        Words to keep of all images, whatever they do.
    """

    margin: Margin
    classes: np.ndarray | None
    contrasts: np.ndarray | None
    layers: tuple[str, ...]
    n_nodes: Mapping[str, int] | None
    n_against: int
    n_steps: int
    fixed: Mapping[str, list[int]] | None = None


def influences(words: WordMaps, handle: Influence, asked: Question) -> list[Trace]:
    """Return for each image the margin and the influence of every word; nothing is taken away."""

    def work(part: Rerun) -> list[Trace]:
        return Tracer(words, handle, asked, part).traces

    return [trace for traces in handle.rerun(work) for trace in traces]


def trace(words: WordMaps, structure: Hierarchy, handle: Influence, asked: Question) -> list[Trace]:
    """Return for each image what the network used: words kept, their effects, and flows between them."""

    def work(part: Rerun) -> list[Trace]:
        tracer = Tracer(words, handle, asked, part)
        tracer.choose()
        for upper, lowers in structure.below.items():
            for lower in lowers:
                if upper != DECISION and {upper, lower} <= set(asked.layers):
                    tracer.connect(upper, lower)
        tracer.hold()
        return tracer.traces

    return [found for traces in handle.rerun(work) for found in traces]


class Tracer:
    """Traces the images of one batch, all at the same time: the j-th word of each is taken away in one pass."""

    def __init__(self, words: WordMaps, handle: Influence, asked: Question, part: Rerun) -> None:
        self._asked, self._part, self._handle = asked, part, handle
        self._maps = part.original.activations
        device = next(iter(self._maps.values())).device
        self._shown = {
            layer: torch.from_numpy(words.words[layer][part.rows].astype(np.int64)).to(device) for layer in asked.layers
        }
        self._mean = {layer: handle.baseline(layer, self._maps[layer]) for layer in asked.layers}
        with torch.no_grad():
            self._margins = asked.margin(part, {}).double()
        self.traces = [Trace(float(margin)) for margin in self._margins.tolist()]
        self._n_words = {layer: words.vocabulary.n_words[layer] for layer in asked.layers}
        self._slopes: dict[str, Tensor] = {}
        self._describe()
        self._attribute()

    def _describe(self) -> None:
        """Note probabilities and decisions."""
        if self._asked.classes is None:
            return
        self._handle.check(self._part)
        outputs, classes = self._part.original.outputs, self._asked.classes[self._part.rows]
        seconds = zip(*(each.tolist() for each in runners_up(outputs, classes)), strict=True)
        known = zip(self.traces, proba_of(outputs, classes), self._part.original.decisions, seconds, strict=True)
        for found, probability, decision, (second, second_probability) in known:
            found.probability, found.decision = float(probability), int(decision)
            found.runner_up, found.runner_up_probability = second, second_probability

    def _attribute(self) -> None:
        for layer in self._asked.layers:
            attribution = self._handle.attribute(self._part, layer, self._asked.margin, self._asked.n_steps)
            self._slopes[layer] = attribution.slope
            totals = self._by_word(layer, attribution)
            for i, found in enumerate(self.traces):
                found.totals[layer] = totals[i]
                found.begins[layer] = float(attribution.begin[i])

    def _by_word(self, layer: str, attribution: Attribution) -> np.ndarray:
        """Return the influence of each word, shape (n, K)."""
        influence = attribution.influence.flatten(1)
        totals = influence.new_zeros(len(influence), self._n_words[layer])
        return totals.scatter_add_(1, self._shown[layer].flatten(1), influence).numpy(force=True)

    def choose(self) -> None:
        """Keep words of every layer, and measure what each of them does."""
        asked = self._asked
        if asked.n_nodes is None and asked.fixed is None:
            self._find_enough()
        for layer in asked.layers:
            for found in self.traces:
                found.kept[layer] = []
            if asked.fixed is not None:
                self._try(layer, [list(asked.fixed[layer])] * len(self.traces), len(asked.fixed[layer]), any_sign)
                continue
            orders = [order(found.totals[layer]) for found in self.traces]
            if asked.n_nodes is None:
                most = [found.enough or MOST_ENOUGH for found in self.traces]
                self._try(layer, orders, most, any_sign)
            else:
                self._try(layer, orders, asked.n_nodes[layer], speaks_for)
            if asked.n_against:
                reverse = [order(-found.totals[layer]) for found in self.traces]
                self._try(layer, reverse, asked.n_against, speaks_against)

    def _try(self, layer: str, orders: list[list[int]], most: int | list[int], wanted: Callable[[float], bool]) -> None:
        """Take words away in turn, and keep the first `most` of each image whose effect is as `wanted`.

        Of 2 m + 2 words that are tried none may be wanted: influence is then no more than a hint.
        """
        limits = [most] * len(self.traces) if isinstance(most, int) else most
        n_kept = [0] * len(self.traces)
        for turn in range(max((min(len(each), 2 * limit + 2) for each, limit in zip(orders, limits, strict=True)))):
            tried = np.full(len(self.traces), NONE)
            for i, (each, limit) in enumerate(zip(orders, limits, strict=True)):
                if n_kept[i] < limit and turn < min(len(each), 2 * limit + 2):
                    tried[i] = each[turn]
            if (tried == NONE).all():
                return
            for i, effect in self.without(layer, tried):
                if wanted(effect.effect):
                    self.traces[i].kept[layer].append(int(tried[i]))
                    self.traces[i].effects[layer, int(tried[i])] = effect
                    n_kept[i] += 1

    def without(self, layer: str, words: np.ndarray) -> Iterator[tuple[int, Effect]]:
        """Yield what happens to each image without one of its words."""
        part, asked = self._part, self._asked
        edits = {layer: replace(self._at(layer, words), self._mean[layer])}
        with torch.no_grad():
            if asked.classes is None:
                margins = asked.margin(part, edits).double()
                probabilities, decisions = [None] * len(words), [None] * len(words)
            else:
                run = part.run(edits)
                margins = asked.margin.of_outputs(run.outputs, part.rows).double()  # type: ignore[attr-defined]
                probabilities = proba_of(run.outputs, asked.classes[part.rows]).tolist()
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
        falls = [self.patched(upper, lower, words, above) for words in below]
        for i_upper, words in enumerate(above):
            flows, all_of_it, rest = self.flows_into(upper, lower, words)
            for i in np.flatnonzero(words != NONE).tolist():
                s, found = (upper, int(words[i])), self.traces[i]
                found.wholes[s] = float(all_of_it[i])
                found.backgrounds[s] = found.backgrounds.get(s, found.wholes[s]) - float(all_of_it[i] - rest[i])
                for lower_words, fall in zip(below, falls, strict=True):
                    t = int(lower_words[i])
                    flow, effect = float(flows[i, t]), float(fall[i_upper][i])
                    if t != NONE and is_edge(flow, effect, found.totals[upper][s[1]]):
                        found.flows[(lower, t), s] = Flow(flow, effect)

    def ranked(self, layer: str) -> list[np.ndarray]:
        """Return the first word kept of each image, the second one, and so on, shape (n,)."""
        most = max(len(found.kept[layer]) for found in self.traces)
        padded = [found.kept[layer] + [NONE] * (most - len(found.kept[layer])) for found in self.traces]
        return list(np.array(padded, np.int64).reshape(len(padded), most).T)

    def _held_between(self, upper: str, lower: str) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return edits that keep the other layers between two where they are."""
        names = list(self._maps)
        between = names[names.index(lower) + 1 : names.index(upper)]
        return {layer: lambda _, layer=layer: self._maps[layer] for layer in between}  # type: ignore[misc]

    def flows_into(self, upper: str, lower: str, words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the flow (n, K) from each lower word into one upper word, what that does, and what of it remains
        without the lower layer, (n,); all to first order of the slope at the image."""
        held, slope = self._held_between(upper, lower), self._slopes[upper] * self._at(upper, words)[:, None]

        def into(changed: Tensor) -> Tensor:
            reached = self._part.map_of(upper, {lower: lambda _: changed, **held})
            return ((reached - self._mean[upper]) * slope).sum((1, 2, 3))

        found = attribute(into, self._maps[lower], self._mean[lower], self._asked.n_steps)
        return self._by_word(lower, found), found.end.numpy(force=True), found.begin.numpy(force=True)

    def patched(self, upper: str, lower: str, words: np.ndarray, above: list[np.ndarray]) -> list[np.ndarray]:
        """Return for each upper word the fall of the margin when only what it gets of a lower word is taken away."""
        held = self._held_between(upper, lower)
        with torch.no_grad():
            without = replace(self._at(lower, words), self._mean[lower])
            patch = self._part.map_of(upper, {lower: without, **held})
            runs = [self._asked.margin(self._part, {upper: replace(self._at(upper, s), patch)}).double() for s in above]
        return [(self._margins - margins).numpy(force=True) for margins in runs]

    def hold(self) -> None:
        """Note whether the words kept are enough for the decision."""
        if self._asked.classes is None or self._asked.fixed is not None:
            return
        kept = {layer: [found.kept[layer] for found in self.traces] for layer in self._asked.layers}
        for found, held in zip(self.traces, self._alone(kept), strict=True):
            found.held = bool(held)

    def _alone(self, kept: Mapping[str, list[list[int]]]) -> np.ndarray:
        """Return whether images keep their decision, or the sign of a contrast, with these words alone, bool (n,)."""
        part, asked, edits = self._part, self._asked, {}
        assert asked.classes is not None
        for layer, words in kept.items():
            stays = torch.zeros(len(words), self._n_words[layer], dtype=torch.bool)
            for row, of_image in zip(stays, words, strict=True):
                row[of_image] = True
            shown = self._shown[layer]
            gone = ~stays.to(shown.device).gather(1, shown.flatten(1)).view_as(shown)
            edits[layer] = replace(gone, self._mean[layer])
        with torch.no_grad():
            run = part.run(edits)
            if asked.contrasts is not None:
                margins = asked.margin.of_outputs(run.outputs, part.rows).double()  # type: ignore[attr-defined]
                return ((margins > 0) == (self._margins > 0)).numpy(force=True)
        return run.decisions == part.original.decisions

    def _find_enough(self) -> None:
        """Note the smallest number of words of every layer that keeps the decision, taken by influence."""
        for k in range(1, MOST_ENOUGH + 1):
            if all(found.enough is not None for found in self.traces):
                return
            kept = {layer: [order(found.totals[layer])[:k] for found in self.traces] for layer in self._asked.layers}
            for found, held in zip(self.traces, self._alone(kept), strict=True):
                if held and found.enough is None:
                    found.enough = k


def order(totals: np.ndarray) -> list[int]:
    """Return the words with positive influence, the most influential first; of equal ones the lower number."""
    ranked = np.argsort(-totals, kind="stable")
    return ranked[totals[ranked] > NOTHING].tolist()


def speaks_for(effect: float) -> bool:
    """Tell whether the margin falls without a word."""
    return effect > NOTHING


def speaks_against(effect: float) -> bool:
    """Tell whether the margin rises without a word."""
    return effect < -NOTHING


def any_sign(effect: float) -> bool:
    """Tell that a word is kept whatever it does."""
    return True


def is_edge(flow: float, effect: float, influence: float) -> bool:
    """Tell whether there is evidence of an edge: flow and effect agree, and matter for what the upper word does."""
    return flow * effect > 0 and abs(effect) > LEAST_EFFECT * abs(influence) and abs(effect) > NOTHING
