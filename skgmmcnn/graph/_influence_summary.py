"""Selections from traces: means over the images of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..features import NetworkSpec
from ._evidence import Selection, Word
from ._hierarchy import DECISION, Hierarchy
from ._influence_traces import NOTHING, Flow, Trace, order
from ._targets import Targets

_INTERVAL = (2.5, 97.5)  # percentiles
_N_RESAMPLES = 200
_LEAST_EFFECT = 0.02  # share of the influence of the upper word; edges with less are not drawn


def summarise(
    traces: list[Trace], targets: Targets, hierarchy: Hierarchy, spec: NetworkSpec, seed: int
) -> list[Selection]:
    """Return the selection of each image from its trace, or one selection of all images."""
    groups = [traces] if targets.together else [[trace] for trace in traces]
    return [
        _Summary(group, spec, seed).selection((targets.layer, int(word)), hierarchy.below[targets.layer])
        for group, word in zip(groups, targets.words, strict=False)
    ]


class _Summary:
    """Means over the traces of the images of one graph."""

    def __init__(self, traces: list[Trace], spec: NetworkSpec, seed: int) -> None:
        self._traces, self._spec, self._seed = traces, spec, seed
        self._first, self._several = traces[0], len(traces) > 1

    def selection(self, target: Word, tops: tuple[str, ...]) -> Selection:
        """Return the words kept, their effects and the flows between them; the layers `tops` explain the target."""
        margin = self._mean(lambda trace: trace.margin)
        selection = Selection({"n_explained": len(self._traces), "margin": margin}, {"margin": margin})
        baselines = self._baseline_margins()
        selection.graph |= {f"baseline_margin_{layer}": baseline for layer, baseline in baselines.items()}
        if target[0] == DECISION:
            probability = self._mean(lambda trace: trace.probability)
            selection.graph["probability"] = selection.root["probability"] = probability
            if not self._several:
                selection.graph |= self._first.outcome
        for layer in reversed(self._first.totals):
            words = [(layer, word) for word in self._first.kept[layer]]
            for word in sorted(words, key=self._influence, reverse=True):
                selection.words[word] = self._word(word, margin - baselines[layer])
                if layer in tops:
                    self._add_edge_to_target(selection, word, target)
        for pair in dict.fromkeys(pair for trace in self._traces for pair in trace.flows):
            self._add_pair(selection, pair)
        return selection

    def _mean(self, value: Callable[[Trace], Any]) -> float:
        return float(np.mean([value(trace) for trace in self._traces]))

    def _baseline_margins(self) -> dict[str, float]:
        by_layer = {layer: [trace.baseline_margins[layer] for trace in self._traces] for layer in self._first.totals}
        return {layer: float(np.mean(margins)) for layer, margins in by_layer.items()}

    def _influence(self, word: Word) -> float:
        layer, number = word
        return self._mean(lambda trace: trace.totals[layer][number])

    def _contribution(self, word: Word) -> float:
        """Return the contribution of a word to first order, 0 for words without a layer below."""
        return self._mean(lambda trace: trace.contributions.get(word, 0.0))

    @staticmethod
    def _add_edge_to_target(selection: Selection, word: Word, target: Word) -> None:
        attributes = selection.words[word]
        names = {"share": "share", "effect": "effect", "flow": "influence"}
        selection.pairs[word, target] = {name: attributes[source] for name, source in names.items()}
        selection.edges.add((word, target))

    def _add_pair(self, selection: Selection, pair: tuple[Word, Word]) -> None:
        flow, whole = self._flow(pair), self._contribution(pair[1])
        share = flow.flow / whole if whole else 0.0
        selection.pairs[pair] = {"flow": flow.flow, "share": share, "effect": flow.effect}
        if _is_edge(flow, self._influence(pair[1])):
            selection.edges.add(pair)

    def _word(self, word: Word, lead: float) -> dict[str, Any]:
        """Return the attributes of a word; `lead` is the margin less its baseline."""
        layer, number = word
        influence = np.array([trace.totals[layer][number] for trace in self._traces])
        attributes: dict[str, Any] = {
            "influence": float(influence.mean()),
            "share": float(influence.mean() / lead) if lead else 0.0,
            "effect": self._mean(lambda trace: trace.effects[word].effect),
        }
        first = self._first.effects[word]
        if first.probability is not None:
            attributes["probability_without"] = self._mean(lambda trace: trace.effects[word].probability)
        if self._several:
            attributes |= self._over_images(word, influence)
        elif first.decision is not None:
            attributes["decision_without"] = first.decision
            attributes["class_without"] = self._spec.class_name(first.decision)
        contribution = self._contribution(word)
        if contribution:
            attributes["background"] = self._mean(lambda trace: trace.backgrounds.get(word, 0.0)) / contribution
        return attributes

    def _over_images(self, word: Word, influence: np.ndarray) -> dict[str, float]:
        """Return the interval of the mean influence (n,), and the shares of images that select a word or change."""
        layer, number = word
        n_images, n_kept = len(influence), len(self._first.kept[layer])
        resamples = np.random.RandomState(self._seed).randint(n_images, size=(_N_RESAMPLES, n_images))
        low, high = np.percentile(influence[resamples].mean(1), _INTERVAL)
        sign = np.sign(influence.mean())
        selected = self._mean(lambda trace: number in order(sign * trace.saliences[layer])[:n_kept])
        attributes = {"low": float(low), "high": float(high), "selected": selected}
        if self._first.outcome:
            attributes["changed"] = self._mean(lambda trace: trace.effects[word].decision != trace.outcome["decision"])
        return attributes

    def _flow(self, pair: tuple[Word, Word]) -> Flow:
        """Return the flow between two words; for several images the mean, with 0 where it is no edge."""
        if not self._several:
            return self._first.flows[pair]
        layer, number = pair[1]
        flows = []
        for trace in self._traces:
            flow = trace.flows.get(pair, Flow(0.0, 0.0))
            flows.append(flow if _is_edge(flow, trace.totals[layer][number]) else Flow(0.0, 0.0))
        return Flow(*np.mean(flows, axis=0).tolist())


def _is_edge(flow: Flow, influence: float) -> bool:
    """Return whether flow and effect agree in sign, and matter compared to the influence of the upper word."""
    return flow.flow * flow.effect > 0 and abs(flow.effect) > max(_LEAST_EFFECT * abs(influence), NOTHING)
