"""A hidden Markov chain over the layers: mixtures as emissions, tables between them, and their EM.

Its E-step and M-step are what the solvers of mixtures train.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import threshold

from .._distributed import gathered, my_share, n_processes
from .._threads import by_blocks
from ..mixture import Assignment, Mixture, Scorer, Statistics, dead_and_heavy
from ._recursions import forward_backward, state_posteriors

_TINY = torch.finfo(torch.float64).tiny
# Smaller shares would be denormal numbers in float32; they lie far below the rounding of any sum that they enter.
_LEAST_SHARE = 1e-26


@dataclass(frozen=True)
class Chain:
    """P(h, x) = start(h_1) product of tables(h_l, h_l+1) product of p(x_l | h_l).  Immutable, as mixtures are.

    Parameters
    ----------
    start : Tensor of shape (K_1,), float64
        Distribution of the first layer's word.
    tables : tuple of Tensor of shape (K_l, K_l+1), float64
        P(word of the layer above | word); cells that are 0 stay 0.
    mixtures : tuple of Mixture
        Emissions; the weights are the marginal probabilities of the words.
    decision : Tensor of shape (K_L, n_outputs), float64, or None
        P(decision | word of the last layer).
    smoothing : float
        Weight of the belief that all cells of a row are alike, in examples.
    """

    start: Tensor
    tables: tuple[Tensor, ...]
    mixtures: tuple[Mixture, ...]
    decision: Tensor | None
    smoothing: float

    @property
    def sizes(self) -> list[int]:
        """Number of channels of each layer."""
        return [mixture.parameters.mean.shape[1] for mixture in self.mixtures]

    def to(self, device: torch.device | str) -> Chain:
        """Return the chain on another device."""
        return replace(
            self,
            start=self.start.to(device),
            tables=tuple(table.to(device) for table in self.tables),
            mixtures=tuple(mixture.to(device) for mixture in self.mixtures),
            decision=None if self.decision is None else self.decision.to(device),
        )

    def with_tables(self, start: Tensor, tables: Sequence[Tensor], decision: Tensor | None) -> Chain:
        """Return the chain with other tables, and the weights of its mixtures in agreement with them."""
        marginals = [start]
        for table in tables:
            marginals.append(marginals[-1] @ table)
        mixtures = tuple(
            replace(mixture, weights=weights) for mixture, weights in zip(self.mixtures, marginals, strict=True)
        )
        return replace(self, start=start, tables=tuple(tables), mixtures=mixtures, decision=decision)

    def class_tables(self) -> list[Tensor]:
        """Return P(decision | word) of every layer, each (K_l, n_outputs)."""
        assert self.decision is not None
        found = [self.decision]
        for table in reversed(self.tables):
            found.append(table @ found[-1])
        return found[::-1]

    def log_prior(self) -> float:
        """Return the log of the prior that `smoothing` stands for, up to a constant: what EM adds to the evidence.

        Every row of a table has a Dirichlet prior of concentration 1 + smoothing / K in its K cells that are not 0.
        """
        if not self.smoothing:
            return 0.0
        rows = [self.start[None], *self.tables, *([] if self.decision is None else [self.decision])]
        means = (table.log().where(table > 0, 0).sum(1) / (table > 0).sum(1) for table in rows)
        return self.smoothing * sum(mean.sum().item() for mean in means)

    def maximize(self, statistics: ChainStatistics) -> Chain:
        """Return the chain that is most likely given `statistics` and the prior (the M-step)."""
        strength = self.smoothing * statistics.total / statistics.n_rows
        mixtures = tuple(mixture.maximize(part) for mixture, part in zip(self.mixtures, statistics.layers, strict=True))
        start = _maximized(statistics.layers[0].total[None], self.start[None], strength)[0]
        tables = [
            _maximized(counts, table, strength) for counts, table in zip(statistics.pairs, self.tables, strict=True)
        ]
        decision = None
        if self.decision is not None and statistics.decided is not None:
            decision = _maximized(statistics.decided, self.decision, strength)
        return replace(self, mixtures=mixtures).with_tables(start, tables, decision)

    def revived(self, n_rows: float) -> Chain | None:
        """Return the chain with words that hold less than one of the examples moved, None if there are none."""
        chain = self
        for layer, mixture in enumerate(self.mixtures):
            dead, heavy = dead_and_heavy(mixture.weights, n_rows)
            reachable = chain._into(layer)[:, dead].sum(0) > 0
            if reachable.any():
                chain = chain._split(layer, dead[reachable], heavy[reachable])
        return None if chain is self else chain

    def _into(self, layer: int) -> Tensor:
        return self.tables[layer - 1] if layer else self.start[None]

    def _split(self, layer: int, dead: Tensor, heavy: Tensor) -> Chain:
        """Divide `heavy` words between themselves and the `dead` ones, which thereby come to be beside them."""
        mixtures = list(self.mixtures)
        mixtures[layer] = mixtures[layer].split(dead, heavy)
        tables, start, decision = list(self.tables), self.start, self.decision
        into = _columns_split(self._into(layer), dead, heavy)
        if layer:
            tables[layer - 1] = into
        else:
            start = into[0]
        if layer < len(tables):
            tables[layer] = _rows_copied(tables[layer], dead, heavy)
        elif decision is not None:
            decision = _rows_copied(decision, dead, heavy)
        return replace(self, mixtures=tuple(mixtures)).with_tables(start, tables, decision)


def uniform(n_states: Sequence[int], n_outputs: int) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Return start, tables and decision, if there are outputs, that know nothing."""
    sizes = [*n_states, *([n_outputs] if n_outputs else [])]
    start, *tables = (
        torch.full((above, below), 1 / below, dtype=torch.float64)
        for above, below in zip([1, *sizes[:-1]], sizes, strict=True)
    )
    return start[0], tables[: len(n_states) - 1], tables[-1] if n_outputs else None


