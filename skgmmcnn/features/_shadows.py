"""Shadows of tensors: the rows and columns of the image, and of lower layers, that each value depends on.

The shadow of a tensor of shape S has shape (k, *S), with length 1 along axes where it is constant.  The first two
entries are the place of a value, the row and column in the last map returned by a convolution or pooling.  Four
entries follow for each origin (the image and lower layers): first row, -(last row + 1), first column and
-(last column + 1) that the value depends on.  The shadow of a mixture is the minimum; infinity means no dependence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, reduce

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ._forms import Form
from ._receptive_field import ReceptiveField, Span

N_PLACE, N_ENDS = 2, 4


def no_dependence(ndim: int) -> Tensor:
    """Return the shadow of a constant with `ndim` axes."""
    return torch.full((N_PLACE, *[1] * ndim), torch.inf)


@lru_cache(maxsize=64)
def ends_of(size: Sequence[int]) -> Tensor:
    """Return the interval ends (4, H, W) of the rows and columns of each location of a map."""
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij")
    return torch.stack([rows, -rows - 1, columns, -columns - 1])


def at_locations(values: Tensor, tensor: Tensor, form: Form) -> Tensor:
    """Return a shadow of `tensor` from values (k, H, W) of its locations; tokens outside of the grid have none."""
    shape = [n if axis in form.location_axes else 1 for axis, n in enumerate(tensor.shape)]
    shadow = torch.full((len(values), *shape), torch.inf)
    for entry, of_locations in zip(shadow, values, strict=True):
        form.as_map(entry).copy_(of_locations)
    return shadow


def align(shadow: Tensor, ndim: int) -> Tensor:
    """Add axes of length 1 in front of those of a tensor with `ndim` axes, for broadcasting."""
    return shadow.view(len(shadow), *[1] * (ndim + 1 - shadow.ndim), *shadow.shape[1:])


def least(shadows: Sequence[Tensor]) -> Tensor:
    """Return the minimum of shadows with equal numbers of axes."""
    return reduce(torch.minimum, of_equal_length(shadows))


def combine(shadows: Sequence[Tensor]) -> Tensor:
    """Return the shadow of values that depend on several branches.

    The place is that of the branch with the larger one: branches that mix locations have smaller places.
    """
    combined = least(shadows)
    if len(shadows) > 1:
        places = torch.broadcast_tensors(*[shadow[:N_PLACE] for shadow in shadows])
        largest = torch.stack([place.nan_to_num(posinf=-1) for place in places]).amax(0)
        combined[:N_PLACE] = largest.where(largest >= 0, torch.inf)
    return combined


def mix(shadow: Tensor, axes: Sequence[int]) -> Tensor:
    """Return the shadow of a mixture along axes, which keep length 1."""
    return shadow.amin([axis + 1 for axis in axes], keepdim=True) if len(axes) else shadow


def rescale(shadow: Tensor, axes: Sequence[int]) -> Tensor:
    """Return the shadow of values rescaled by statistics over axes."""
    return combine([shadow, mix(shadow, axes)])


def of_equal_length(shadows: Sequence[Tensor]) -> list[Tensor]:
    """Pad shadows to equal numbers of origins."""
    most = max(map(len, shadows))
    return [pad_entries(shadow, 0, most - len(shadow)) for shadow in shadows]


def pad_entries(shadow: Tensor, before: int, behind: int) -> Tensor:
    """Add entries without dependence before and behind those of a shadow."""
    if not before and not behind:
        return shadow
    return F.pad(shadow, [0, 0] * (shadow.ndim - 1) + [before, behind], value=torch.inf)


def set_places(shadow: Tensor, size: Sequence[int]) -> Tensor:
    """Set the places to the locations of a new map of some size, along the last axes."""
    place = align(ends_of(size)[::2], shadow.ndim - 1)
    shape = torch.broadcast_shapes(place.shape[1:], shadow.shape[1:])
    return torch.cat([place.expand(-1, *shape), shadow[N_PLACE:].expand(-1, *shape)])


def gather(shadow: Tensor, axis: int, n: int, positions: Tensor) -> Tensor:
    """Return the shadow of m mixtures of `positions` (m, k) along an axis of length n; others are not read."""
    first = shadow.expand(*[n if i == axis else -1 for i in range(shadow.ndim)]).movedim(axis, 0)
    first = torch.cat([first, torch.full_like(first[:1], torch.inf)])
    positions = torch.where((positions >= 0) & (positions < n), positions, n)
    return reduce(torch.minimum, (first[column] for column in positions.T)).movedim(0, axis)


def fields_of(
    shadow: Tensor, tensor: Tensor, form: Form, origins: Mapping[str, tuple[int, int]]
) -> dict[str, ReceptiveField]:
    """Return the fields of a layer in those of the origins, of the given sizes, that it depends on."""
    shape = [n if axis in form.location_axes else -1 for axis, n in enumerate(tensor.shape)]
    ends_in_origins = shadow[N_PLACE:].expand(-1, *shape).split(N_ENDS)
    fields: dict[str, ReceptiveField] = {}
    for (lower, size), ends in zip(origins.items(), ends_in_origins, strict=False):
        maps = [form.as_map(end).amin((0, 1)) for end in ends]
        if maps and maps[0].isfinite().any():
            fields[lower] = ReceptiveField(_span(maps[:2], along=0), _span(maps[2:], along=1), size)
    return fields


def _span(ends: Sequence[Tensor], along: int) -> Span:
    """Return intervals from maps (H, W) of starts and negated stops; infinite ones are empty."""
    start, stop = (end.amin(1 - along).nan_to_num(posinf=0).numpy().astype(np.intp) for end in ends)
    return Span(start, -stop)
