"""The recursions of a hidden Markov chain whose tables differ from step to step: pure functions, in log space.

Throughout, n examples pass together and L layers follow each other, of which layer l has K_l states.  `start` is the
distribution of the first state (K_1,), ``tables[l]`` holds P(state of layer l + 1 | state of layer l) as
(K_l, K_{l+1}), and ``emissions[l]`` the log-density of each example's activity under each state, (n, K_l).

Rabiner (1989), "A tutorial on hidden Markov models and selected applications in speech recognition", Proc. IEEE 77(2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Tensors = Sequence[Tensor]
# Sums of products in float64 are accurate if they and the terms that matter are above this; the log is -576.
_LEAST = 1e-250
# Maximum number of cells of a step: examples times pairs of states.
_CELLS = 2**22


def log_product(values: Tensor, table: Tensor) -> Tensor:
    """Return log(exp(values) @ table), shape (n, K), from log-values (n, J) and a table (J, K) of numbers >= 0.

    This is a scaled matrix product, replaced by a log-sum-exp where it underflows.
    """
    largest = values.amax(1, keepdim=True).clamp_min(torch.finfo(values.dtype).min)
    product = (values - largest).exp() @ table
    result = product.log() + largest
    if (product < _LEAST).any():
        possible = (values > -math.inf).to(table) @ (table > 0).to(table) > 0
        rows = ((product < _LEAST) & possible).any(1).nonzero().flatten()
        for part in rows.split(_most_rows(table)):
            result[part] = (values[part, :, None] + table.log()).logsumexp(1)
    return result


def forward(start: Tensor, tables: Tensors, emissions: Tensors) -> list[Tensor]:
    """Return log p(x of layers up to l, state of layer l), one (n, K_l) per layer."""
    joint = [start.log() + emissions[0]]
    for table, emission in zip(tables, emissions[1:], strict=True):
        joint.append(log_product(joint[-1], table) + emission)
    return joint


def backward(tables: Tensors, emissions: Tensors) -> list[Tensor]:
    """Return log p(x of the layers above l | state of layer l), one (n, K_l) per layer."""
    ahead = [torch.zeros_like(emissions[-1])]
    for table, emission in zip(reversed(tables), reversed(emissions[1:]), strict=True):
        ahead.append(log_product(ahead[-1] + emission, table.T))
    return ahead[::-1]


def state_posteriors(start: Tensor, tables: Tensors, emissions: Tensors) -> tuple[Tensor, list[Tensor]]:
    """Return log p(x), shape (n,), and P(state | x) of each layer, (n, K_l)."""
    return _posteriors(forward(start, tables, emissions), backward(tables, emissions))


def _posteriors(joint: list[Tensor], ahead: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    return joint[-1].logsumexp(1), [(here + there).softmax(1) for here, there in zip(joint, ahead, strict=True)]


def forward_backward(start: Tensor, tables: Tensors, emissions: Tensors) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return log p(x), P(state | x) of each layer, and the sum over examples of P(state, next state | x) by table."""
    joint, ahead = forward(start, tables, emissions), backward(tables, emissions)
    evidence, states = _posteriors(joint, ahead)
    pairs = [_sum_pairs(joint[i], table, emissions[i + 1] + ahead[i + 1], evidence) for i, table in enumerate(tables)]
    return evidence, states, pairs


def _sum_pairs(below: Tensor, table: Tensor, above: Tensor, evidence: Tensor) -> Tensor:
    """Return the sum over examples of exp(below_j + above_k - evidence) table_jk, shape (J, K)."""
    lower, upper = below.amax(1, keepdim=True), above.amax(1, keepdim=True)
    excess = lower + upper - evidence[:, None]
    # Terms that matter lie at most the excess below both maxima.
    steep = (excess > -math.log(_LEAST)).flatten()
    weights = (below - lower + excess.where(~steep[:, None], -math.inf)).exp()
    total = (weights.T @ (above - upper).exp()) * table
    for part in steep.nonzero().flatten().split(_most_rows(table)):
        terms = below[part, :, None] + above[part, None] + (table.log() - evidence[part, None, None])
        total += terms.exp().sum(0)
    return total


def viterbi(start: Tensor, tables: Tensors, emissions: Tensors) -> tuple[Tensor, Tensor]:
    """Return log p(x, path) of the likeliest paths, shape (n,), and the paths (n, L); ties go to lower states."""
    best = start.log() + emissions[0]
    origins = []
    for table, emission in zip(tables, emissions[1:], strict=True):
        best, origin = _best_product(best, table)
        best += emission
        origins.append(origin)
    log_joint, state = best.max(1)
    path = [state]
    for origin in reversed(origins):
        path.append(origin.gather(1, path[-1][:, None]).squeeze(1))
    return log_joint, torch.stack(path[::-1], 1)


def likeliest_paths(start: Tensor, tables: Tensors, emissions: Tensors) -> tuple[Tensor, ...]:
    """Return likeliest paths (n, L), their posteriors (n,), posteriors of their states (n, L), and of the last layer.

    The posteriors of the last layer have shape (n, K_L).
    """
    log_joint, path = viterbi(start, tables, emissions)
    evidence, states = state_posteriors(start, tables, emissions)
    single = [part.gather(1, state[:, None]) for part, state in zip(states, path.T, strict=True)]
    return path, (log_joint - evidence).exp().clamp_max(1), torch.cat(single, 1), states[-1]


def _best_product(values: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maximum over j of values_j + log table_jk and the argmax, both (n, K)."""
    log_table = table.log()
    parts = [(part[:, :, None] + log_table).max(1) for part in values.split(_most_rows(table))]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def _most_rows(table: Tensor) -> int:
    return max(1, _CELLS // table.numel())
