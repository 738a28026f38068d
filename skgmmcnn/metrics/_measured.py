"""The interface of all results: figures for a table, and sentences as text."""

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


class Measured(ABC):
    """A result of a measure; as text it is sentences."""

    @abstractmethod
    def figures(self) -> list[Figure]:
        """Return the figures that sum it up, in the order in which they are read best."""


def axes_for(ax: Any) -> Any:
    """Return the axes to draw into, those of a new figure where None."""
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    return plt.subplots(layout="constrained")[1]
