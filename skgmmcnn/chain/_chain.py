"""Hidden Markov chains over layers, with mixtures as emissions, for the solvers of :mod:`skgmmcnn.mixture`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import threshold

from .._threads import by_blocks
from ..mixture import Assignment, Mixture, Record, Rows, Scorer, Statistics, Sums, dead_and_heavy, in_blocks
from ._recursions import forward_backward, state_posteriors

R = TypeVar("R")
_TINY = torch.finfo(torch.float64).tiny
# Smaller posteriors would be denormal numbers in float32; they are far below the rounding error of any sum.
_LEAST_POSTERIOR = 1e-26


@dataclass(frozen=True)
class Chain(Record):
    """P(h, x, c) = prod P(h_l | h_l-1) prod p(x_l | h_l) P(c | h_L).  Immutable.

    Parameters
    ----------
    tables : tuple of Tensor of shape (K_l-1, K_l), float64
        P(word | word of the layer below), one per layer; the first has one row.  If decisions c are observed, a last
        table (K_L, n_outputs) holds P(decision | word of the last layer).
    mixtures : tuple of Mixture
        Emissions, with the marginal probabilities of the words as weights.
    smoothing : float
        Pseudo-count of each row of a table, divided evenly among the cells.
    """

    tables: tuple[Tensor, ...]
    mixtures: tuple[Mixture, ...]
    smoothing: float

    @property
    def start(self) -> Tensor:
        """Distribution of the first layer's word, shape (K_1,)."""
        return self.tables[0][0]

    @property
    def transitions(self) -> tuple[Tensor, ...]:
        """P(word of the layer above | word), each (K_l, K_l+1)."""
        return self.tables[1 : len(self.mixtures)]

    @property
    def decision(self) -> Tensor | None:
        """P(decision | word of the last layer), shape (K_L, n_outputs), if decisions are observed."""
        return self.tables[-1] if len(self.tables) > len(self.mixtures) else None

    @property
    def sizes(self) -> list[int]:
        return [mixture.n_channels for mixture in self.mixtures]

    def with_tables(self, tables: Sequence[Tensor]) -> Chain:
        """Return the chain with new tables and the corresponding marginal weights."""
        marginals = accumulate(tables[1 : len(self.mixtures)], torch.matmul, initial=tables[0][0])
        mixtures = (replace(mixture, weights=part) for mixture, part in zip(self.mixtures, marginals, strict=True))
        return replace(self, tables=tuple(tables), mixtures=tuple(mixtures))

    def class_tables(self) -> list[Tensor]:
        """Return P(decision | word) of every layer, each (K_l, n_outputs)."""
        return [*accumulate(self.tables[:0:-1], lambda above, table: table @ above)][::-1]

    def log_prior(self) -> float:
        """Return the log-prior up to a constant: Dirichlet with concentration 1 + smoothing / K for rows of K cells."""
        if not self.smoothing:
            return 0.0
        return self.smoothing * sum(table.log().mean(1).sum().item() for table in self.tables)

    def scorer(self, like: Tensor) -> ChainScorer:
        return ChainScorer(self, like)

    def maximize(self, statistics: ChainStatistics) -> Chain:
        """Return the maximum a posteriori chain given `statistics` (the M-step)."""
        strength = self.smoothing * statistics.layers[0].n_rows / statistics.n_rows  # of averages, per example
        mixtures = tuple(mixture.maximize(part) for mixture, part in zip(self.mixtures, statistics.layers, strict=True))
        counted = zip(statistics.tables, self.tables, strict=True)
        return replace(self, mixtures=mixtures).with_tables([_maximized(*pair, strength) for pair in counted])

    def revived(self, n_rows: float) -> Chain | None:
        """Return the chain with words that hold less than one example moved beside the heaviest, or None."""
        chain = self
        for layer, mixture in enumerate(self.mixtures):
            dead, heavy = dead_and_heavy(mixture.weights, n_rows)
            if len(dead):
                chain = chain._split(layer, dead, heavy)
        return None if chain is self else chain

    def _split(self, layer: int, dead: Tensor, heavy: Tensor) -> Chain:
        """Return the chain with `heavy` words split in two, in place of the `dead` ones."""
        mixtures, tables = list(self.mixtures), list(self.tables)
        mixtures[layer] = mixtures[layer].split(dead, heavy)
        incoming = tables[layer] = tables[layer].clone()
        incoming[:, heavy] /= 2
        incoming[:, dead] += incoming[:, heavy]
        if layer + 1 < len(tables):
            tables[layer + 1] = tables[layer + 1].clone()
            tables[layer + 1][dead] = tables[layer + 1][heavy]
        return replace(self, mixtures=tuple(mixtures)).with_tables(tables)


def uniform(n_states: Sequence[int], n_outputs: int) -> list[Tensor]:
    """Return tables of equal probabilities."""
    sizes = [1, *n_states, *([n_outputs] if n_outputs else [])]
    return [torch.full(pair, 1 / pair[1], dtype=torch.float64) for pair in pairwise(sizes)]


def _maximized(counts: Tensor, table: Tensor, strength: float) -> Tensor:
    """Return the maximum a posteriori probabilities (J, K) given expected counts; empty rows do not change."""
    counts = counts + strength / counts.shape[1]
    total = counts.sum(1, keepdim=True)
    return (counts / total).where(total > 0, table)


