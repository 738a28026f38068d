"""Results of measures: measurements for a table, and verdicts in sentences."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

BASELINE = "baseline"
ROUNDING = 1e-6  # nats


class Measurement(NamedTuple):
    """One measured value of a layer or of a pair of layers, with its 95 % interval, NaN where there is none.

    `good` is the desired value, or BASELINE.
    """

    measure: str
    where: str
    value: float
    low: float = np.nan
    high: float = np.nan
    good: str = ""


class Verdict(NamedTuple):
    """The answer to a question, "yes", "partly", "no", or "" where it is a number, with values and advice."""

    question: str
    answer: str
    why: str

    def __str__(self) -> str:
        if self.answer:
            return f"{self.question}  {self.answer.upper()}: {self.why}"
        return f"{self.question}  {self.why[0].upper()}{self.why[1:]}"


class Thresholds(NamedTuple):
    """A rule of thumb: the lowest values for "yes" and for "partly"."""

    yes: float
    partly: float

    def verdict(self, question: str, value: float, why: str, *, partly: str = "", no: str = "") -> Verdict:
        """Return the answer for a value; `partly` and `no` are advice that is added to `why`."""
        if value >= self.yes:
            return Verdict(question, "yes", f"{why}.")
        if value >= self.partly:
            return Verdict(question, "partly", f"{why}{partly}.")
        return Verdict(question, "no", f"{why}{no}.")


class Result(ABC):
    """Result of a measure; as text it is a table of the measurements, followed by the verdicts."""

    @abstractmethod
    def measurements(self) -> list[Measurement]:
        """Return the measured values."""

    def verdicts(self) -> list[Verdict]:
        """Return answers to questions about the graphs, by rules of thumb."""
        return []

    def __str__(self) -> str:
        return "\n".join([text_of_measurements(self.measurements()), *map(str, self.verdicts())])


def text_of_measurements(measurements: Iterable[Measurement]) -> str:
    """Return a table of measurements as text."""
    rows = [("measure", "where", "value", "95 % interval", "good")]
    for each in measurements:
        interval = "" if np.isnan(each.low) else f"{each.low:.2f} to {each.high:.2f}"
        rows.append((each.measure, each.where, f"{each.value:.2f}", interval, each.good))
    return text_table(rows, "<<>><")


def text_table(rows: Sequence[Sequence[str]], alignment: str) -> str:
    """Return rows of cells as text; `alignment` has "<" or ">" for each column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    formats = [f"{side}{width}" for side, width in zip(alignment, widths, strict=True)]
    return "\n".join("  ".join(map(format, row, formats)).rstrip() for row in rows)


def axes_for(ax: Any) -> Any:
    """Return the axes to draw into, those of a new figure if None."""
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    return plt.subplots(layout="constrained")[1]
