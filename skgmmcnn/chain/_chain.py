"""Hidden Markov chains over layers: mixtures as emissions, tables of transitions, and their EM.

The E-step and the M-step are in the form that the solvers of mixtures train.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise, repeat
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import threshold

from .._distributed import all_gather, local_slice, n_processes
from .._threads import by_blocks
from ..mixture import Assignment, Mixture, Scorer, Statistics, dead_and_heavy
from ._recursions import forward_backward, state_posteriors

_TINY = torch.finfo(torch.float64).tiny
# Smaller posteriors would be denormal numbers in float32; they lie far below the rounding of any sum that they enter.
_LEAST_SHARE = 1e-26


@dataclass(frozen=True)
class Chain:
    """P(h, x, c) = prod P(h_l | h_l-1) prod p(x_l | h_l) P(c | h_L).  Immutable, as mixtures are.

    Parameters
    ----------
    tables : tuple of Tensor of shape (K_l-1, K_l), float64
        P(word | word of the layer below), one per layer; the first has one row.  Where decisions c are observed, a last
        table (K_L, n_outputs) holds P(decision | word of the last layer).
    mixtures : tuple of Mixture
        Emissions; the weights are the marginal probabilities of the words.
    smoothing : float
        Pseudo-count of each row of a table, spread evenly over its cells.
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
        """P(decision | word of the last layer), shape (K_L, n_outputs), where decisions are observed."""
        return self.tables[-1] if len(self.tables) > len(self.mixtures) else None

    @property
    def sizes(self) -> list[int]:
        """Number of channels of each layer."""
        return [mixture.parameters.mean.shape[1] for mixture in self.mixtures]

    def to(self, device: torch.device | str) -> Chain:
        """Return the chain on another device."""
        tables = tuple(table.to(device) for table in self.tables)
        return replace(self, tables=tables, mixtures=tuple(mixture.to(device) for mixture in self.mixtures))

    def with_tables(self, tables: Sequence[Tensor]) -> Chain:
        """Return the chain with other tables, and the weights of its mixtures in agreement with them."""
        marginals = accumulate(tables[1 : len(self.mixtures)], torch.matmul, initial=tables[0][0])
        mixtures = (replace(mixture, weights=part) for mixture, part in zip(self.mixtures, marginals, strict=True))
        return replace(self, tables=tuple(tables), mixtures=tuple(mixtures))

    def class_tables(self) -> list[Tensor]:
        """Return P(decision | word) of every layer, each (K_l, n_outputs)."""
        return [*accumulate(self.tables[:0:-1], lambda above, table: table @ above)][::-1]

    def log_prior(self) -> float:
        """Return the log of the prior that `smoothing` stands for, up to a constant.

        Every row of a table has a Dirichlet prior of concentration 1 + smoothing / K in its K cells.
        """
        if not self.smoothing:
            return 0.0
        return self.smoothing * sum(table.log().mean(1).sum().item() for table in self.tables)

    def maximize(self, statistics: ChainStatistics) -> Chain:
        """Return the chain that is most likely given `statistics` and the prior (the M-step)."""
        strength = self.smoothing * statistics.total / statistics.n_rows
        mixtures = tuple(mixture.maximize(part) for mixture, part in zip(self.mixtures, statistics.layers, strict=True))
        counted = zip(statistics.tables, self.tables, strict=True)
        return replace(self, mixtures=mixtures).with_tables([_maximized(*pair, strength) for pair in counted])

    def revived(self, n_rows: float) -> Chain | None:
        """Return the chain with words that hold less than one of the examples moved, None if there are none."""
        chain = self
        for layer, mixture in enumerate(self.mixtures):
            dead, heavy = dead_and_heavy(mixture.weights, n_rows)
            if len(dead):
                chain = chain._split(layer, dead, heavy)
        return None if chain is self else chain

    def _split(self, layer: int, dead: Tensor, heavy: Tensor) -> Chain:
        """Divide `heavy` words between themselves and the `dead` ones, which thereby come to be beside them."""
        mixtures, tables = list(self.mixtures), list(self.tables)
        mixtures[layer] = mixtures[layer].split(dead, heavy)
        into = tables[layer] = tables[layer].clone()
        into[:, heavy] /= 2
        into[:, dead] += into[:, heavy]
        if layer + 1 < len(tables):
            tables[layer + 1] = tables[layer + 1].clone()
            tables[layer + 1][dead] = tables[layer + 1][heavy]
        return replace(self, mixtures=tuple(mixtures)).with_tables(tables)


def uniform(n_states: Sequence[int], n_outputs: int) -> list[Tensor]:
    """Return the tables of a chain without knowledge: equal probabilities everywhere."""
    sizes = [1, *n_states, *([n_outputs] if n_outputs else [])]
    return [torch.full(pair, 1 / pair[1], dtype=torch.float64) for pair in pairwise(sizes)]


