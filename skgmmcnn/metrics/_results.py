"""The interface of all results: figures for a table, verdicts, and sentences as text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np

BASELINE = "to compare with"
NOTHING = 1e-6  # nats; smaller differences are rounding


class Figure(NamedTuple):
    """One figure of a result: its 95 % interval is NaN where there is none, `where` a layer, or a pair of layers.

    `good` says which values are good.
    """

    measure: str
    where: str
    value: float
    low: float = np.nan
    high: float = np.nan
    good: str = ""


class Verdict(NamedTuple):
    """The answer to one question, "yes", "partly", "no" or "" for a number, with the figure and the remedy."""

    question: str
    answer: str
    why: str

    def __str__(self) -> str:
        if self.answer:
            return f"{self.question}  {self.answer.upper()}: {self.why}"
        return f"{self.question}  {self.why[0].upper()}{self.why[1:]}"


class Measured(ABC):
    """A result of a measure; as text it is sentences."""

    @abstractmethod
    def figures(self) -> list[Figure]:
        """Return the figures that sum it up, in the order in which they are read best."""

    def verdicts(self) -> list[Verdict]:
        """Return answers to questions about graphs, by rules of thumb from the figures."""
        return []


class Scale(NamedTuple):
    """A rule of thumb: the least values for "yes" and for "partly"."""

    yes: float
    partly: float

    def verdict(self, question: str, value: float, why: str, *, partly: str = "", no: str = "") -> Verdict:
        """Return the answer for a value; `why` is followed by the advice for answers other than "yes"."""
        if value >= self.yes:
            return Verdict(question, "yes", f"{why}.")
        if value >= self.partly:
            return Verdict(question, "partly", f"{why}{partly}.")
        return Verdict(question, "no", f"{why}{no}.")


def axes_for(ax: Any) -> Any:
    """Return the axes to draw into, those of a new figure where None."""
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    return plt.subplots(layout="constrained")[1]
