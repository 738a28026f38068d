"""Three ways to train a mixture: batch EM with momentum, stepwise EM, and gradient descent.

The first two train whatever has an E-step and an M-step: also a chain of mixtures, which is a mixture over paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from .._distributed import local_slice
from ._em import Expectation, Mixture, Scorer, log_evidence

# A component that holds less than one row is moved, in so many rounds at most.
_REVIVALS = 3
# Adam's first step in standard deviations and log-units, and the share of it at which training ends.
_LEARNING_RATE, _LAST_SHARE = 0.02, 1 / 16


class Model(Protocol):
    """What EM trains.  Immutable; see :class:`Mixture`."""

    def maximize(self, statistics: Any) -> Self:
        """Take the M-step."""

    def revived(self, n_rows: float) -> Self | None:
        """Return the model with components that hold less than one row moved, None if there are none."""

    def to(self, device: torch.device | str) -> Self:
        """Return the model on another device."""


class Data(Protocol):
    """Rows to train on; see :class:`Rows`."""

    @property
    def total(self) -> float:
        """What the rows weigh together."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> Self: ...

    def expect(self, model: Any) -> Any:
        """Return the E-step over all rows; see :class:`Expectation`."""


M = TypeVar("M", bound=Model)
D = TypeVar("D", bound=Data)


class OnlineState(NamedTuple, Generic[M]):
    """What stepwise EM carries from block to block: the mixture, the statistics per row, the number of steps."""

    mixture: M
    statistics: Any
    n_steps: int

    def to(self, device: torch.device | str) -> OnlineState[M]:
        """Return the state with its tensors on `device`."""
        return OnlineState(self.mixture.to(device), self.statistics.to(device), self.n_steps)


class Fitted(NamedTuple, Generic[M]):
    """A trained mixture as a state from which steps may go on, the bound after every pass, and whether it converged."""

    state: OnlineState[M]
    lower_bounds: list[float]
    converged: bool

    @property
    def mixture(self) -> M:
        """The trained mixture."""
        return self.state.mixture

    @property
    def n_iter(self) -> int:
        """Number of passes over the rows."""
        return len(self.lower_bounds)


@dataclass(frozen=True)
class Rows:
    """Training rows (n, d), their weights (n,) or None, and a tensor with the dtype and device to compute with.

    Rows that are `shared` are the same in all processes of ``torch.distributed``, which divide the E-step.
    """

    values: Tensor
    weights: Tensor | None
    like: Tensor
    shared: bool = False

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Tensor | slice) -> Rows:
        weights = None if self.weights is None else self.weights[index]
        return Rows(self.values[index], weights, self.like, self.shared)

    @property
    def total(self) -> float:
        """What the rows weigh together."""
        return len(self.values) if self.weights is None else self.weights.sum().item()

    def expect(self, mixture: Mixture) -> Expectation:
        """Return the E-step over all rows."""
        expectation = Expectation(mixture, self.like, keep_components=True)
        mine = self[local_slice(len(self.values))] if self.shared else self
        expectation.add(mine.values, mine.weights)
        if self.shared:
            expectation.merge()
        return expectation


class Schedule(NamedTuple):
    """How far stepwise EM goes: by (i + offset)^-decay after block i, the M-step left out in the first `burn_in`."""

    offset: float = 2
    decay: float = 0.6
    burn_in: int = 0


USUAL = Schedule()


@dataclass(frozen=True)
class Training:
    """How to train: at most `max_iter` passes, until one gains less than `tol` nats per row.

    `momentum` is for batch EM, which also ends when a pass gives less than the share `still` of the rows another
    component; `batch_size` and `generator` are for the other solvers, `schedule` for stepwise EM.
    `report` is told after every pass its number and the bound.
    """

    max_iter: int
    tol: float
    momentum: float = 0.9
    batch_size: int = 1024
    generator: torch.Generator | None = None
    report: Callable[[int, float], None] = lambda n_iter, bound: None
    schedule: Schedule = USUAL
    still: float = 0.0


def train(solver: str, rows: Rows, mixture: Mixture, training: Training) -> Fitted:
    """Train `mixture` by the solver "em", "online" or "sgd"."""
    solvers: dict[str, Callable[[Rows, Mixture, Training], Fitted]] = {
        "em": fit_em,
        "online": fit_online,
        "sgd": fit_sgd,
    }
    return solvers[solver](rows, mixture, training)


