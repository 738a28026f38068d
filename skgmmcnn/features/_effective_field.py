"""Effective receptive fields, measured by gradients."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from sklearn.isotonic import isotonic_regression
from torch import Tensor
from torch.autograd.graph import allow_mutation_on_saved_tensors

from .._device import exact_float32
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
    if not any(_has_choice(span) for field in fields.values() for span in (field.rows, field.columns)):
        return dict(fields)
    try:
        with (
            _MEASURING,
            torch.inference_mode(False),
            torch.enable_grad(),
            exact_float32(),
            allow_mutation_on_saved_tensors(),
        ):
            read, returned = _record(network, batch.clone())
            effective: Fields = {}
            for upper in dict.fromkeys(upper for upper, _ in fields):
                below = {lower: field for (layer, lower), field in fields.items() if layer == upper}
                narrowed = _effective_fields(returned[upper], [read[lower] for lower in below], below.values(), share)
                effective |= {(upper, lower): field for lower, field in zip(below, narrowed, strict=True)}
            return effective
    except RuntimeError as error:
        warnings.warn(
            f"Effective receptive fields cannot be measured: {str(error).splitlines()[0]}  Receptive fields are used.",
            stacklevel=4,
        )
        return dict(fields)


def _has_choice(span: Span) -> bool:
    """Return whether an interval contains more than one position."""
    return int((span[1] - span[0]).max(initial=0)) > 1


def _record(network: CapturedNetwork, batch: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return maps by layer, as read by layers above and as returned from layers below, with gradients between them."""
    read: dict[str, Tensor] = {}

    def keep(layer: str, values: Tensor) -> Tensor:
        read[layer] = values if values.requires_grad else values.detach().requires_grad_()
        return read[layer]

    edits = {layer: lambda values, layer=layer: keep(layer, values) for layer in network.layers}
    _, returned = network.run_edited(batch, edits)
    return read, returned


def _effective_fields(
    upper: Tensor, lowers: list[Tensor], fields: Iterable[ReceptiveField], share: float
) -> Iterator[ReceptiveField]:
    """Yield the effective field of an upper map in each of `lowers`, inside its receptive field."""
    at = [_sample(size) for size in upper.shape[2:]]
    for field, energies in zip(fields, _energies(upper, lowers, at), strict=True):
        spans = zip((field.rows, field.columns), at, energies, strict=True)
        rows, columns = (_narrowed(*span, share) if _has_choice(span[0]) else span[0] for span in spans)
        yield ReceptiveField(rows, columns, field.shape)


def _sample(size: int) -> np.ndarray:
    """Return the measured positions of an axis: all of a short one, else some near the borders."""
    if size <= 2 * len(_FROM_BORDER):
        return np.arange(size)
    return np.union1d(_FROM_BORDER, size - 1 - _FROM_BORDER)


def _energies(upper: Tensor, lowers: list[Tensor], at: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Return the energies of the rows, and columns, `at` of `upper` in the rows, and columns, of each of `lowers`.

    Each row or column is measured on one image, and all images of the batch in one backward pass.
    """
    random = torch.Generator().manual_seed(0)
    energies = [
        [np.zeros((len(positions), lower.shape[2 + axis])) for axis, positions in enumerate(at)] for lower in lowers
    ]
    waiting = [(axis, number) for axis, positions in enumerate(at) for number in range(len(positions))]
    for first in range(0, len(waiting), len(upper)):
        part, signs = waiting[first : first + len(upper)], torch.zeros_like(upper)
        for image, (axis, number) in zip(signs, part, strict=False):
            row = image.select(1 + axis, int(at[axis][number]))
            row.copy_(2 * torch.randint(2, row.shape, generator=random) - 1)
        gradients = torch.autograd.grad(upper, lowers, signs, retain_graph=True, allow_unused=True)
        for gradient, energy in zip(gradients, energies, strict=True):
            for image, (axis, number) in zip(() if gradient is None else gradient, part, strict=False):
                energy[axis][number] = image.double().square().sum((0, 2 - axis)).numpy(force=True)
    return energies


def _narrowed(span: Span, at: np.ndarray, energies: np.ndarray, share: float) -> Span:
    """Return the shortest intervals inside `span` with a share of the energies measured `at` some positions.

    Measured ends are made monotonic, as those of `span`, by isotonic regression weighted by energy, since ends with
    little energy are noisy.
    """
    start, stop = span
    place = np.arange(energies.shape[1])
    inside = (start[at, None] <= place) & (place < stop[at, None])
    energies = np.where(inside & np.isfinite(energies), energies, 0)
    alive = energies.sum(1) > 0
    if not alive.any():
        return Span(start, stop)
    weights = energies[alive].sum(1)
    ends = np.array([_shortest(energy, share) for energy in energies[alive]], dtype=float)
    seen = np.flatnonzero(start < stop)
    rising = bool((start + stop)[seen[-1]] >= (start + stop)[seen[0]])
    ordered = [isotonic_regression(end, sample_weight=weights, increasing=rising) for end in ends.T]
    first, last = (np.floor(np.interp(np.arange(len(start)), at[alive], end) + 0.5).astype(np.intp) for end in ordered)
    first = np.clip(first, start, np.maximum(start, stop - 1))
    return Span(first, np.clip(last, np.minimum(first + 1, stop), stop))


def _shortest(energy: np.ndarray, share: float) -> tuple[int, int]:
    """Return the shortest interval with a share of the energy; of several, the one with the most."""
    total = np.concatenate([[0], np.cumsum(energy)])
    first = np.arange(len(energy))
    last = np.searchsorted(total, total[:-1] + share * (1 - 1e-9) * total[-1])
    first, last = first[last < len(total)], last[last < len(total)]
    best = np.lexsort((total[first] - total[last], last - first))[0]
    return int(first[best]), int(last[best])
