"""Scoring of rows, E-step and M-step of mixtures, for all emissions.

Rows are processed in blocks that fit into the processor's cache.  Each block is computed by one thread, and sums over
blocks are taken in float64 and in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain
from numbers import Integral
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from .._distributed import all_gather, local_slice, n_processes
from .._threads import by_blocks
from ._emissions import DiagonalGaussian, Parameters, Statistics
from ._records import Record

# On two cores, with 64 to 512 channels and 200 to 500 components, blocks of 2,048 rows reach nine tenths of the rate of
# a large matrix product, blocks of 512 rows two thirds.  GPUs need larger blocks.
_BLOCK_ROWS, _GPU_BLOCK_ROWS = 2048, 2**16
# exp(-60) = 9e-27 is far below the rounding error of any sum.  Smaller responsibilities would be denormal numbers, with
# which products are ten times slower.
_LEAST_LOG_RESPONSIBILITY = -60.0
# Below this fraction of responsibilities above rounding, sparse sums replace the matrix product.
_FEW = 1 / 8
# Products of one to three rows round differently from those of more rows.
_LEAST_ROWS = 8
R = TypeVar("R")


@dataclass(frozen=True)
class Mixture(Record):
    """A mixture of K components over rows of d channels.  Immutable: a training step returns a new one.

    Parameters
    ----------
    weights : Tensor of shape (K,), float64
        Weight of each component; they sum to one.
    parameters : Parameters
        Means (K, d) relative to `shift`, and variances.
    shift : Tensor of shape (d,)
        Subtracted from the rows, in their dtype, so that float32 keeps its digits for channels far from zero.
    emission : DiagonalGaussian
        The family of densities.
    """

    weights: Tensor
    parameters: Parameters
    shift: Tensor
    emission: DiagonalGaussian

    @property
    def n_channels(self) -> int:
        """Number of channels d of a row."""
        return len(self.shift)

    @property
    def weights_(self) -> np.ndarray:
        """Weights of the components, shape (K,)."""
        return self.weights.numpy(force=True)

    @property
    def means_(self) -> np.ndarray:
        """Means, shape (K, d); of the values before the ReLU for rectified emissions."""
        return (self.parameters.mean + self.shift.double()).numpy(force=True)

    @property
    def emitted_means_(self) -> np.ndarray:
        """Mean row of each component, shape (K, d); behind the ReLU for rectified emissions."""
        return (self.emission.expect(self.parameters) + self.shift.double()).numpy(force=True)

    @property
    def covariances_(self) -> np.ndarray:
        """Variances: (K, d) for "diag", (K,) for "spherical", (d,) for "tied_diag"."""
        variance = self.parameters.variance.numpy(force=True)
        axis = self.emission.tied_axis
        return variance if axis is None else variance.squeeze(axis)

    def __reduce__(self) -> tuple:
        """Pickle as numpy arrays, as the bytes of pickled tensors differ each time."""
        tensors = self.weights, *self.parameters, self.shift, self.emission.floor
        return _mixture_of, (type(self.emission), *(tensor.numpy(force=True) for tensor in tensors))

    def unbounded(self) -> tuple[Tensor, ...]:
        """Return log-weights, means and log-variances: unconstrained coordinates."""
        log_weights = self.weights.clamp_min(torch.finfo(torch.float64).tiny).log()
        return log_weights, self.parameters.mean, self.parameters.variance.log()

    def at(self, coordinates: tuple[Tensor, ...]) -> Mixture:
        """Return the mixture at `coordinates` as in :meth:`unbounded`, projected onto what the family allows."""
        log_weights, mean, log_variance = coordinates
        return replace(self, weights=log_weights.softmax(0), parameters=self.emission.bounded(mean, log_variance.exp()))

    def scorer(self, like: Tensor) -> Scorer:
        """Return the scores of rows in the dtype and on the device of `like`."""
        return Scorer(self, like)

    def maximize(self, statistics: Statistics) -> Mixture:
        """Return the most likely mixture given `statistics` of rows less the shift (the M-step)."""
        weights = statistics.total / statistics.total.sum()
        return replace(self, weights=weights, parameters=self.emission.maximize(statistics, self.parameters))

    def revived(self, n_rows: float) -> Mixture | None:
        """Return the mixture with components that hold less than one row moved beside the heaviest, or None."""
        dead, heavy = dead_and_heavy(self.weights, n_rows)
        return self.split(dead, heavy) if len(dead) else None

    def split(self, dead: Tensor, heavy: Tensor) -> Mixture:
        """Return the mixture with `heavy` components split in two, in place of the `dead` ones.

        Each half has half of the weight and lies half a standard deviation to one side.
        """
        log_weights, mean, log_variance = (part.clone() for part in self.unbounded())
        signs = torch.randint(2, (len(dead), mean.shape[1]), generator=torch.Generator().manual_seed(0)).to(mean) - 0.5
        offset = signs * (log_variance / 2).exp().expand_as(mean)[heavy]
        middle = mean[heavy]
        mean[dead] = middle + offset
        mean[heavy] = middle - offset
        log_weights[heavy] -= math.log(2)
        log_weights[dead] = log_weights[heavy]
        if len(log_variance) == len(mean):
            log_variance[dead] = log_variance[heavy]
        return self.at((log_weights, mean, log_variance))

    def sample(self, n_rows: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw rows (n_rows, d), ordered by component, and their components (n_rows,)."""
        components = torch.multinomial(self.weights.cpu(), n_rows, replacement=True, generator=generator).sort().values
        return self.emit(components, generator), components

    def emit(self, components: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw one row from each of the `components` (n_rows,)."""
        mean, variance = (part.expand_as(self.parameters.mean).cpu()[components] for part in self.parameters)
        hidden = torch.normal(mean, variance.sqrt(), generator=generator) + self.shift.cpu().double()
        return self.emission.emit(hidden)


@contextmanager
def sampling(n_samples: Any, n_channels: int) -> Iterator[None]:
    """Validate `n_samples`, and raise MemoryError with the size of samples that do not fit into memory."""
    if not isinstance(n_samples, Integral) or isinstance(n_samples, bool) or n_samples < 1:
        raise ValueError(f"n_samples must be an integer of at least 1; got {n_samples!r}.")
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch raises the latter
        gigabytes = 8e-9 * int(n_samples) * n_channels
        raise MemoryError(
            f"n_samples={n_samples} rows of {n_channels} channels take {gigabytes:,.0f} GB, which do not fit into "
            "memory; draw fewer at a time."
        ) from error


def dead_and_heavy(weights: Tensor, n_rows: float) -> tuple[Tensor, Tensor]:
    """Return the components that hold less than one of `n_rows`, and equally many of the heaviest."""
    dead = (weights * n_rows < 1).nonzero().flatten()[: len(weights) // 2]
    return dead, weights.argsort(descending=True)[: len(dead)]


class Assignment(NamedTuple):
    """The likeliest component of each row, and its posterior and log p(x | k) or None, all (n,)."""

    component: Tensor
    posterior: Any = None
    log_density: Any = None


def _mixture_of(family: type[DiagonalGaussian], *arrays: np.ndarray) -> Mixture:
    weights, mean, variance, shift, floor = (torch.from_numpy(array.copy()) for array in arrays)
    return Mixture(weights, Parameters(mean, variance), shift, family(floor))


class Scorer:
    """Scores of rows under a mixture, in the dtype and on the device of the tensor `like`.

    The quadratic forms are expanded, so log-densities are off by up to ``(1 + sqrt(d) / 2) eps`` times the sum over the
    channels of ``(x^2 + mean^2) / variance + 10``, of rows and means less the shift.  In float32 `eps` is 1.2e-7.
    """

    log_prior = 0.0

    def __init__(self, mixture: Mixture, like: Tensor) -> None:
        mixture = mixture.to(like.device)
        theta, normaliser = mixture.emission.natural(mixture.parameters)
        log_weights = mixture.weights.clamp_min(torch.finfo(torch.float64).tiny).log()
        self.block_rows = _BLOCK_ROWS if like.device.type == "cpu" else _GPU_BLOCK_ROWS
        self._features = mixture.emission.features
        self._shift = mixture.shift.to(like)
        self._theta = [part.T.to(like.dtype).contiguous() for part in theta]
        self._normaliser = -normaliser.to(like.dtype)
        self._offset = (log_weights - normaliser).to(like.dtype)
        self._log_weights = log_weights.to(like.dtype)

    def no_statistics(self) -> Statistics:
        shapes = [self._log_weights.shape, *(part.T.shape for part in self._theta)]
        total, *sums = (torch.zeros(shape, dtype=torch.float64, device=self._shift.device) for shape in shapes)
        return Statistics(total, tuple(sums))

    def n_operations(self, n_rows: int) -> int:
        """Return the approximate number of multiplications to score `n_rows` on the CPU; 0 on other devices."""
        if self._shift.device.type != "cpu":
            return 0
        return n_rows * len(self._log_weights) * sum(map(len, self._theta))

    def features(self, block: Tensor) -> tuple[Tensor, ...]:
        """Return phi of the rows (n, d) less the shift, in the dtype and on the device of the scorer."""
        return self._features(block.to(self._shift) - self._shift)

    def joint(self, block: Tensor) -> Tensor:
        """Return log(weight_k p(x | k)), shape (n, K), of the rows (n, d)."""
        return self.log_joint(self.features(block))

    def log_joint(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return log(weight_k p(x | k)), shape (n, K), from :meth:`features`."""
        return self._scores(features, self._offset)

    def log_density(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return log p(x | k), shape (n, K), from :meth:`features`."""
        return self._scores(features, self._normaliser)

    def _scores(self, features: tuple[Tensor, ...], offset: Tensor) -> Tensor:
        n_rows = len(features[0])
        if n_rows < _LEAST_ROWS:
            more = tuple(pad(part, (0, 0, 0, _LEAST_ROWS - n_rows)) for part in features)
            return self._scores(more, offset)[:n_rows]
        scores = torch.addmm(offset, features[0], self._theta[0])
        for feature, theta in zip(features[1:], self._theta[1:], strict=True):
            if theta.shape[1] == scores.shape[1]:
                scores.addmm_(feature, theta)
            else:  # one column for all components
                scores += feature @ theta
        return scores

    def _collect(self, work: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """Return the results of `work` on the log-joint densities of blocks of `rows` (n, d), one below the other."""
        parts = self._by_blocks(lambda block: work(self.joint(block)), rows)
        first = next(parts)
        # Small results between large temporary ones would fragment the heap.
        results = first.new_empty(len(rows), *first.shape[1:])
        for block, part in zip(results.split(self.block_rows), chain([first], parts), strict=True):
            block.copy_(part)
        return results

    def _by_blocks(self, work: Callable[[Tensor], R], rows: Tensor) -> Iterator[R]:
        return by_blocks(work, rows.split(self.block_rows), self.n_operations(len(rows)))

    def predict(self, rows: Tensor) -> Tensor:
        """Return the likeliest component of each row, int64 of shape (n,)."""
        return self._collect(lambda joint: joint.argmax(1), rows)

    def evidence(self, rows: Tensor) -> Tensor:
        """Return log p(x) of each row in nats, shape (n,)."""
        return self._collect(log_evidence, rows)

    def predict_proba(self, rows: Tensor) -> Tensor:
        """Return the responsibilities, shape (n, K)."""
        return self._collect(responsibilities, rows)

    def expect(self, block: Rows) -> tuple[Tensor, Statistics, Tensor | None]:
        """Return the E-step of one block: the sum of log p(x), statistics, and the likeliest components (n,)."""
        features = self.features(block.values)
        joint = self.log_joint(features)
        weights = torch.ones_like(joint[:, 0]) if block.weights is None else block.weights.to(joint)
        shares, evidence, components = _weighted_shares(joint, weights)
        log_likelihood = weights.double() @ evidence.double()
        return log_likelihood, self.statistics(features, shares, weights), components

    def statistics(self, features: tuple[Tensor, ...], shares: Tensor, weights: Tensor) -> Statistics:
        """Return the statistics of rows with `features` phi, `weights` (n,) and weighted posteriors (n, K).

        The posteriors may be sparse.
        """
        total = shares.T @ torch.ones_like(weights)
        # Entries with a single column are common to all components.
        by = (shares.T if theta.shape[1] == len(total) else weights[None] for theta in self._theta)
        return Statistics(total, tuple(part @ feature for part, feature in zip(by, features, strict=True)))

    def assign(self, rows: Tensor, scored: bool = True) -> Assignment:
        """Return the likeliest component of each row, with its posterior and log-density if `scored`."""
        if not scored:
            return Assignment(self.predict(rows))
        return Assignment(*map(torch.cat, zip(*self._by_blocks(self._assign, rows), strict=True)))

    def _assign(self, block: Tensor) -> Assignment:
        joint = self.joint(block)
        largest, component = joint.max(1)
        posterior = (largest - log_evidence(joint)).exp_().clamp_max_(1)
        return Assignment(component, posterior, largest - self._log_weights[component])


def log_evidence(joint: Tensor) -> Tensor:
    """Return log p(x), shape (n,), from log-joint densities (n, K), with gradients."""
    return _not_denormal(joint).logsumexp(1)


def responsibilities(joint: Tensor) -> Tensor:
    """Return the posteriors of the components, from log-joint densities (n, K), with gradients."""
    return _not_denormal(joint).softmax(1)


def _not_denormal(joint: Tensor) -> Tensor:
    return joint.maximum(joint.detach().amax(1, keepdim=True) + _LEAST_LOG_RESPONSIBILITY)


def _weighted_shares(joint: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return responsibilities times `weights` (n,), log p(x) and the likeliest components; overwrite `joint` (n, K).

    With hundreds of channels, one or two responsibilities per row are above rounding.  If most are below, these are
    left out, and the sums of the M-step cost a fraction of the E-step.
    """
    largest = joint.amax(1, keepdim=True)
    # The sum of what is left out is below rounding, unless there are many hundreds of components.
    threshold = largest + math.log(torch.finfo(joint.dtype).eps / 64)
    near = (joint < threshold).logical_not_()  # NaN is near
    if joint.is_cuda or near.count_nonzero() > _FEW * near.numel():
        # In place: small results between large temporary ones would fragment the heap.
        likeliest = joint.argmax(1)
        total = joint.sub_(largest).clamp_min_(_LEAST_LOG_RESPONSIBILITY).exp_().sum(1)
        return joint.mul_((weights / total)[:, None]), largest[:, 0] + total.log(), likeliest
    cell = torch.from_numpy(np.flatnonzero(near.numpy()))  # ten times faster than torch's
    row = cell // joint.shape[1]
    component = cell % joint.shape[1]
    share = (joint.flatten()[cell] - largest[row, 0]).exp_()
    best = share == 1
    likeliest = torch.zeros_like(weights, dtype=torch.int64).index_put_((row[best],), component[best])
    total = torch.zeros_like(weights).index_add_(0, row, share)
    share *= (weights / total)[row]
    shares = torch.sparse_coo_tensor(torch.stack((component, row)), share, joint.T.shape, check_invariants=False).T
    return shares, largest[:, 0] + total.log(), likeliest


class Expectation:
    """The E-step as a running sum over rows: call :meth:`add` any number of times, then read `statistics`.

    `model` is a mixture or a chain of mixtures; `like` has the dtype and device of the computation.
    """

    def __init__(self, model: Any, like: Tensor, keep_components: bool = False) -> None:
        self._scorer = model.scorer(like)
        self._keep_components = keep_components
        self._components: list[Tensor] = []
        self.log_likelihood = torch.zeros((), dtype=torch.float64, device=like.device)
        self.statistics = self._scorer.no_statistics()

    def add(self, rows: Rows) -> None:
        """Add the rows to the sums."""
        blocks = in_blocks(rows, self._scorer.block_rows)
        parts = by_blocks(self._scorer.expect, blocks, 2 * self._scorer.n_operations(len(rows)))
        for log_likelihood, statistics, components in parts:
            self.log_likelihood += log_likelihood
            self.statistics = self.statistics.add_(statistics)
            if self._keep_components and components is not None:
                self._components.append(components)

    def merge(self) -> None:
        """Add the sums of the other processes; every process must call this."""
        if n_processes() == 1:
            return
        device = self.log_likelihood.device
        parts = all_gather((self.log_likelihood.cpu(), self.statistics.to("cpu"), self.components))
        likelihoods, statistics, components = zip(*parts, strict=True)
        self.log_likelihood = sum(likelihoods[1:], likelihoods[0]).to(device)
        self.statistics = reduce(lambda one, other: one.add_(other), statistics).to(device)
        self._components = [part.to(device) for part in components if part is not None]

    @property
    def components(self) -> Tensor | None:
        """Likeliest component of each row, int64 of shape (n,), if they are kept."""
        return torch.cat(self._components) if self._components else None

    @property
    def n_rows(self) -> float:
        """Total weight of the rows."""
        return self.statistics.n_rows

    @property
    def mean_log_likelihood(self) -> float:
        """Mean of log p(x) over the rows, in nats."""
        return self.log_likelihood.item() / self.n_rows

    @property
    def bound(self) -> float:
        """Objective of training, per row in nats: the log-likelihood and the log-prior."""
        return (self.log_likelihood.item() + self._scorer.log_prior) / self.n_rows


@dataclass(frozen=True)
class Rows:
    """Training rows (n, d), their weights (n,), and observed decisions `targets` (n,) of a chain.

    `like` has the dtype and device of the computation; those of the rows if None.  `shared` rows are equal in all
    processes of ``torch.distributed``, which divide the E-step.
    """

    values: Tensor
    weights: Tensor | None = None
    like: Any = None
    targets: Tensor | None = None
    shared: bool = False

    def __post_init__(self) -> None:
        if self.like is None:
            object.__setattr__(self, "like", self.values[:0])

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Tensor | slice) -> Rows:
        weights, targets = (None if part is None else part[index] for part in (self.weights, self.targets))
        return replace(self, values=self.values[index], weights=weights, targets=targets)

    @property
    def total(self) -> float:
        """Total weight of the rows."""
        return len(self.values) if self.weights is None else self.weights.sum().item()

    def expect(self, model: Any) -> Expectation:
        """Return the E-step over all rows."""
        expectation = Expectation(model, self.like, keep_components=True)
        expectation.add(self[local_slice(len(self))] if self.shared else self)
        if self.shared:
            expectation.merge()
        return expectation


def in_blocks(rows: Rows, n_rows: int) -> Iterator[Rows]:
    """Yield successive blocks of `n_rows` rows."""
    return (rows[start : start + n_rows] for start in range(0, len(rows), n_rows))