def _maximized(counts: Tensor, table: Tensor, strength: float) -> Tensor:
    """Return a table of probabilities from expected counts and the prior; zeros of `table` stay, as do empty rows."""
    allowed = (table > 0).to(counts)
    counts = counts * allowed + strength * allowed / allowed.sum(1, keepdim=True)
    total = counts.sum(1, keepdim=True)
    return (counts / total).where(total > 0, table)


def _columns_split(table: Tensor, dead: Tensor, heavy: Tensor) -> Tensor:
    table = table.clone()
    half = table[:, heavy] / 2 * (table[:, dead] > 0)
    table[:, heavy] -= half
    table[:, dead] += half
    return table


def _rows_copied(table: Tensor, dead: Tensor, heavy: Tensor) -> Tensor:
    table = table.clone()
    rows = table[heavy] * (table[dead] > 0)
    total = rows.sum(1, keepdim=True)
    table[dead] = (rows / total).where(total > 0, table[dead])
    return table


class ChainStatistics(NamedTuple):
    """Sums over examples: of each layer, of successive words, of last words and decisions.

    `n_rows` is the number of examples that they are worth; averages keep it.
    """

    layers: tuple[Statistics, ...]
    pairs: tuple[Tensor, ...]
    decided: Tensor | None
    n_rows: float

    @property
    def total(self) -> float:
        """What the examples weigh together: `n_rows`, or 1 for averages."""
        return self.layers[0].total.sum().item()

    def add_(self, other: ChainStatistics) -> None:
        """Add the sums over other examples, but not their number."""
        for layer, its in zip(self.layers, other.layers, strict=True):
            layer.add_(its)
        for mine, counts in zip(self.pairs, other.pairs, strict=True):
            mine.add_(counts)
        if self.decided is not None and other.decided is not None:
            self.decided.add_(other.decided)

    def blend(self, other: ChainStatistics, share: float) -> ChainStatistics:
        """Return ``(1 - share) * self + share * other`` of two averages."""
        pairs = (torch.lerp(mine, its, share) for mine, its in zip(self.pairs, other.pairs, strict=True))
        layers = (mine.blend(its, share) for mine, its in zip(self.layers, other.layers, strict=True))
        decided = None
        if self.decided is not None and other.decided is not None:
            decided = torch.lerp(self.decided, other.decided, share)
        # The variance of a weighted mean is that of a plain one of so many examples.
        n_rows = 1 / ((1 - share) ** 2 / self.n_rows + share**2 / other.n_rows)
        return ChainStatistics(tuple(layers), tuple(pairs), decided, n_rows)

    def per_row(self) -> ChainStatistics:
        """Return averages over the examples."""
        return ChainStatistics(
            tuple(part.per_row() for part in self.layers),
            tuple(part / self.total for part in self.pairs),
            None if self.decided is None else self.decided / self.total,
            self.n_rows,
        )

    def to(self, device: torch.device | str) -> ChainStatistics:
        """Return the sums on another device."""
        return ChainStatistics(
            tuple(part.to(device) for part in self.layers),
            tuple(part.to(device) for part in self.pairs),
            None if self.decided is None else self.decided.to(device),
            self.n_rows,
        )


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
        tables = sum(map(torch.numel, self.chain.tables)) if self.chain.start.device.type == "cpu" else 0
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
        decision = self.chain.decision
        return ChainStatistics(
            tuple(scorer.no_statistics() for scorer in self._scorers),
            tuple(map(torch.zeros_like, self.chain.tables)),
            None if decision is None else torch.zeros_like(decision),
            0.0,
        )


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
            self.statistics.add_(statistics)
        self.statistics = self.statistics._replace(n_rows=self.statistics.n_rows + len(values))

    def _of_block(self, block: tuple[Tensor, Tensor | None]) -> tuple[Tensor, ChainStatistics]:
        values, targets = block
        chain, features = self._scorer.chain, self._scorer.features(values)
        found = forward_backward(chain.start, chain.tables, self._scorer.emissions(features, targets))
        ones = torch.ones_like(features[0][0][:, 0])
        layers = tuple(
            layer.of_rows(part, threshold(states, _LEAST_SHARE, 0.0).to(ones), ones)
            for part, layer, states in zip(features, self.statistics.layers, found.states, strict=True)
        )
        decided = None
        if chain.decision is not None and targets is not None:
            decided = torch.zeros_like(chain.decision)
            decided.T.index_add_(0, targets.to(ones.device), found.states[-1])
        return found.log_evidence.sum(), ChainStatistics(layers, tuple(found.pairs), decided, len(values))

    def merge(self) -> None:
        """Add what the other processes have summed; all must call this."""
        device = self.log_likelihood.device
        parts = gathered((self.log_likelihood.cpu(), self.statistics.to("cpu")))
        self.log_likelihood = torch.stack([part[0] for part in parts]).sum().to(device)
        self.statistics = _added([part[1] for part in parts]).to(device)

    @property
    def n_rows(self) -> float:
        """Number of examples."""
        return self.statistics.n_rows

    @property
    def bound(self) -> float:
        """What training raises, per example in nats: the log-likelihood and the log-prior."""
        return (self.log_likelihood.item() + self._scorer.chain.log_prior()) / self.n_rows