def fit_em(rows: Data, mixture: M, training: Training) -> Fitted[M]:
    """Train by batch EM until a plain pass gains too little.

    With `momentum`, each M-step is followed by that share of the way since the M-step before, in log-weights, means
    and log-variances: the heavy-ball method [Polyak 1964, USSR Comput. Math. Math. Phys. 4(5)].  On activations this
    took a quarter of the passes, and ended higher.  Where it lowers the likelihood, training goes back to the last
    M-step, so the bound never falls.

    Components that hold less than one row in the end are moved beside the heaviest, and training goes on.  Where this
    does not pay, it is taken back.
    """
    fitted = _climb(rows, mixture, training)
    for _ in range(_REVIVALS):
        revived = fitted.mixture.revived(rows.total)
        passes = training.max_iter - fitted.n_iter
        if revived is None or not fitted.converged or passes == 0:
            break
        again = _climb(rows, revived, replace(training, max_iter=passes))
        bounds = fitted.lower_bounds + np.maximum(again.lower_bounds, fitted.lower_bounds[-1]).tolist()
        if again.lower_bounds[-1] <= fitted.lower_bounds[-1]:
            return fitted._replace(lower_bounds=bounds)
        fitted = again._replace(lower_bounds=bounds)
    return fitted


def _climb(rows: Data, mixture: M, training: Training) -> Fitted[M]:
    bounds: list[float] = []
    trial = image = mixture
    components = None
    moving = converged = False
    while len(bounds) < training.max_iter and not converged:
        expectation = rows.expect(trial)
        bound = expectation.bound
        if moving and bound < bounds[-1]:  # too far
            bounds.append(bounds[-1])
            trial, moving = image, False
            continue
        gain = bound - bounds[-1] if bounds else np.inf
        bounds.append(bound)
        training.report(len(bounds), bound)
        statistics = expectation.statistics
        before, image = image, trial.maximize(statistics)
        converged = not gain >= training.tol and not moving  # also where a component collapsed and the bound is NaN
        converged |= _changed(components, expectation.components) < training.still
        components = expectation.components
        # The first step, away from arbitrary means, is too long to be prolonged: components would die.
        moving = training.momentum > 0 and training.tol <= gain < np.inf
        trial = _beyond(before, image, training.momentum) if moving else image
    return Fitted(OnlineState(image, statistics.per_row(), len(bounds)), bounds, converged)


def _changed(before: Tensor | None, after: Tensor | None) -> float:
    """Return the share of the rows whose component changed, 1 where that is not known."""
    return 1.0 if before is None or after is None else (before != after).double().mean().item()


def _beyond(before: Any, after: Any, share: float) -> Any:
    """Return the mixture that lies `share` of the way from `before` to `after` beyond `after`."""
    pairs = zip(before.unbounded(), after.unbounded(), strict=True)
    return after.at(tuple(there + share * (there - here) for here, there in pairs))


def fit_online(rows: Data, mixture: M, training: Training) -> Fitted[M]:
    """Train by stepwise EM on shuffled blocks until a pass gains too little.

    The bound of a pass is the mean over its blocks, each scored before the mixture learns from it.
    """
    bounds: list[float] = []
    state: OnlineState[M] | None = None
    converged = False
    while len(bounds) < training.max_iter and not converged:
        bound, state = online_pass(_shuffled(rows, training), mixture, state, training.schedule)
        converged = bool(bounds) and bound - bounds[-1] < training.tol
        bounds.append(bound)
        training.report(len(bounds), bound)
        mixture = state.mixture.revived(rows.total) or state.mixture
        state = state._replace(mixture=mixture)
    assert state is not None
    return Fitted(state, bounds, converged)


def _shuffled(rows: D, training: Training) -> Iterator[D]:
    order = torch.randperm(len(rows), generator=training.generator)
    return (rows[index] for index in order.split(training.batch_size))


def in_blocks(rows: D, batch_size: int) -> Iterator[D]:
    """Yield the rows in their order, `batch_size` at a time."""
    return (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))


