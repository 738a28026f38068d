"""Selections from traces: means over the images of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    traces: list[Trace], targets: Targets, structure: Hierarchy, spec: NetworkSpec, seed: int, *, together: bool
) -> list[Selection]:
    """Return the selection of each image from its trace, or one selection of all."""
    graphs = [traces] if together else [[trace] for trace in traces]
    return [
        _Summary(of_graph, spec, seed).selection((targets.layer, int(word)), structure.below[targets.layer])
        for of_graph, word in zip(graphs, targets.words, strict=False)
    ]


class _Summary:
    """Means over the traces of one graph."""

    def __init__(self, traces: list[Trace], spec: NetworkSpec, seed: int) -> None:
        self._traces, self._spec, self._seed = traces, spec, seed
        self._single = traces[0] if len(traces) == 1 else None

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
        begins = {
            layer: float(np.mean([trace.begins[layer] for trace in self._traces])) for layer in self._traces[0].totals
        }
        baselines = {f"baseline_margin_{layer}": begin for layer, begin in begins.items()}
        made = Selection({"n_explained": len(self._traces), "margin": margin, **baselines}, {"margin": margin})
        if target[0] == DECISION:
            made.graph["probability"] = made.root["probability"] = self._mean(lambda trace: trace.probability)
            made.graph |= {} if self._single is None else self._outcome(self._single)
        for layer in reversed(list(begins)):
            kept = [(layer, word) for word in self._traces[0].kept[layer]]
            for word in sorted(kept, key=self._influence, reverse=True):
                made.words[word] = self._word(word, margin - begins[layer])
                if layer in tops:
                    known = made.words[word]
                    made.pairs[word, target] = {name: known[name] for name in ("share", "effect")}
                    made.pairs[word, target]["flow"] = known["influence"]
                    made.edges.add((word, target))
        for pair, attributes, drawn in self._pairs():
            made.pairs[pair] = attributes
            made.edges |= {pair} if drawn else set()
        return made

    def _outcome(self, trace: Trace) -> dict[str, Any]:
        """Return the decision for the only image, and whether the words kept are enough for it."""
        assert trace.decision is not None
        assert trace.runner_up is not None
        known = {
            "decision": trace.decision,
            "decision_name": self._spec.class_name(trace.decision),
            "runner_up": trace.runner_up,
            "runner_up_name": self._spec.class_name(trace.runner_up),
            "runner_up_probability": trace.runner_up_probability,
            "held": trace.held,
            "enough": trace.enough,
        }
        return {name: value for name, value in known.items() if value is not None}

    def _word(self, word: Word, lead: float) -> dict[str, Any]:
        """Return the attributes of a word; `lead` is the margin less its baseline."""
        layer, number = word
        influence = np.array([trace.totals[layer][number] for trace in self._traces])
        effects = [trace.effects[word] for trace in self._traces]
        attributes: dict[str, Any] = {
            "influence": float(influence.mean()),
            "share": float(influence.mean() / lead) if lead else 0.0,
            "effect": float(np.mean([each.effect for each in effects])),
        }
        if effects[0].probability is not None:
            attributes["probability_without"] = float(np.mean([each.probability for each in effects]))
        if self._single is None:
            attributes |= self._over_images(word, influence)
        elif effects[0].decision is not None:
            attributes["decision_without"] = effects[0].decision
            attributes["class_without"] = self._spec.class_name(effects[0].decision)
        whole = self._whole(word)
        if whole:
            attributes["background"] = self._mean(lambda trace: trace.backgrounds.get(word, 0.0)) / whole
        return attributes

    def _over_images(self, word: Word, influence: np.ndarray) -> dict[str, float]:
        """Return the interval of the mean influence over resamples of the images, and how often a word is selected."""
        n, layer = len(influence), word[0]
        drawn = np.random.RandomState(self._seed).randint(n, size=(_N_RESAMPLES, n))
        low, high = np.percentile(influence[drawn].mean(1), _INTERVAL)
        most, sign = len(self._traces[0].kept[layer]), np.sign(influence.mean())
        selected = [word[1] in order(sign * trace.saliences[layer])[:most] for trace in self._traces]
        attributes = {"low": float(low), "high": float(high), "selected": float(np.mean(selected))}
        if self._traces[0].decision is not None:
            changed = [trace.effects[word].decision != trace.decision for trace in self._traces]
            attributes["changed"] = float(np.mean(changed))
        return attributes

    def _pairs(self) -> Iterator[tuple[tuple[Word, Word], dict[str, float], bool]]:
        """Yield pairs of words, their attributes, and whether they are edges.

        Of several images, those in which the pair is no edge count as nothing.
        """
        for pair in dict.fromkeys(pair for trace in self._traces for pair in trace.flows):
            flow = self._flow(pair)
            whole = self._whole(pair[1])
            attributes = {"flow": flow.flow, "share": flow.flow / whole if whole else 0.0, "effect": flow.effect}
            yield pair, attributes, _is_edge(flow, self._influence(pair[1]))

    def _flow(self, pair: tuple[Word, Word]) -> Flow:
        if self._single is not None:
            return self._single.flows[pair]
        (layer, word), flows = pair[1], [trace.flows.get(pair, Flow(0.0, 0.0)) for trace in self._traces]
        edges = [
            flow if _is_edge(flow, trace.totals[layer][word]) else Flow(0.0, 0.0)
            for flow, trace in zip(flows, self._traces, strict=True)
        ]
        return Flow(*np.mean(edges, axis=0).tolist())


def _is_edge(flow: Flow, influence: float) -> bool:
    """Return whether flow and effect agree, and matter beside the influence of the upper word."""
    return flow.flow * flow.effect > 0 and abs(flow.effect) > max(_LEAST_EFFECT * abs(influence), NOTHING)
