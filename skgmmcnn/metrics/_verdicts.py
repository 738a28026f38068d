"""Plain answers to questions about graphs, by rules of thumb from the figures of a report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ..graph import FEW_FITTED
from ._completeness import Completeness
from ._deletion import AblationCurves
from ._edges import EdgeEffects
from ._faithfulness import Faithfulness
from ._fidelity import Fidelity
from ._measured import NOTHING, Measured

# Rules of thumb; the figures stand beside the answers.
_AGREES, _AGREES_PARTLY = 0.9, 0.7
_COVERED, _COVERED_PARTLY = 0.9, 0.5
_COMPLETE, _COMPLETE_PARTLY = 0.8, 0.5
_CLEARLY_BELOW = 0.8
_NEEDED = 0.5  # share of the decision
_AGREE_IN_ORDER = 0.5  # rank correlation


class Verdict(NamedTuple):
    """The answer to one question, "yes", "partly" or "no", with the figure and the remedy."""

    question: str
    answer: str
    why: str

    def __str__(self) -> str:
        return f"{self.question}  {self.answer.upper()}: {self.why}"


def verdicts(results: Mapping[str, Measured], evidence: str) -> list[Verdict]:
    """Return the answers that results give of graphs of this evidence; influence rests on no counts."""
    answers: list[Verdict] = []
    for result in results.values():
        if isinstance(result, Fidelity) and evidence == "counts":
            answers += [_agreement(result), _coverage(result)]
        elif isinstance(result, Completeness):
            answers += _completeness(result)
        elif isinstance(result, AblationCurves) and result.direction == "deletion" and _usual(result):
            answers.append(_deletion(result))
        elif isinstance(result, Faithfulness) and _usual(result):
            answers.append(_faithfulness(result))
        elif isinstance(result, EdgeEffects):
            answers += _edges(result)
    return answers


def _usual(result: AblationCurves | Faithfulness) -> bool:
    return (result.fill, result.by) == ("mean", "image")


def _agreement(result: Fidelity) -> Verdict:
    value = result.agreement
    answer = "yes" if value >= _AGREES else "partly" if value >= _AGREES_PARTLY else "no"
    advice = "" if answer == "yes" else "; show a graph only where the words agree with the network on its image"
    if answer == "no":
        advice = "; do not rely on these graphs, nor on what follows: fit more images of each class, or more words"
    return Verdict("Do the words decide as the network?", answer, f"for {value:.0%} of the images{advice}.")


def _coverage(result: Fidelity) -> Verdict:
    value = result.coverage
    answer = "yes" if value >= _COVERED else "partly" if value >= _COVERED_PARTLY else "no"
    advice = "" if answer == "yes" else "; counts know little of the others: take evidence='influence'"
    why = f"for {value:.0%} of the images at least {FEW_FITTED} fitted ones have the same decision{advice}"
    return Verdict("Were images of these decisions fitted?", answer, f"{why}.")


def _completeness(result: Completeness) -> Iterator[Verdict]:
    for layer, value in zip(result.layers, result.completeness.tolist(), strict=True):
        answer = "yes" if value >= _COMPLETE else "partly" if value >= _COMPLETE_PARTLY else "no"
        advice = "; read this row as an illustration" if answer == "no" else ""
        why = f"with only words in its place {value:.0%} of the decisions that depend on it stay{advice}."
        yield Verdict(f"Do words hold what the network needs of {layer}?", answer, why)


def _deletion(result: AblationCurves) -> Verdict:
    value, (low, high) = result.ratio()
    answer = "yes" if high < _CLEARLY_BELOW else "partly" if high < 1 else "no"
    why = (
        f"as its words are taken away, the decision keeps {value:.2f} ({low:.2f} to {high:.2f}) times the probability "
        "that it keeps without random ones"
    )
    return Verdict(f"Does the network use the words of {result.layer} that the graph shows?", answer, f"{why}.")


def _faithfulness(result: Faithfulness) -> Verdict:
    circuit = result.together
    value, (low, _) = circuit.of(circuit.graph)
    others = max((circuit.of(values)[0] for values in circuit.alike.values()), default=0.0)
    above = low > max(others, 0)
    answer = "yes" if above and value >= _COMPLETE_PARTLY else "partly" if above else "no"
    why = f"with only these {value:.0%} of the decision is left, with other words at as many locations {others:.0%}"
    return Verdict("Are the words of the graph enough, in all layers at once?", answer, f"{why}.")


def _edges(result: EdgeEffects) -> Iterator[Verdict]:
    for (upper, lower), pair in result.pairs.items():
        value, (low, high) = pair.correlation()
        answer = "no" if not low > 0 else "yes" if value >= _AGREE_IN_ORDER else "partly"
        advice = '; say "goes with", not "causes"' if answer == "no" else ""
        why = f"evidence and exact effects have a rank correlation of {value:.2f} ({low:.2f} to {high:.2f}){advice}"
        yield Verdict(f"Do edges from {lower} to {upper} show what the upper layer gets?", answer, f"{why}.")


def pictures(results: Mapping[str, Measured], evidence: str, rows: np.ndarray) -> list[Verdict]:
    """Return for each image whether its graph can be relied on; nothing where faithfulness was not measured."""
    faithfulness, fidelity = results.get("faithfulness"), results.get("fidelity")
    if not isinstance(faithfulness, Faithfulness):
        return []
    circuit = faithfulness.together
    stake = np.maximum(circuit.full - circuit.empty, NOTHING)
    gone = (circuit.full - circuit.complement) / stake
    kept, others = circuit.graph - circuit.empty, np.max(list(circuit.alike.values()), axis=0) - circuit.empty
    denied = np.zeros(len(rows), dtype=bool)
    if evidence == "counts" and isinstance(fidelity, Fidelity):
        denied = ~fidelity.agrees
    shares = (np.clip(share, 0, 1).tolist() for share in (gone, kept / stake, others / stake))
    return [_picture(*row) for row in zip(rows.tolist(), *shares, denied.tolist(), strict=True)]


def _picture(image: int, gone: float, kept: float, others: float, denied: bool) -> Verdict:
    why = (
        f"without its words {gone:.0%} of the decision is gone; with only them {kept:.0%} is left, with other words at "
        f"as many locations {others:.0%}."
    )
    answer = ("no", "partly", "yes")[(gone >= _NEEDED) + (kept > others)]
    if denied:
        answer, why = "no", "the words decide otherwise than the network."
    return Verdict(f"Can the picture of image {image} be relied on?", answer, why)


def summary(verdicts: list[Verdict]) -> str:
    """Return how many pictures can be relied on, and which cannot, as text."""
    numbers = {answer: sum(verdict.answer == answer for verdict in verdicts) for answer in ("yes", "partly", "no")}
    poor = [re.findall(r"\d+", verdict.question)[0] for verdict in verdicts if verdict.answer == "no"]
    which = f": image{'s' if len(poor) > 1 else ''} {', '.join(poor)}" if poor else ""
    return (
        f"- Of {len(verdicts)} pictures {numbers['yes']} can be relied on, {numbers['partly']} partly, "
        f"{numbers['no']} not{which}."
    )