def online_pass(
    blocks: Iterator[D], mixture: M, state: OnlineState[M] | None, schedule: Schedule = USUAL
) -> tuple[float, OnlineState[M]]:
    """Take one step of stepwise EM per block; return the mean log-likelihood on the way, and the state."""
    log_likelihood = total = 0.0
    for block in blocks:
        expectation = block.expect(mixture)
        state = online_step(expectation, mixture, state, schedule)
        mixture = state.mixture
        log_likelihood += expectation.log_likelihood.item()
        total += expectation.n_rows
    assert state is not None, "no blocks"
    return log_likelihood / total, state


def online_step(
    expectation: Any, mixture: M, state: OnlineState[M] | None, schedule: Schedule = USUAL
) -> OnlineState[M]:
    """Return the state after one block: statistics averaged by the schedule's step, then one M-step.

    References
    ----------
    Cappe and Moulines (2009), "On-line expectation-maximization algorithm for latent data models", JRSS B 71(3).
    """
    statistics, n_steps = expectation.statistics.per_row(), 0
    if state is not None:
        n_steps = state.n_steps
        share = (n_steps + schedule.offset) ** -schedule.decay
        statistics = state.to(expectation.log_likelihood.device).statistics.blend(statistics, share)
    if n_steps >= schedule.burn_in:
        mixture = mixture.to(expectation.log_likelihood.device).maximize(statistics)
    return OnlineState(mixture, statistics, n_steps + 1)


def fit_sgd(rows: Rows, mixture: Mixture, training: Training) -> Fitted:
    """Train by Adam on the negative log-likelihood of shuffled blocks, as the paper does.

    The step is halved whenever a pass gains too little; at a sixteenth of the first, training ends.
    The bound of a pass is the mean over its blocks, each scored before the mixture learns from it.
    """
    descent = Descent(mixture)
    bounds: list[float] = []
    while len(bounds) < training.max_iter and descent.share >= _LAST_SHARE:
        log_likelihood = total = 0.0
        for block in _shuffled(rows, training):
            scorer = Scorer(descent.mixture(), rows.like)
            evidence = log_evidence(scorer.log_joint(scorer.features(scorer.ready(block.values))))
            weights = torch.ones_like(evidence) if block.weights is None else block.weights.to(evidence)
            summed, size = weights @ evidence, weights.sum().item()
            descent.step(-summed / size)
            log_likelihood += summed.item()
            total += size
        bounds.append(log_likelihood / total)
        training.report(len(bounds), bounds[-1])
        if len(bounds) > 1 and bounds[-1] - bounds[-2] < training.tol:
            descent.share /= 2
    mixture = descent.mixture(detached=True)
    mixture = mixture.revived(rows.total) or mixture
    statistics = rows.expect(mixture).statistics.per_row()
    return Fitted(OnlineState(mixture, statistics, len(bounds)), bounds, descent.share < _LAST_SHARE)


class Descent:
    """A mixture under gradient steps: Adam in log-weights, means in standard deviations, and log-variances.

    Parameters
    ----------
    mixture : Mixture
        Where the descent begins.
    others : iterable of Tensor
        Further parameters to train along.
    step : float
        Length of the first steps, as a share of the usual one.
    """

    def __init__(self, mixture: Mixture, others: Iterable[Tensor] = (), step: float = 1.0) -> None:
        self._mixture = mixture
        self._scale = mixture.parameters.variance.mean(0).sqrt()
        log_weights, mean, log_variance = mixture.unbounded()
        self._free = [part.clone().requires_grad_() for part in (log_weights, mean / self._scale, log_variance)]
        self._rate = step * _LEARNING_RATE
        self._adam = torch.optim.Adam([*self._free, *others], lr=self._rate)
        self.share = 1.0  # of the first step's length

    def mixture(self, *, detached: bool = False) -> Mixture:
        """Return the mixture as it is now, through which gradients flow unless `detached`."""
        log_weights, mean, log_variance = (part.detach() if detached else part for part in self._free)
        return self._mixture.at((log_weights, mean * self._scale, log_variance))

    def step(self, loss: Tensor) -> None:
        """Take one step down `loss`, then back to what the family of densities allows."""
        for group in self._adam.param_groups:
            group["lr"] = self.share * self._rate
        self._adam.zero_grad()
        loss.backward()
        self._adam.step()
        log_weights, mean, log_variance = self.mixture(detached=True).unbounded()
        with torch.no_grad():
            for part, allowed in zip(self._free, (log_weights, mean / self._scale, log_variance), strict=True):
                part.copy_(allowed)
