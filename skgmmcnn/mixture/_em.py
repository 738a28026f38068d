"""What every way to train a mixture is made of: scoring rows, the E-step and the M-step, for all emissions.

Rows pass in blocks of the mixture's own size, so that the working set of a block stays in the processor's cache.  Each
is computed by one thread, and sums over blocks are taken in float64, in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from .._distributed import all_gather, n_processes
from .._threads import by_blocks
from ._emissions import Emission, Parameters, SphericalGaussian, Statistics, TiedDiagonalGaussian

# Measured on two cores from 64 channels and 200 components to 512 and 500: 2,048 rows pass at nine tenths of the rate
# of a large matrix product, 512 rows at two thirds.  A GPU wants more to do at once.
_BLOCK_ROWS, _GPU_BLOCK_ROWS = 2048, 2**16
# exp(-60) = 9e-27 lies far below the rounding of any sum that it enters.  Smaller responsibilities would underflow to
# denormal numbers, on which processors multiply ten times slower.
_LEAST_LOG_RESPONSIBILITY = -60.0
# Only so many of a row's responsibilities, on average, are summed one by one rather than by a product of all.
_FEW = 1 / 8
# Products of one to three rows are rounded otherwise than those of more.
_LEAST_ROWS = 8
R = TypeVar("R")


@dataclass(frozen=True)
class Mixture:
    """A mixture of K components over rows of d channels.  Immutable: a training step returns another.

    Fitted ones are found in :attr:`LayerDictionary.mixtures_`.

    Parameters
    ----------
    weights : Tensor of shape (K,), float64
        Share of the rows that each component explains; sums to one.
    parameters : Parameters
        Means (K, d) of the rows less `shift`, and variances.
    shift : Tensor of shape (d,)
        Taken from the rows, in their dtype, before they are squared: float32 then keeps its digits also where a
        channel lies far from zero.
    emission : Emission
        The family of densities.
    """

    weights: Tensor
    parameters: Parameters
    shift: Tensor
    emission: Emission

    @property
    def weights_(self) -> np.ndarray:
        """Shares of the components, shape (K,)."""
        return self.weights.numpy(force=True)

    @property
    def means_(self) -> np.ndarray:
        """Means, shape (K, d), in the units of the rows; of the values before the ReLU where those are modelled."""
        return (self.parameters.mean + self.shift.double()).numpy(force=True)

    @property
    def emitted_means_(self) -> np.ndarray:
        """Mean row of each component, shape (K, d): as `means_`, but behind the ReLU where that is modelled."""
        return (self.emission.expect(self.parameters) + self.shift.double()).numpy(force=True)

    @property
    def covariances_(self) -> np.ndarray:
        """Variances: (K, d), or (K,) where channels share them, or (d,) where components do."""
        variance = self.parameters.variance.numpy(force=True)
        if isinstance(self.emission, SphericalGaussian):
            return variance[:, 0]
        return variance[0] if isinstance(self.emission, TiedDiagonalGaussian) else variance

    def to(self, device: torch.device | str) -> Mixture:
        """Return the mixture on another device.

        Parameters
        ----------
        device : torch.device or str
            Where its tensors go.

        Returns
        -------
        mixture : Mixture
            The same mixture.
        """
        return Mixture(
            self.weights.to(device),
            Parameters(*(part.to(device) for part in self.parameters)),
            self.shift.to(device),
            replace(self.emission, floor=self.emission.floor.to(device)),
        )

    def __reduce__(self) -> tuple:
        """Pickle as numpy arrays: torch's tensors give other bytes, and other hashes, each time."""
        tensors = self.weights, *self.parameters, self.shift, self.emission.floor
        return _mixture_of, (type(self.emission), *(tensor.numpy(force=True) for tensor in tensors))

    def unbounded(self) -> tuple[Tensor, ...]:
        """Return log-weights, means and log-variances: the coordinates in which training may take any step.

        Returns
        -------
        coordinates : tuple of Tensor
            As :meth:`at` takes them.
        """
        log_weights = self.weights.clamp_min(torch.finfo(torch.float64).tiny).log()
        return log_weights, self.parameters.mean, self.parameters.variance.log()

    def at(self, coordinates: tuple[Tensor, ...]) -> Mixture:
        """Return the mixture nearest to `coordinates`.

        Parameters
        ----------
        coordinates : tuple of Tensor
            Log-weights up to a constant, means and log-variances.

        Returns
        -------
        mixture : Mixture
            One that its family allows: above the variance floor, for example.
        """
        log_weights, mean, log_variance = coordinates
        return replace(self, weights=log_weights.softmax(0), parameters=self.emission.bounded(mean, log_variance.exp()))

    def maximize(self, statistics: Statistics) -> Mixture:
        """Take the M-step.

        Parameters
        ----------
        statistics : Statistics
            Sums over rows less the shift, by the responsibilities of this mixture.

        Returns
        -------
        mixture : Mixture
            The one that is most likely given the statistics.
        """
        weights = statistics.total / statistics.total.sum()
        return replace(self, weights=weights, parameters=self.emission.maximize(statistics, self.parameters))

    def revived(self, n_rows: float) -> Mixture | None:
        """Move components that hold less than one of the rows beside the heaviest.

        Parameters
        ----------
        n_rows : float
            Number of rows.

        Returns
        -------
        mixture : Mixture or None
            The mixture with these components moved; None if there are none.
        """
        dead, heavy = dead_and_heavy(self.weights, n_rows)
        return self.split(dead, heavy) if len(dead) else None

    def split(self, dead: Tensor, heavy: Tensor) -> Mixture:
        """Divide components between themselves and others, which are given up.

        Parameters
        ----------
        dead : int Tensor
            Components to give up.
        heavy : int Tensor of the same shape
            Components that move half a standard deviation to one side, while the former go to the other.

        Returns
        -------
        mixture : Mixture
            With the weights of the latter halved.
        """
        log_weights, mean, log_variance = (part.clone() for part in self.unbounded())
        signs = torch.randint(2, (len(dead), mean.shape[1]), generator=torch.Generator().manual_seed(0)).to(mean) - 0.5
        aside = signs * (log_variance / 2).exp().expand_as(mean)[heavy]
        mean[dead], mean[heavy] = mean[heavy] + aside, mean[heavy] - aside
        log_weights[heavy] -= math.log(2)
        log_weights[dead] = log_weights[heavy]
        if len(log_variance) == len(mean):
            log_variance[dead] = log_variance[heavy]
        return self.at((log_weights, mean, log_variance))

    def sample(self, n_rows: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw rows.

        Parameters
        ----------
        n_rows : int
            How many.
        generator : torch.Generator, default=None
            Source of randomness on the CPU.

        Returns
        -------
        rows : Tensor of shape (n_rows, d), float64
            The rows, ordered by component; exact zeros where a rectified Gaussian draws a negative value.
        components : Tensor of shape (n_rows,)
            The component that each row was drawn from.
        """
        components = torch.multinomial(self.weights.cpu(), n_rows, replacement=True, generator=generator).sort().values
        return self.emit(components, generator), components

    def emit(self, components: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw a row from each of given components.

        Parameters
        ----------
        components : int Tensor of shape (n_rows,)
            Their numbers.
        generator : torch.Generator, default=None
            Source of randomness on the CPU.

        Returns
        -------
        rows : Tensor of shape (n_rows, d), float64
            The rows; exact zeros where a rectified Gaussian draws a negative value.
        """
        mean, variance = (part.expand_as(self.parameters.mean).cpu()[components] for part in self.parameters)
        hidden = torch.normal(mean, variance.sqrt(), generator=generator) + self.shift.cpu().double()
        return self.emission.emit(hidden)


def dead_and_heavy(weights: Tensor, n_rows: float) -> tuple[Tensor, Tensor]:
    """Return the components that hold less than one of `n_rows`, and as many of the heaviest."""
    dead = (weights * n_rows < 1).nonzero().flatten()[: len(weights) // 2]
    return dead, weights.argsort(descending=True)[: len(dead)]


class Assignment(NamedTuple):
    """What a mixture says of rows: the likeliest component of each, all of shape (n,).

    `posterior` is that component's share, `log_density` its log p(x | k), `evidence` log p(x), both in nats.
    """

    component: Tensor
    posterior: Tensor
    log_density: Tensor
    evidence: Tensor


def _mixture_of(family: type[Emission], *arrays: np.ndarray) -> Mixture:
    weights, mean, variance, shift, floor = (torch.from_numpy(array.copy()) for array in arrays)
    return Mixture(weights, Parameters(mean, variance), shift, family(floor))


class Scorer:
    """The mixture made ready to score many blocks of rows in one dtype on one device, those of the tensor `like`.

    The quadratic forms are expanded, so rounding grows with their terms: log-densities are off by less than
    ``(1 + sqrt(d) / 2) eps`` times the sum over channels of ``(x^2 + mean^2) / variance + 10``, of rows and means less
    the shift.  In float32 `eps` is 1.2e-7.
    """

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
        """Return the statistics of no rows."""
        shapes = [self._log_weights.shape, *(part.T.shape for part in self._theta)]
        total, *sums = (torch.zeros(shape, dtype=torch.float64, device=self._shift.device) for shape in shapes)
        return Statistics(total, tuple(sums))

    def n_operations(self, n_rows: int) -> int:
        """Return roughly how many multiplications it takes to score so many rows on the CPU; 0 on another device."""
        if self._shift.device.type != "cpu":
            return 0
        return n_rows * len(self._log_weights) * sum(map(len, self._theta))

    def blocks(self, rows: Tensor) -> Iterator[Tensor]:
        """Yield blocks of `rows` (n, d), made ready."""
        return map(self.ready, rows.split(self.block_rows))

    def _by_blocks(self, work: Callable[[Tensor], R], rows: Tensor) -> Iterator[R]:
        """Yield what `work` returns for blocks of `rows` (n, d), made ready."""
        return by_blocks(work, self.blocks(rows), self.n_operations(len(rows)))

    def ready(self, rows: Tensor) -> Tensor:
        """Return `rows` in the scorer's dtype, on its device."""
        return rows.to(self._shift)

    def features(self, block: Tensor) -> tuple[Tensor, ...]:
        """Return phi of the rows (n, d) less the shift."""
        return self._features(block - self._shift)

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

    def _filled(self, dtype: torch.dtype, work: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """Return what `work` returns for the log-joint densities of blocks of `rows` (n, d): one value a row."""
        # Small results made between large temporary ones would keep the heap from being used again.
        filled = torch.empty(len(rows), dtype=dtype, device=self._shift.device)
        parts = self._by_blocks(lambda block: work(self._joint(block)), rows)
        for place, part in zip(filled.split(self.block_rows), parts, strict=True):
            place.copy_(part)
        return filled

    def _joint(self, block: Tensor) -> Tensor:
        return self.log_joint(self.features(block))

    def predict(self, rows: Tensor) -> Tensor:
        """Return the likeliest component of each row, int64 of shape (n,)."""
        return self._filled(torch.int64, lambda joint: joint.argmax(1), rows)

    def evidence(self, rows: Tensor) -> Tensor:
        """Return log p(x) of each row in nats, shape (n,)."""
        return self._filled(self._shift.dtype, log_evidence, rows)

    def predict_proba(self, rows: Tensor) -> Tensor:
        """Return the responsibilities, shape (n, K)."""
        return torch.cat(list(self._by_blocks(lambda block: responsibilities(self._joint(block)), rows)))

    def assign(self, rows: Tensor) -> Assignment:
        """Return the likeliest component of each row, and its probability and density."""
        return Assignment(*map(torch.cat, zip(*self._by_blocks(self._assign, rows), strict=True)))

    def _assign(self, block: Tensor) -> Assignment:
        joint = self._joint(block)
        largest, component = joint.max(1)
        evidence = log_evidence(joint)
        return Assignment(
            component, (largest - evidence).exp_().clamp_max_(1), largest - self._log_weights[component], evidence
        )


def log_evidence(joint: Tensor) -> Tensor:
    """Return log p(x), shape (n,), from log-joint densities (n, K), with gradients."""
    return _not_denormal(joint).logsumexp(1)


def responsibilities(joint: Tensor) -> Tensor:
    """Return the shares of the components, from log-joint densities (n, K), with gradients."""
    return _not_denormal(joint).softmax(1)


def _not_denormal(joint: Tensor) -> Tensor:
    return joint.maximum(joint.detach().amax(1, keepdim=True) + _LEAST_LOG_RESPONSIBILITY)


def _weighted_shares(joint: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return responsibilities times `weights` (n,), log p(x) and the likeliest components; overwrite `joint` (n, K).

    With hundreds of channels a row has one or two responsibilities above rounding.  The others are left out where that
    makes few of them: the sums of the M-step then cost a fraction of the E-step.
    """
    largest = joint.amax(1, keepdim=True)
    # What is left out weighs together less than the rounding of the sum, unless there are many hundreds of them.
    near = (joint < largest + math.log(torch.finfo(joint.dtype).eps / 64)).logical_not_()  # NaN is near
    if joint.is_cuda or near.count_nonzero() > _FEW * near.numel():
        # In place: small results made between large temporary ones would keep the heap from being used again.
        likeliest = joint.argmax(1)
        total = joint.sub_(largest).clamp_min_(_LEAST_LOG_RESPONSIBILITY).exp_().sum(1)
        return joint.mul_((weights / total)[:, None]), largest[:, 0] + total.log(), likeliest
    place = torch.from_numpy(np.flatnonzero(near.numpy()))  # ten times faster than torch's
    row, component = place // joint.shape[1], place % joint.shape[1]
    share = (joint.flatten()[place] - largest[row, 0]).exp_()
    best = share == 1
    likeliest = torch.zeros_like(weights, dtype=torch.int64).index_put_((row[best],), component[best])
    total = torch.zeros_like(weights).index_add_(0, row, share)
    share *= (weights / total)[row]
    shares = torch.sparse_coo_tensor(torch.stack((component, row)), share, joint.T.shape, check_invariants=False).T
    return shares, largest[:, 0] + total.log(), likeliest


class Expectation:
    """The E-step as a running sum: feed it rows, in any number of calls, then read `statistics`.

    Parameters
    ----------
    mixture : Mixture
        Held fixed while rows are fed.
    like : Tensor
        Any tensor with the dtype and device to compute with.
    keep_components : bool, default=False
        Whether to keep the likeliest component of every row.
    """

    def __init__(self, mixture: Mixture, like: Tensor, keep_components: bool = False) -> None:
        self._scorer = Scorer(mixture, like)
        self._components: list[Tensor] | None = [] if keep_components else None
        self.log_likelihood = torch.zeros((), dtype=torch.float64, device=like.device)
        self.statistics = self._scorer.no_statistics()

    def add(self, rows: Tensor, weights: Tensor | None = None) -> None:
        """Add the rows (n, d), each counted as often as `weights` (n,) says, to the sums."""
        n_rows = self._scorer.block_rows
        counted = repeat(None) if weights is None else weights.split(n_rows)
        blocks = zip(rows.split(n_rows), counted, strict=False)
        parts = by_blocks(self._of_block, blocks, 2 * self._scorer.n_operations(len(rows)))
        for log_likelihood, statistics, components in parts:
            self.log_likelihood += log_likelihood
            self.statistics.add_(statistics)
            if self._components is not None:
                self._components.append(components)

    def _of_block(self, block: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Statistics, Tensor]:
        rows, weights = block
        features = self._scorer.features(self._scorer.ready(rows))
        joint = self._scorer.log_joint(features)
        weights = torch.ones_like(joint[:, 0]) if weights is None else weights.to(joint)
        shares, evidence, components = _weighted_shares(joint, weights)
        return weights.double() @ evidence.double(), self.statistics.of_rows(features, shares, weights), components

    def merge(self) -> None:
        """Add what the other processes have summed; all must call this."""
        if n_processes() == 1:
            return
        parts = all_gather((self.log_likelihood.cpu(), self.statistics.to("cpu"), self.components))
        device = self.log_likelihood.device
        self.log_likelihood = sum((part[0] for part in parts), torch.zeros((), dtype=torch.float64)).to(device)
        if self._components is not None:
            self._components = [part[2].to(device) for part in parts]
        everyones = [part[1] for part in parts]
        total = torch.stack([statistics.total for statistics in everyones]).sum(0)
        columns = zip(*(statistics.sums for statistics in everyones), strict=True)
        self.statistics = Statistics(total, tuple(torch.stack(parts).sum(0) for parts in columns)).to(device)

    @property
    def components(self) -> Tensor | None:
        """The likeliest component of every row, int64 of shape (n,), where they are kept."""
        return None if self._components is None else torch.cat(self._components)

    @property
    def n_rows(self) -> float:
        """What the rows weigh together."""
        return self.statistics.total.sum().item()

    @property
    def mean_log_likelihood(self) -> float:
        """Mean of log p(x) over the rows, in nats."""
        return self.log_likelihood.item() / self.n_rows

    @property
    def bound(self) -> float:
        """What training raises: the mean log-likelihood."""
        return self.mean_log_likelihood
