"""What a report comes to: for each question a plain answer, by rules of thumb."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..graph import FEW_FITTED
from ._completeness import Completeness
from ._deletion import AblationCurves
from ._edges import EdgeEffects
from ._faithfulness import Faithfulness
from ._fidelity import Fidelity
from ._measured import Measured

# Rules of thumb; the figures stand beside the answers.
_AGREES, _AGREES_PARTLY = 0.9, 0.7
_COVERED, _COVERED_PARTLY = 0.9, 0.5
_COMPLETE, _COMPLETE_PARTLY = 0.8, 0.5
_CLEARLY_BELOW = 0.8
_TELLS = 0.5  # rank correlation


class Verdict(NamedTuple):
    """An answer to one question.

    Parameters
    ----------
    question : str
        What was asked.
    answer : {"yes", "partly", "no"}
        By rules of thumb.
    why : str
        The figure, and what to do.
    """

    question: str
    answer: str
    why: str

    def __str__(self) -> str:
        return f"{self.question}  {self.answer.upper()}: {self.why}"


def verdicts(results: Mapping[str, Measured], evidence: str) -> list[Verdict]:
    """Return the answers that results give of graphs of this evidence; influence rests on no counts."""
    found: list[Verdict] = []
    for result in results.values():
        if isinstance(result, Fidelity) and evidence == "counts":
            found += [_agreement(result), _coverage(result)]
        elif isinstance(result, Completeness):
            found += _completeness(result)
        elif isinstance(result, AblationCurves) and result.direction == "deletion" and _usual(result):
            found.append(_deletion(result))
        elif isinstance(result, Faithfulness) and _usual(result):
            found.append(_faithfulness(result))
        elif isinstance(result, EdgeEffects):
            found += _edges(result)
    return found


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
    advice = "" if answer == "yes" else "; of the others counts know little: take evidence='influence'"
    why = f"for {value:.0%} of the images at least {FEW_FITTED} fitted ones have the same decision{advice}"
    return Verdict("Were images of these decisions fitted?", answer, f"{why}.")


def _completeness(result: Completeness) -> Iterator[Verdict]:
    for layer, value in zip(result.layers, result.completeness.tolist(), strict=True):
        answer = "yes" if value >= _COMPLETE else "partly" if value >= _COMPLETE_PARTLY else "no"
        advice = "; read this row as an illustration" if answer == "no" else ""
        yield Verdict(f"Do words hold what the network needs of {layer}?", answer, f"completeness {value:.2f}{advice}.")


def _deletion(result: AblationCurves) -> Verdict:
    value, (low, high) = result.ratio()
    answer = "yes" if high < _CLEARLY_BELOW else "partly" if high < 1 else "no"
    why = (
        f"taken away in the graph's order, the decision falls to {value:.2f} ({low:.2f} to {high:.2f}) of random order"
    )
    return Verdict(f"Does it use the words of {result.layer} that the graph shows?", answer, f"{why}.")


def _faithfulness(result: Faithfulness) -> Verdict:
    circuit = result.together
    value, (low, _) = circuit.of(circuit.graph)
    others = max((circuit.of(values)[0] for values in circuit.alike.values()), default=0.0)
    above = low > max(others, 0)
    answer = "yes" if above and value >= _COMPLETE_PARTLY else "partly" if above else "no"
    why = f"{value:.2f} of the decision is left, {others:.2f} with other words at as many locations"
    return Verdict("Are the words of the graph enough, in all layers at once?", answer, f"{why}.")


def _edges(result: EdgeEffects) -> Iterator[Verdict]:
    for (upper, lower), pair in result.pairs.items():
        value, (low, high) = pair.correlation()
        answer = "no" if not low > 0 else "yes" if value >= _TELLS else "partly"
        advice = '; say "goes with", not "causes"' if answer == "no" else ""
        why = f"{pair.named} and exact effects have a rank correlation of {value:.2f} ({low:.2f} to {high:.2f}){advice}"
        yield Verdict(f"Do edges from {lower} to {upper} tell what it is given?", answer, f"{why}.")