@dataclass(frozen=True)
class ChainStatistics(Sums):
    """Sums over examples: statistics of each layer, expected counts of each table, and the effective `n_rows`."""

    layers: tuple[Statistics, ...]
    tables: tuple[Tensor, ...]
    n_rows: float

    def add_(self, other: ChainStatistics) -> ChainStatistics:
        """Add the sums over other examples in place, and return the result."""
        return replace(super().add_(other), n_rows=self.n_rows + other.n_rows)

    def blend(self, other: ChainStatistics, share: float) -> ChainStatistics:
        """Return ``(1 - share) * self + share * other`` of two averages."""
        # The effective sample size of the weighted mean.
        n_rows = 1 / ((1 - share) ** 2 / self.n_rows + share**2 / other.n_rows)
        return replace(super().blend(other, share), n_rows=n_rows)

    def per_row(self) -> ChainStatistics:
        """Return averages over the examples."""
        tables = tuple(part / self.layers[0].n_rows for part in self.tables)
        return ChainStatistics(tuple(part.per_row() for part in self.layers), tables, self.n_rows)


class ChainScorer:
    """Scores of examples under a chain: densities in the dtype of the tensor `like`, recursions in float64."""

    def __init__(self, chain: Chain, like: Tensor) -> None:
        self.chain = chain = chain.to(like.device)
        self._scorers = [Scorer(mixture, like) for mixture in chain.mixtures]
        self.block_rows = self._scorers[0].block_rows
        # Clamped: a decision of probability zero under all words carries no information.
        self._log_decision = None if chain.decision is None else chain.decision.T.clamp_min(_TINY).log()

    def features(self, block: Tensor) -> list[tuple[Tensor, ...]]:
        """Return phi of each layer for examples (n, sum of d)."""
        parts = block.split(self.chain.sizes, 1)
        return [scorer.features(part) for scorer, part in zip(self._scorers, parts, strict=True)]

    def infer(self, recursion: Callable[..., R], values: Tensor, targets: Tensor | None = None) -> Iterator[R]:
        """Yield the results of a recursion for blocks of examples (n, sum of d), given their decisions (n,)."""

        def work(block: Rows) -> R:
            emissions = self.emissions(self.features(block.values), block.targets)
            return recursion(self.chain.start, self.chain.transitions, emissions)

        blocks = in_blocks(Rows(values, targets=targets), self.block_rows)
        return by_blocks(work, blocks, self.n_operations(len(values)))

    def expect(self, block: Rows) -> tuple[Tensor, ChainStatistics, None]:
        """Return the E-step of one block: the sum of log p(x), and statistics."""
        chain, features = self.chain, self.features(block.values)
        emissions = self.emissions(features, block.targets)
        evidence, posteriors, pairs = forward_backward(chain.start, chain.transitions, emissions)
        ones = torch.ones_like(features[0][0][:, 0])
        layers = tuple(
            scorer.statistics(part, threshold(states, _LEAST_POSTERIOR, 0.0).to(ones), ones)
            for scorer, part, states in zip(self._scorers, features, posteriors, strict=True)
        )
        tables = [posteriors[0].sum(0, keepdim=True), *pairs]
        if chain.decision is not None:
            tables.append(torch.zeros_like(chain.decision))
            if block.targets is not None:
                tables[-1].T.index_add_(0, block.targets.to(ones.device), posteriors[-1])
        return evidence.sum(), ChainStatistics(layers, tuple(tables), len(block)), None

    @property
    def log_prior(self) -> float:
        return self.chain.log_prior()

    def n_operations(self, n_rows: int) -> int:
        """Return the approximate number of multiplications to score `n_rows` examples on the CPU."""
        tables = sum(map(torch.numel, self.chain.transitions)) if self.chain.start.device.type == "cpu" else 0
        return sum(scorer.n_operations(n_rows) for scorer in self._scorers) + n_rows * tables

    def emissions(self, block: list[tuple[Tensor, ...]], targets: Tensor | None = None) -> list[Tensor]:
        """Return log p(x_l | h_l) of each layer, (n, K_l); with `targets`, the last includes that of the decision."""
        densities = [scorer.log_density(part).double() for scorer, part in zip(self._scorers, block, strict=True)]
        if targets is not None and self._log_decision is not None:
            densities[-1] += self._log_decision[targets.to(self._log_decision.device)]
        return densities

    def no_statistics(self) -> ChainStatistics:
        layers = tuple(scorer.no_statistics() for scorer in self._scorers)
        return ChainStatistics(layers, tuple(map(torch.zeros_like, self.chain.tables)), 0.0)


def assign(start: Tensor, tables: Sequence[Tensor], emissions: Sequence[Tensor]) -> list[Assignment]:
    """Return the words of each layer with the highest posteriors given the activations of all layers."""
    _, posteriors = state_posteriors(start, tables, emissions)
    assigned = []
    for posterior, densities in zip(posteriors, emissions, strict=True):
        largest, word = posterior.max(1)
        assigned.append(Assignment(word, largest, densities.gather(1, word[:, None]).squeeze(1)))
    return assigned


def joined(activations: Mapping[str, Tensor], layers: Sequence[str]) -> Tensor:
    """Concatenate activations of fully connected layers (n, d, 1, 1) to (n, sum of d)."""
    return torch.cat([activations[layer].flatten(1) for layer in layers], 1)
