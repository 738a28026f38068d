"""Selections from traces: means over the images of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..features import NetworkSpec
from ._evidence import Selection, Word
from ._hierarchy import DECISION, Hierarchy
from ._targets import Targets
from ._tracing import NOTHING, Flow, Trace, order

_INTERVAL = (2.5, 97.5)  # percentiles
_N_RESAMPLES = 200
_LEAST_EFFECT = 0.02  # share of the influence of the upper word; edges with less are not drawn


def summarise(
    traces: list[Trace], targets: Targets, structure: Hierarchy, spec: NetworkSpec, seed: int
) -> list[Selection]:
    """Return the selection of each image from its trace, or one selection of all."""
    graphs = [traces] if targets.together else [[trace] for trace in traces]
    return [
        _Summary(of_graph, spec, seed).selection((targets.layer, int(word)), structure.below[targets.layer])
        for of_graph, word in zip(graphs, targets.words, strict=False)
    ]


class _Summary:
    """Means over the traces of one graph."""

    def __init__(self, traces: list[Trace], spec: NetworkSpec, seed: int) -> None:
        self._traces, self._spec, self._seed = traces, spec, seed
        self._first, self._several = traces[0], len(traces) > 1

    def _mean(self, of: Callable[[Trace], Any]) -> float:
        return float(np.mean([of(trace) for trace in self._traces]))

    def _influence(self, word: Word) -> float:
        return self._mean(lambda trace: trace.totals[word[0]][word[1]])

    def _whole(self, word: Word) -> float:
        """Return the contribution of a word to first order, 0 of words without a layer below."""
        return self._mean(lambda trace: trace.wholes.get(word, 0.0))

    def selection(self, target: Word, tops: tuple[str, ...]) -> Selection:
        """Return the words kept with their effects, and the flows between them; `tops` explain the target."""
        margin = self._mean(lambda trace: trace.margin)
        begins = {layer: self._mean(lambda trace, layer=layer: trace.begins[layer]) for layer in self._first.totals}  # type: ignore[misc]
        made = Selection({"n_explained": len(self._traces), "margin": margin}, {"margin": margin})
        made.graph |= {f"baseline_margin_{layer}": begin for layer, begin in begins.items()}
        if target[0] == DECISION:
            made.graph["probability"] = made.root["probability"] = self._mean(lambda trace: trace.probability)
            made.graph |= {} if self._several else self._first.outcome
        for layer in reversed(list(begins)):
            kept = [(layer, word) for word in self._first.kept[layer]]
            for word in sorted(kept, key=self._influence, reverse=True):
                known = made.words[word] = self._word(word, margin - begins[layer])
                if layer in tops:
                    made.pairs[word, target] = {name: known[name] for name in ("share", "effect")}
                    made.pairs[word, target]["flow"] = known["influence"]
                    made.edges.add((word, target))
        for pair in dict.fromkeys(pair for trace in self._traces for pair in trace.flows):
            flow, whole = self._flow(pair), self._whole(pair[1])
            share = flow.flow / whole if whole else 0.0
            made.pairs[pair] = {"flow": flow.flow, "share": share, "effect": flow.effect}
            if _is_edge(flow, self._influence(pair[1])):
                made.edges.add(pair)
        return made

    def _word(self, word: Word, lead: float) -> dict[str, Any]:
        """Return the attributes of a word; `lead` is the margin less its baseline."""
        influence = np.array([trace.totals[word[0]][word[1]] for trace in self._traces])
        effect = self._first.effects[word]
        attributes: dict[str, Any] = {
            "influence": float(influence.mean()),
            "share": float(influence.mean() / lead) if lead else 0.0,
            "effect": self._mean(lambda trace: trace.effects[word].effect),
        }
        if effect.probability is not None:
            attributes["probability_without"] = self._mean(lambda trace: trace.effects[word].probability)
        if self._several:
            attributes |= self._over_images(word, influence)
        elif effect.decision is not None:
            attributes["decision_without"] = effect.decision
            attributes["class_without"] = self._spec.class_name(effect.decision)
        whole = self._whole(word)
        if whole:
            attributes["background"] = self._mean(lambda trace: trace.backgrounds.get(word, 0.0)) / whole
        return attributes

    def _over_images(self, word: Word, influence: np.ndarray) -> dict[str, float]:
        """Return the interval of the mean influence over resamples of the images, and the share that select a word."""
        n, layer = len(influence), word[0]
        drawn = np.random.RandomState(self._seed).randint(n, size=(_N_RESAMPLES, n))
        low, high = np.percentile(influence[drawn].mean(1), _INTERVAL)
        most, sign = len(self._first.kept[layer]), np.sign(influence.mean())
        selected = self._mean(lambda trace: word[1] in order(sign * trace.saliences[layer])[:most])
        attributes = {"low": float(low), "high": float(high), "selected": selected}
        if self._first.outcome:
            attributes["changed"] = self._mean(lambda trace: trace.effects[word].decision != trace.outcome["decision"])
        return attributes

    def _flow(self, pair: tuple[Word, Word]) -> Flow:
        """Return the flow between two words; of several images the mean, with 0 where it is no edge."""
        if not self._several:
            return self._first.flows[pair]
        (layer, word), flows = pair[1], []
        for trace in self._traces:
            flow = trace.flows.get(pair, Flow(0.0, 0.0))
            flows.append(flow if _is_edge(flow, trace.totals[layer][word]) else Flow(0.0, 0.0))
        return Flow(*np.mean(flows, axis=0).tolist())


def _is_edge(flow: Flow, influence: float) -> bool:
    """Return whether flow and effect agree, and matter beside the influence of the upper word."""
    return flow.flow * flow.effect > 0 and abs(flow.effect) > max(_LEAST_EFFECT * abs(influence), NOTHING)
