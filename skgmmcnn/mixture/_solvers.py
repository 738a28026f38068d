"""Training of mixtures: batch EM with momentum, stepwise EM, and gradient descent.

EM trains any model with `scorer`, `maximize`, `revived` and `to`: :class:`Mixture`, and chains of mixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from torch import Tensor

from .._warnings import warn
from ._em import Expectation, Mixture, Rows, log_evidence
from ._records import Record

# Maximum number of rounds in which components that hold less than one row are moved.
_REVIVALS = 3
# Initial learning rate of Adam, in standard deviations and log-units, and its fraction at which training ends.
_LEARNING_RATE, _LAST_RATE = 0.02, 1 / 16
# The step size of stepwise EM after block i is (i + offset) ** -decay.
_OFFSET, _DECAY = 2, 0.6


@dataclass(frozen=True)
class OnlineState(Record):
    """State of stepwise EM: the mixture, the average statistics per row, and the number of steps."""

    mixture: Any
    statistics: Any
    n_steps: int


class Fitted(NamedTuple):
    """Result of training: the last state, the bound after each pass, and whether training converged."""

    state: OnlineState
    lower_bounds: list[float]
    converged: bool

    @property
    def mixture(self) -> Any:
        return self.state.mixture

    @property
    def n_iter(self) -> int:
        return len(self.lower_bounds)


class Trained:
    """Mixin of estimators that train, and store the course of their training as attributes."""

    max_iter: int
    random_state: Any

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(int(check_random_state(self.random_state).randint(2**31)))

    def _set_course(self, bounds: Any, n_iter: int, converged: bool) -> None:
        """Set the attributes of training; `bounds` is a list with one entry per pass, or such lists by layer."""
        histories = bounds.values() if isinstance(bounds, dict) else [bounds]
        self.lower_bounds_ = bounds
        self.lower_bound_ = sum(history[-1] for history in histories)
        self.n_iter_ = n_iter
        self.converged_ = converged

    def _warn_unconverged(self, what: str) -> None:
        warn(f"{what} did not converge in {self.max_iter} passes; increase max_iter or tol.", ConvergenceWarning)


@dataclass(frozen=True)
class Training:
    """Parameters of training: at most `max_iter` passes, until one gains less than `tol` nats per row.

    `momentum` applies to batch EM, which also stops when fewer than the fraction `still` of the rows change their
    component in a pass; `batch_size` and `generator` apply to the other solvers.  `report` is called after each pass
    with the number of the pass and the bound.
    """

    max_iter: int
    tol: float
    momentum: float = 0.9
    batch_size: int = 1024
    generator: torch.Generator | None = None
    report: Callable[[int, float], None] = lambda n_iter, bound: None
    still: float = 0.0


def fit_em(rows: Rows, mixture: Any, training: Training) -> Fitted:
    """Train by batch EM until a plain pass gains too little.

    With `momentum`, each M-step is extended by this fraction of the last step, in log-weights, means and log-variances:
    the heavy-ball method [Polyak 1964, USSR Comput. Math. Math. Phys. 4(5)].  On activations this took a quarter of the
    passes and reached a higher bound.  If it lowers the likelihood, training returns to the last M-step, so the bound
    never falls.

    Components that hold less than one row at the end are moved beside the heaviest, and training continues.  The move
    is undone if it does not raise the bound.
    """
    fitted = _climb(rows, mixture, training)
    for _ in range(_REVIVALS):
        revived = fitted.mixture.revived(rows.total)
        n_left = training.max_iter - fitted.n_iter
        if revived is None or not fitted.converged or n_left == 0:
            break
        best = fitted.lower_bounds[-1]
        refitted = _climb(rows, revived, replace(training, max_iter=n_left))
        bounds = fitted.lower_bounds + np.maximum(refitted.lower_bounds, best).tolist()
        if refitted.lower_bounds[-1] <= best:
            return fitted._replace(lower_bounds=bounds)
        fitted = refitted._replace(lower_bounds=bounds)
    return fitted


def _climb(rows: Rows, mixture: Any, training: Training) -> Fitted:
    """Train by batch EM from `mixture`, without moves of components."""
    bounds: list[float] = []
    trial = updated = mixture
    components = None
    extended = converged = False
    while len(bounds) < training.max_iter and not converged:
        expectation = rows.expect(trial)
        bound = expectation.bound
        if extended and bound < bounds[-1]:  # the extended step went too far
            bounds.append(bounds[-1])
            trial = updated
            extended = False
            continue
        gain = bound - bounds[-1] if bounds else np.inf
        bounds.append(bound)
        training.report(len(bounds), bound)
        statistics = expectation.statistics
        previous, updated = updated, trial.maximize(statistics)
        converged = not gain >= training.tol and not extended  # also if a component collapsed and the bound is NaN
        converged |= _changed(components, expectation.components) < training.still
        components = expectation.components
        # The first step, away from arbitrary means, is not extended: components would die.
        extended = training.momentum > 0 and training.tol <= gain < np.inf
        trial = _extend(previous, updated, training.momentum) if extended else updated
    return Fitted(OnlineState(updated, statistics.per_row(), len(bounds)), bounds, converged)


def _changed(before: Tensor | None, after: Tensor | None) -> float:
    """Return the fraction of rows whose component changed, 1 if unknown."""
    return 1.0 if before is None or after is None else (before != after).double().mean().item()


def _extend(before: Any, after: Any, fraction: float) -> Any:
    """Return `after`, extended by a fraction of the step from `before`."""
    steps = zip(before.unbounded(), after.unbounded(), strict=True)
    return after.at(tuple(end + fraction * (end - begin) for begin, end in steps))


def fit_online(rows: Rows, mixture: Any, training: Training) -> Fitted:
    """Train by stepwise EM on shuffled blocks until a pass gains too little.

    The bound of a pass is the mean over its blocks, each scored before the update from it.
    """
    bounds: list[float] = []
    state: OnlineState | None = None
    converged = False
    while len(bounds) < training.max_iter and not converged:
        bound, state = online_pass(_shuffled(rows, training), mixture, state)
        converged = bool(bounds) and bound - bounds[-1] < training.tol
        bounds.append(bound)
        training.report(len(bounds), bound)
        mixture = state.mixture.revived(rows.total) or state.mixture
        state = replace(state, mixture=mixture)
    assert state is not None
    return Fitted(state, bounds, converged)


def _shuffled(rows: Rows, training: Training) -> Iterator[Rows]:
    order = torch.randperm(len(rows), generator=training.generator)
    return (rows[index] for index in order.split(training.batch_size))


def online_pass(blocks: Iterator[Rows], mixture: Any, state: OnlineState | None) -> tuple[float, OnlineState]:
    """Take one step of stepwise EM per block; return the mean log-likelihood before the steps, and the state."""
    log_likelihood = total = 0.0
    for block in blocks:
        expectation = block.expect(mixture)
        state = online_step(expectation, mixture, state)
        mixture = state.mixture
        log_likelihood += expectation.log_likelihood.item()
        total += expectation.n_rows
    assert state is not None, "no blocks"
    return log_likelihood / total, state


def online_step(expectation: Expectation, mixture: Any, state: OnlineState | None) -> OnlineState:
    """Return the state after one block: blended statistics, then one M-step.

    References
    ----------
    Cappe and Moulines (2009), "On-line expectation-maximization algorithm for latent data models", JRSS B 71(3).
    """
    device = expectation.log_likelihood.device
    statistics = expectation.statistics.per_row()
    n_steps = 0
    if state is not None:
        n_steps = state.n_steps
        statistics = state.statistics.to(device).blend(statistics, (n_steps + _OFFSET) ** -_DECAY)
    return OnlineState(mixture.to(device).maximize(statistics), statistics, n_steps + 1)


def fit_sgd(rows: Rows, mixture: Mixture, training: Training) -> Fitted:
    """Train by Adam on the negative log-likelihood of shuffled blocks.

    The learning rate is halved whenever a pass gains too little; training ends below a sixteenth of the initial rate.
    The bound of a pass is the mean over its blocks, each scored before the update from it.
    """
    descent = Descent(mixture)
    bounds: list[float] = []
    while len(bounds) < training.max_iter and descent.rate >= _LAST_RATE:
        log_likelihood = total = 0.0
        for block in _shuffled(rows, training):
            evidence = log_evidence(descent.mixture().scorer(rows.like).joint(block.values))
            weights = torch.ones_like(evidence) if block.weights is None else block.weights.to(evidence)
            block_likelihood = weights @ evidence
            block_total = weights.sum().item()
            descent.step(-block_likelihood / block_total)
            log_likelihood += block_likelihood.item()
            total += block_total
        bounds.append(log_likelihood / total)
        training.report(len(bounds), bounds[-1])
        if len(bounds) > 1 and bounds[-1] - bounds[-2] < training.tol:
            descent.rate /= 2
    mixture = descent.mixture(detached=True)
    mixture = mixture.revived(rows.total) or mixture
    statistics = rows.expect(mixture).statistics.per_row()
    return Fitted(OnlineState(mixture, statistics, len(bounds)), bounds, descent.rate < _LAST_RATE)


SOLVERS: dict[str, Callable[[Rows, Any, Training], Fitted]] = {"em": fit_em, "online": fit_online, "sgd": fit_sgd}


class Descent:
    """Gradient descent on a mixture: Adam on log-weights, means in standard deviations, and log-variances.

    `others` are further parameters to train, `step` a factor of the initial learning rate, and `rate` the current
    learning rate as a fraction of the initial one.
    """

    def __init__(self, mixture: Mixture, others: Iterable[Tensor] = (), step: float = 1.0) -> None:
        self._mixture = mixture
        self._scale = mixture.parameters.variance.mean(0).sqrt()
        log_weights, mean, log_variance = mixture.unbounded()
        self._free = [part.clone().requires_grad_() for part in (log_weights, mean / self._scale, log_variance)]
        self._initial_rate = step * _LEARNING_RATE
        self._adam = torch.optim.Adam([*self._free, *others], lr=self._initial_rate)
        self.rate = 1.0

    def mixture(self, *, detached: bool = False) -> Mixture:
        """Return the current mixture, with gradients unless `detached`."""
        log_weights, mean, log_variance = (part.detach() if detached else part for part in self._free)
        return self._mixture.at((log_weights, mean * self._scale, log_variance))

    def step(self, loss: Tensor) -> None:
        """Take one gradient step on `loss`, then project onto the parameters that the family allows."""
        for group in self._adam.param_groups:
            group["lr"] = self.rate * self._initial_rate
        self._adam.zero_grad()
        loss.backward()
        self._adam.step()
        log_weights, mean, log_variance = self.mixture(detached=True).unbounded()
        with torch.no_grad():
            for part, allowed in zip(self._free, (log_weights, mean / self._scale, log_variance), strict=True):
                part.copy_(allowed)