def _maximized(counts: Tensor, table: Tensor, strength: float) -> Tensor:
    """Return the probabilities (J, K) that are most likely given expected counts and the prior; empty rows stay."""
    counts = counts + strength / counts.shape[1]
    total = counts.sum(1, keepdim=True)
    return (counts / total).where(total > 0, table)


class ChainStatistics(NamedTuple):
    """Sums over examples: of each layer's rows, and the expected counts of each table.

    `n_rows` is the number of examples that they are worth; averages keep it.
    """

    layers: tuple[Statistics, ...]
    tables: tuple[Tensor, ...]
    n_rows: float

    @property
    def total(self) -> float:
        """Total weight of the examples: `n_rows`, or 1 for averages."""
        return self.layers[0].total.sum().item()

    def add_(self, other: ChainStatistics) -> ChainStatistics:
        """Add the sums over other examples in place, and return them with the number of all examples."""
        for layer, more in zip(self.layers, other.layers, strict=True):
            layer.add_(more)
        for table, counts in zip(self.tables, other.tables, strict=True):
            table.add_(counts)
        return self._replace(n_rows=self.n_rows + other.n_rows)

    def blend(self, other: ChainStatistics, share: float) -> ChainStatistics:
        """Return ``(1 - share) * self + share * other`` of two averages."""
        layers = (first.blend(second, share) for first, second in zip(self.layers, other.layers, strict=True))
        tables = (torch.lerp(first, second, share) for first, second in zip(self.tables, other.tables, strict=True))
        # The variance of a weighted mean equals that of a plain one of this number of examples.
        n_rows = 1 / ((1 - share) ** 2 / self.n_rows + share**2 / other.n_rows)
        return ChainStatistics(tuple(layers), tuple(tables), n_rows)

    def per_row(self) -> ChainStatistics:
        """Return averages over the examples."""
        tables = tuple(part / self.total for part in self.tables)
        return ChainStatistics(tuple(part.per_row() for part in self.layers), tables, self.n_rows)

    def to(self, device: torch.device | str) -> ChainStatistics:
        """Return the sums on another device."""
        tables = tuple(part.to(device) for part in self.tables)
        return ChainStatistics(tuple(part.to(device) for part in self.layers), tables, self.n_rows)


class ChainScorer:
    """The chain made ready to score examples in one dtype on one device, those of the tensor `like`.

    The layers' densities are computed in that dtype, the recursions in float64.
    """

    def __init__(self, chain: Chain, like: Tensor) -> None:
        self.chain = chain = chain.to(like.device)
        self._scorers = [Scorer(mixture, like) for mixture in chain.mixtures]

    def blocks(self, values: Tensor) -> Iterator[list[tuple[Tensor, ...]]]:
        """Yield blocks of examples (n, sum of d), as phi of every layer."""
        return map(self.features, values.split(self.block_rows))

    def features(self, block: Tensor) -> list[tuple[Tensor, ...]]:
        """Return phi of every layer for examples (n, sum of d)."""
        parts = self._scorers[0].ready(block).split(self.chain.sizes, 1)
        return [scorer.features(part) for scorer, part in zip(self._scorers, parts, strict=True)]

    @property
    def block_rows(self) -> int:
        """How many examples are computed at once."""
        return self._scorers[0].block_rows

    def n_operations(self, n_rows: int) -> int:
        """Return roughly how many multiplications it takes to score so many examples, as for mixtures."""
        tables = sum(map(torch.numel, self.chain.transitions)) if self.chain.start.device.type == "cpu" else 0
        return sum(scorer.n_operations(n_rows) for scorer in self._scorers) + n_rows * tables

    def emissions(self, block: list[tuple[Tensor, ...]], targets: Tensor | None = None) -> list[Tensor]:
        """Return log p(x_l | h_l) of every layer, each (n, K_l); with `targets`, the last one with the decision's."""
        densities = [scorer.log_density(part).double() for scorer, part in zip(self._scorers, block, strict=True)]
        if targets is not None and self.chain.decision is not None:
            # A decision that no word knows of tells nothing, rather than that the example cannot be.
            densities[-1] += self._log_decision[targets.to(self.chain.decision.device)]
        return densities

    @cached_property
    def _log_decision(self) -> Tensor:
        assert self.chain.decision is not None
        return self.chain.decision.T.clamp_min(_TINY).log()

    def no_statistics(self) -> ChainStatistics:
        """Return the statistics of no examples."""
        layers = tuple(scorer.no_statistics() for scorer in self._scorers)
        return ChainStatistics(layers, tuple(map(torch.zeros_like, self.chain.tables)), 0.0)


