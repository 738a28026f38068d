"""Plain answers to questions about graphs, by rules of thumb from the figures of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..graph import FEW_FITTED, probable
from ._completeness import Completeness
from ._deletion import AblationCurves
from ._edges import EdgeEffects
from ._faithfulness import Faithfulness
from ._fidelity import Fidelity
from ._measured import Measured
from ._removal import CLEAR, Removal

# Rules of thumb; the figures stand beside the answers.
_AGREES, _AGREES_PARTLY = 0.9, 0.7
_COVERED, _COVERED_PARTLY = 0.9, 0.5
_COMPLETE, _COMPLETE_PARTLY = 0.8, 0.5
_CLEARLY_BELOW = 0.8
_USED, _USED_PARTLY = 0.8, 0.5
_HALF = 0.5  # of the draws
_AGREE_IN_ORDER = 0.5  # rank correlation


class Verdict(NamedTuple):
    """The answer to one question, "yes", "partly", "no" or "" for a number, with the figure and the remedy."""

    question: str
    answer: str
    why: str

    def __str__(self) -> str:
        answer = f"{self.answer.upper()}: " if self.answer else ""
        return f"{self.question}  {answer}{self.why[0].upper() + self.why[1:] if not answer else self.why}"


def verdicts(results: Mapping[str, Measured], evidence: str) -> list[Verdict]:
    """Return the answers that results give of graphs of this evidence; influence rests on no counts."""
    answers: list[Verdict] = []
    for result in results.values():
        if isinstance(result, Removal):
            answers += [_use(result), _fall(result)]
        elif isinstance(result, EdgeEffects):
            answers += _edges(result)
        elif isinstance(result, Fidelity) and evidence == "counts":
            answers += [_agreement(result), _coverage(result)]
        elif isinstance(result, Completeness):
            answers += _completeness(result)
        elif isinstance(result, AblationCurves) and result.direction == "deletion" and _usual(result):
            answers.append(_deletion(result))
        elif isinstance(result, Faithfulness) and _usual(result):
            answers.append(_faithfulness(result))
    return answers


def _use(result: Removal) -> Verdict:
    value, _ = result.used
    answer = "yes" if value >= _USED else "partly" if value >= _USED_PARTLY else "no"
    advice = "" if answer == "yes" else "; use only the pictures listed as reliable"
    why = f"for {value:.0%} of the images the decision falls more without them than without random words{advice}"
    return Verdict("Does the network use the words shown?", answer, f"{why}.")


def _fall(result: Removal) -> Verdict:
    full, without, chance = (float(values.mean()) for values in result.proba)
    why = (
        f"the probability of the decision falls from {full:.2f} to {without:.2f} on average; without random words at "
        f"as many locations, to {chance:.2f}."
    )
    return Verdict("What happens without them?", "", why)


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
        advice = "; they are a coarse description of this layer" if answer == "no" else ""
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
        advice = '; read these arrows as "goes with", not "causes"' if answer == "no" else ""
        why = (
            f"strong arrows are those whose removal has a large effect (rank correlation {value:.2f}, {low:.2f} to "
            f"{high:.2f}; 1 is best){advice}"
        )
        if answer != "yes":
            why = why.replace("are those", "are " + ("often" if answer == "partly" else "not") + " those")
        yield Verdict(f"Do arrows from {lower} to {upper} show what it computes?", answer, f"{why}.")


def pictures(results: Mapping[str, Measured], evidence: str, names: Sequence[str]) -> list[Verdict]:
    """Return for each image whether its graph can be relied on; nothing where removal was not measured."""
    removal, fidelity = results.get("removal"), results.get("fidelity")
    if not isinstance(removal, Removal):
        return []
    denied = np.zeros(len(names), dtype=bool)
    if evidence == "counts" and isinstance(fidelity, Fidelity):
        denied = ~fidelity.agrees
    measured = zip(*removal.proba, removal.above_random, strict=True)
    return [_picture(name, no, *row) for name, no, row in zip(names, denied.tolist(), measured, strict=True)]


def _picture(name: str, denied: bool, full: float, without: float, chance: float, above: float) -> Verdict:
    why = (
        f"probability {probable(full)}, without its words {probable(without)}, without random words "
        f"{probable(chance)}; the decision falls more than in {above:.0%} of the random draws."
    )
    answer = "yes" if above >= CLEAR else "partly" if above >= _HALF else "no"
    if denied:
        answer, why = "no", "the words decide otherwise than the network."
    return Verdict(f"Can the picture of {name} be relied on?", answer, why)


def summary(verdicts: list[Verdict]) -> list[str]:
    """Return as text how many pictures can be relied on, and why others cannot, a line for each."""
    if not verdicts:
        return []
    numbers = {answer: sum(verdict.answer == answer for verdict in verdicts) for answer in ("yes", "partly", "no")}
    head = f"Can each picture be relied on?  {numbers['yes']} of {len(verdicts)} can, {numbers['partly']} partly, "
    return [f"{head}{numbers['no']} cannot.", *(f"  {verdict}" for verdict in verdicts if verdict.answer != "yes")]
