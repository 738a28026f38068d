"""Effective receptive fields, measured by gradients."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from sklearn.isotonic import isotonic_regression
from torch import Tensor
from torch.autograd.graph import allow_mutation_on_saved_tensors

from .._device import exact_float32
from .._warnings import warn
from ._captured import CapturedNetwork, Fields
from ._receptive_field import ReceptiveField, Span

_FROM_BORDER = np.array([0, 2, 5])  # measured positions, between which fields mainly shift

# allow_mutation_on_saved_tensors applies to the process, so one thread measures at a time.
_MEASURING = threading.Lock()


def effective_fields(
    network: CapturedNetwork,
    batch: Tensor,
    fields: Mapping[tuple[str, str], ReceptiveField],
    share: float = 0.68,
) -> Fields:
    """Return the effective fields of pairs of layers (upper, lower), measured on a batch of images.

    Random signs on one row, or column, of the upper map are propagated backwards.  The expected square of the gradient
    at a lower location is the sum of the squared derivatives, its energy.  The effective field of a row is the shortest
    interval of lower rows inside its receptive field with the given `share` of the energy.  Fields of rows without
    energy are interpolated; without any energy or gradient the whole receptive field is returned.  Smaller shares give
    fields that depend more on the word above, but can miss locations below.
    """
    if not any(span.longest > 1 for field in fields.values() for span in (field.rows, field.columns)):
        return dict(fields)
    try:
        with (
            _MEASURING,
            torch.inference_mode(False),
            torch.enable_grad(),
            exact_float32(),
            allow_mutation_on_saved_tensors(),
        ):
            leaves, maps = _differentiable_maps(network, batch.clone())
            effective: Fields = {}
            for upper in dict.fromkeys(upper for upper, _ in fields):
                below = {lower: field for (layer, lower), field in fields.items() if layer == upper}
                of_upper = _effective_fields(maps[upper], [leaves[lower] for lower in below], below.values(), share)
                effective |= {(upper, lower): field for lower, field in zip(below, of_upper, strict=True)}
            return effective
    except RuntimeError as error:
        warn(
            f"Effective receptive fields cannot be measured: {str(error).splitlines()[0]}  Receptive fields are used.",
        )
        return dict(fields)


def _differentiable_maps(network: CapturedNetwork, batch: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return maps by layer as inputs of the layers above, and as outputs of the layers below, with gradients."""
    inputs: dict[str, Tensor] = {}

    def keep(layer: str, values: Tensor) -> Tensor:
        inputs[layer] = values if values.requires_grad else values.detach().requires_grad_()
        return inputs[layer]

    edits = {layer: partial(keep, layer) for layer in network.layers}
    _, outputs = network.run_edited(batch, edits)
    return inputs, outputs


def _effective_fields(
    upper: Tensor, lowers: list[Tensor], fields: Iterable[ReceptiveField], share: float
) -> Iterator[ReceptiveField]:
    """Yield the effective field of an upper map in each of `lowers`, inside its receptive field."""
    positions = [_sample(size) for size in upper.shape[2:]]
    for field, energies in zip(fields, _energies(upper, lowers, positions), strict=True):
        spans = zip((field.rows, field.columns), positions, energies, strict=True)
        rows, columns = (_effective_span(*span, share) for span in spans)
        yield ReceptiveField(rows, columns, field.shape)


def _sample(size: int) -> np.ndarray:
    """Return the measured positions of an axis: all of a short one, else some near the borders."""
    if size <= 2 * len(_FROM_BORDER):
        return np.arange(size)
    return np.union1d(_FROM_BORDER, size - 1 - _FROM_BORDER)


def _energies(upper: Tensor, lowers: list[Tensor], positions: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Return the energies of rows, and columns, at `positions` of `upper` in those of each of `lowers`.

    Each row or column is measured on one image, and all images of the batch in one backward pass.
    """
    random = torch.Generator().manual_seed(0)
    energies = [
        [np.zeros((len(of_axis), lower.shape[2 + axis])) for axis, of_axis in enumerate(positions)] for lower in lowers
    ]
    measurements = [(axis, number) for axis, of_axis in enumerate(positions) for number in range(len(of_axis))]
    for first in range(0, len(measurements), len(upper)):
        part = measurements[first : first + len(upper)]
        signs = torch.zeros_like(upper)
        for image, (axis, number) in zip(signs, part, strict=False):
            row = image.select(1 + axis, int(positions[axis][number]))
            row.copy_(2 * torch.randint(2, row.shape, generator=random) - 1)
        gradients = torch.autograd.grad(upper, lowers, signs, retain_graph=True, allow_unused=True)
        for gradient, energy in zip(gradients, energies, strict=True):
            for image, (axis, number) in zip(() if gradient is None else gradient, part, strict=False):
                energy[axis][number] = image.double().square().sum((0, 2 - axis)).numpy(force=True)
    return energies


def _effective_span(span: Span, positions: np.ndarray, energies: np.ndarray, share: float) -> Span:
    """Return the shortest intervals inside `span` with a share of the energies measured at some positions.

    Measured ends are made monotonic, as those of `span`, by isotonic regression weighted by energy, since ends with
    little energy are noisy.
    """
    start, stop = span
    lower = np.arange(energies.shape[1])
    inside = (start[positions, None] <= lower) & (lower < stop[positions, None])
    energies = np.where(inside & np.isfinite(energies), energies, 0)
    weights = energies.sum(1)
    has_energy = weights > 0
    if span.longest <= 1 or not has_energy.any():
        return span
    ends = np.array([_shortest(energy, share) for energy in energies[has_energy]], dtype=float)
    nonempty = np.flatnonzero(start < stop)
    is_rising = bool((start + stop)[nonempty[-1]] >= (start + stop)[nonempty[0]])
    first, last = (
        _interpolate(positions[has_energy], of_end, weights[has_energy], is_rising, len(start)) for of_end in ends.T
    )
    first = np.clip(first, start, np.maximum(start, stop - 1))
    return Span(first, np.clip(last, np.minimum(first + 1, stop), stop))


def _interpolate(positions: np.ndarray, ends: np.ndarray, weights: np.ndarray, is_rising: bool, n: int) -> np.ndarray:
    """Return monotonic integer ends at n positions from those at some."""
    ends = isotonic_regression(ends, sample_weight=weights, increasing=is_rising)
    return np.floor(np.interp(np.arange(n), positions, ends) + 0.5).astype(np.intp)


def _shortest(energy: np.ndarray, share: float) -> tuple[int, int]:
    """Return the shortest interval with a share of the energy; of several, the one with the most."""
    total = np.concatenate([[0], np.cumsum(energy)])
    first = np.arange(len(energy))
    last = np.searchsorted(total, total[:-1] + share * (1 - 1e-9) * total[-1])
    first, last = first[last < len(total)], last[last < len(total)]
    best = np.lexsort((total[first] - total[last], last - first))[0]
    return int(first[best]), int(last[best])