class ChainExpectation:
    """The E-step of a chain as a running sum: feed it examples, in any number of calls, then read `statistics`."""

    components = None

    def __init__(self, chain: Chain, like: Tensor) -> None:
        self._scorer = ChainScorer(chain, like)
        self.log_likelihood = torch.zeros((), dtype=torch.float64, device=like.device)
        self.statistics = self._scorer.no_statistics()

    def add(self, values: Tensor, targets: Tensor | None) -> None:
        """Add examples (n, sum of d) and their decisions (n,)."""
        n_rows = self._scorer.block_rows
        decided = repeat(None) if targets is None else targets.split(n_rows)
        blocks = zip(values.split(n_rows), decided, strict=False)
        for log_likelihood, statistics in by_blocks(self._of_block, blocks, 2 * self._scorer.n_operations(len(values))):
            self.log_likelihood += log_likelihood
            self.statistics = self.statistics.add_(statistics)

    def _of_block(self, block: tuple[Tensor, Tensor | None]) -> tuple[Tensor, ChainStatistics]:
        values, targets = block
        chain, features = self._scorer.chain, self._scorer.features(values)
        found = forward_backward(chain.start, chain.transitions, self._scorer.emissions(features, targets))
        ones = torch.ones_like(features[0][0][:, 0])
        layers = tuple(
            layer.of_rows(part, threshold(states, _LEAST_SHARE, 0.0).to(ones), ones)
            for part, layer, states in zip(features, self.statistics.layers, found.states, strict=True)
        )
        tables = [found.states[0].sum(0, keepdim=True), *found.pairs]
        if chain.decision is not None:
            tables.append(torch.zeros_like(chain.decision))
            if targets is not None:
                tables[-1].T.index_add_(0, targets.to(ones.device), found.states[-1])
        return found.log_evidence.sum(), ChainStatistics(layers, tuple(tables), len(values))

    def merge(self) -> None:
        """Add what the other processes have summed; all must call this."""
        device = self.log_likelihood.device
        (likelihood, statistics), *others = all_gather((self.log_likelihood.cpu(), self.statistics.to("cpu")))
        for more, added in others:
            likelihood, statistics = likelihood + more, statistics.add_(added)
        self.log_likelihood, self.statistics = likelihood.to(device), statistics.to(device)

    @property
    def n_rows(self) -> float:
        """Number of examples."""
        return self.statistics.n_rows

    @property
    def bound(self) -> float:
        """What training raises, per example in nats: the log-likelihood and the log-prior."""
        return (self.log_likelihood.item() + self._scorer.chain.log_prior()) / self.n_rows


@dataclass(frozen=True)
class Examples:
    """Training examples (n, sum of d), their decisions (n,) or None, and the dtype and device to compute with.

    Those that are `shared` are the same in all processes of ``torch.distributed``, which divide the E-step.
    """

    values: Tensor
    targets: Tensor | None
    shared: bool = False

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Tensor | slice) -> Examples:
        return Examples(self.values[index], None if self.targets is None else self.targets[index], self.shared)

    @property
    def total(self) -> float:
        """Number of examples."""
        return len(self.values)

    def expect(self, chain: Chain) -> ChainExpectation:
        """Return the E-step over all examples."""
        expectation = ChainExpectation(chain, self.values[:0])
        mine = self[local_slice(len(self))] if self.shared else self
        expectation.add(mine.values, mine.targets)
        if self.shared and n_processes() > 1:
            expectation.merge()
        return expectation


class ChainLabeller:
    """Gives every layer of an image its likeliest word by the posteriors of the chain, activations alone."""

    def __init__(self, chain: Chain, layers: Sequence[str]) -> None:
        self._chain, self._layers = chain, layers
        self._scorer: ChainScorer | None = None

    def predict(self, activations: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yield each layer and its word for each image, shape (n,)."""
        return ((layer, assigned.component) for layer, assigned in self.assign(activations))

    def assign(self, activations: Mapping[str, Tensor]) -> Iterator[tuple[str, Assignment]]:
        """Yield each layer and its words with how likely they are."""
        values = joined(activations, self._layers)
        self._scorer = self._scorer or ChainScorer(self._chain, values)
        scorer = self._scorer
        blocks = values.split(scorer.block_rows)
        parts = by_blocks(
            lambda block: self._assign(scorer, scorer.features(block)), blocks, scorer.n_operations(len(values))
        )
        for layer, assigned in zip(self._layers, zip(*parts, strict=True), strict=True):
            yield layer, Assignment(*map(torch.cat, zip(*assigned, strict=True)))

    @staticmethod
    def _assign(scorer: ChainScorer, block: list[tuple[Tensor, ...]]) -> list[Assignment]:
        emissions = scorer.emissions(block)
        evidence, states = state_posteriors(scorer.chain.start, scorer.chain.transitions, emissions)
        assigned = []
        for posterior, densities in zip(states, emissions, strict=True):
            share, word = posterior.max(1)
            assigned.append(Assignment(word, share, densities.gather(1, word[:, None]).squeeze(1), evidence))
        return assigned


def joined(activations: Mapping[str, Tensor], layers: Sequence[str]) -> Tensor:
    """Return the activity of fully connected layers (n, d, 1, 1) side by side, (n, sum of d)."""
    return torch.cat([activations[layer].flatten(1) for layer in layers], 1)
