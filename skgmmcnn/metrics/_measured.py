"""What all measures have in common: they can be put into a table, and read as sentences."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np

BASELINE = "to compare with"
NOTHING = 1e-6  # nats; smaller differences are rounding


class Figure(NamedTuple):
    """One figure that a measure found.

    Parameters
    ----------
    measure : str
        What was measured.
    where : str
        A layer, a pair of layers, or "decision".
    value : float
        The figure.
    low, high : float
        95 % interval over resamples of the images; NaN where there is none.
    good : str
        Which figures are good.
    """

    measure: str
    where: str
    value: float
    low: float = np.nan
    high: float = np.nan
    good: str = ""


class Measured(ABC):
    """What a measure found: figures for tables, and sentences as text."""

    @abstractmethod
    def figures(self) -> list[Figure]:
        """Return the figures that sum it up.

        Returns
        -------
        figures : list of Figure
            In the order in which they are read best.
        """


def axes_for(ax: Any) -> Any:
    """Return the axes to draw into, those of a new figure where None."""
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    return plt.subplots(layout="constrained")[1]
