"""Curves of the log-likelihood during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from .._pipelines import find_step
from ..chain import LayerHMM
from ..dictionary import LayerDictionary
from ..mixture import DiagonalGaussianMixture
from ._drawing import INK, Panels, wrap_name

_COLUMNS = 3
_ENDINGS = {None: "", True: ", converged", False: ", stopped at max_iter"}


@dataclass(eq=False, repr=False)
class TrainingDisplay(Panels):
    """The log-likelihood after every pass of training, one panel per layer.

    Titles state whether training converged, as a pass gained less than `tol` of the estimator, or stopped at its
    `max_iter`.  Panels are scaled to the passes after the first one, which depends on the initialisation.

    Parameters
    ----------
    lower_bounds : dict of str to sequence of float
        By panel, the mean log-density after every pass, in nats.
    unit : str, default="row"
        The unit of the density: "location", "example" or "row".
    retrained : bool, default=False
        Whether the last value is that after retraining to predict the class; its line is dashed.
    converged : dict of str to bool, default=None
        By panel, whether training converged, False if it stopped at `max_iter`; omitted from titles where missing.

    Attributes
    ----------
    axes_ : array of matplotlib.axes.Axes, shape (n_panels,)
        The panels.
    figure_ : matplotlib.figure.Figure
        Their figure.

    Examples
    --------
    >>> import numpy as np
    >>> from skgmmcnn import DiagonalGaussianMixture, TrainingDisplay
    >>> X = np.random.default_rng(0).normal(size=(500, 4))
    >>> mixture = DiagonalGaussianMixture(5, random_state=0).fit(X)
    >>> display = TrainingDisplay.from_estimator(mixture)
    >>> len(display.axes_[0].lines[0].get_xdata()) == mixture.n_iter_
    True
    """

    lower_bounds: Mapping[str, Sequence[float]]
    _: KW_ONLY
    unit: str = "row"
    retrained: bool = False
    converged: Mapping[str, bool] | None = None

    @classmethod
    def from_estimator(
        cls, estimator: LayerDictionary | LayerHMM | DiagonalGaussianMixture | Pipeline, *, ax: Any = None
    ) -> TrainingDisplay:
        """Draw the training of an estimator.

        Parameters
        ----------
        estimator : LayerDictionary, LayerHMM, DiagonalGaussianMixture or Pipeline
            Fitted; a pipeline has one of these among its steps.
        ax : matplotlib.axes.Axes or array-like of them, default=None
            Axes to draw into, one per layer, for a chain or a mixture one; None makes a figure.

        Returns
        -------
        display : TrainingDisplay
            The drawn display.
        """
        _, model = find_step(estimator, LayerDictionary, LayerHMM, DiagonalGaussianMixture)
        retrained = False
        if isinstance(model, LayerDictionary):
            bounds, unit = model.lower_bounds_, "location"
            retrained = model.objective == "discriminative"
        elif isinstance(model, LayerHMM):
            bounds, unit = {"all layers": model.lower_bounds_}, "example"
        else:
            bounds, unit = {"mixture": model.lower_bounds_}, "row"
        return cls(bounds, unit=unit, retrained=retrained, converged=_converged(model, bounds, retrained)).plot(ax=ax)

    def _grid(self) -> tuple[int, int, float, float]:
        columns = min(_COLUMNS, len(self.lower_bounds))
        return len(self.lower_bounds), columns, 0.6 + 2.2 * columns, 2.3

    def _draw(self) -> None:
        for ax, (name, bounds) in zip(self.axes_, self.lower_bounds.items(), strict=True):
            self._draw_panel(ax, name, np.asarray(bounds))
        for ax in self.axes_[::_COLUMNS]:
            ax.set_ylabel(f"log-density,\nnats per {self.unit}")

    def _draw_panel(self, ax: Any, name: str, bounds: np.ndarray) -> None:
        from matplotlib.ticker import MaxNLocator

        n_trained = len(bounds) - self.retrained
        passes = np.arange(1, len(bounds) + 1)
        ax.plot(passes[:n_trained], bounds[:n_trained], "o-", color=INK, ms=3)
        if self.retrained:
            ax.plot(passes[n_trained - 1 :], bounds[n_trained - 1 :], "s--", color=INK, ms=3)
        later = bounds[1:] if len(bounds) > 2 else bounds
        margin = 0.05 * (later.max() - later.min()) or 0.5
        ax.set_ylim(later.min() - margin, later.max() + margin)
        ax.set_xlim(0.5, len(bounds) + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.set_xlabel("pass" + (", then for the class" if self.retrained else ""))
        converged = None if self.converged is None else self.converged.get(name)
        ending = f"{n_trained} pass{'es' * (n_trained != 1)}{_ENDINGS[converged]}"
        ax.set_title(f"{wrap_name(name, 28)}\n{bounds[-1]:.2f} nats\n{ending}", fontsize=9, parse_math=False)


def _converged(model: Any, bounds: Mapping[str, Sequence[float]], retrained: bool) -> dict[str, bool] | None:
    """Return for each panel whether training converged; None after `partial_fit`."""
    at_limit = {name: len(values) - retrained == model.max_iter for name, values in bounds.items()}
    if not model.converged_ and not any(at_limit.values()):
        return None
    return {name: model.converged_ or not stopped for name, stopped in at_limit.items()}