def _added(parts: list[ChainStatistics]) -> ChainStatistics:
    def added(tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack(tuple(tensors)).sum(0)

    layers = [
        Statistics(
            added([part.total for part in layer]), tuple(map(added, zip(*(part.sums for part in layer), strict=True)))
        )
        for layer in zip(*(part.layers for part in parts), strict=True)
    ]
    pairs = map(added, zip(*(part.pairs for part in parts), strict=True))
    decided = [part.decided for part in parts if part.decided is not None]
    n_rows = sum(part.n_rows for part in parts)
    return ChainStatistics(tuple(layers), tuple(pairs), added(decided) if decided else None, n_rows)


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
        mine = self[my_share(len(self))] if self.shared else self
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
        evidence, states = state_posteriors(scorer.chain.start, scorer.chain.tables, emissions)
        assigned = []
        for posterior, densities in zip(states, emissions, strict=True):
            share, word = posterior.max(1)
            assigned.append(Assignment(word, share, densities.gather(1, word[:, None]).squeeze(1), evidence))
        return assigned


def joined(activations: Mapping[str, Tensor], layers: Sequence[str]) -> Tensor:
    """Return the activity of fully connected layers (n, d, 1, 1) side by side, (n, sum of d)."""
    return torch.cat([activations[layer].flatten(1) for layer in layers], 1)
