"""What a layer's tensor looks like, and the map (n, C, H, W) that it is read as."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

_MOST_EXTRA_TOKENS = 8  # class, distillation and register tokens stand before those of the image


class Form(NamedTuple):
    """How the tensor that a layer returns is read as a map.

    Parameters
    ----------
    axes : tuple of int or None
        Which of the four axes of a map are its rows and its columns; None for vectors and tokens.
    grid : tuple (height, width) or None
        How the last tokens of (n, T, C) lie in the image; None for vectors and maps.
    """

    axes: tuple[int, int] | None = None
    grid: tuple[int, int] | None = None

    @classmethod
    def of(cls, tensor: Tensor, axes: tuple[int, int] | None, sizes: Iterable[tuple[int, int]]) -> Form | None:
        """Find it for the tensor of one image, None if it is neither map, vector nor grid of tokens.

        Tokens are those of the last map, among the `sizes` of all before it, that has as many locations.
        """
        if tensor.ndim == 2:
            return cls()
        if tensor.ndim == 4 and axes is not None:
            return cls(axes=axes)
        if tensor.ndim == 3 and len(tensor) == 1:
            fitting = [size for size in sizes if 0 <= tensor.shape[1] - size[0] * size[1] <= _MOST_EXTRA_TOKENS]
            fitting = [size for size in fitting if size[0] * size[1] > _MOST_EXTRA_TOKENS]
            return cls(grid=fitting[-1]) if fitting else None
        return None

    def as_map(self, values: Tensor) -> Tensor:
        """Return activations as maps (n, C, H, W): a vector is a map of one location; tokens without place are left."""
        if self.axes is not None:
            (channels,) = {1, 2, 3} - set(self.axes)
            return values.permute(0, channels, *self.axes)
        if self.grid is not None:
            return values[:, -self.grid[0] * self.grid[1] :].unflatten(1, self.grid).permute(0, 3, 1, 2)
        return values[:, :, None, None]

    def shape(self, values: Tensor) -> tuple[int, int, int]:
        """Return (C, H, W) of the map."""
        _, channels, height, width = self.as_map(values).shape
        return channels, height, width


def refuse(layer: str, values: Tensor) -> ValueError:
    """Return what to raise for a layer that has no form."""
    return ValueError(
        f"Layer {layer!r} returns a tensor of shape {tuple(values.shape)}; maps (n, C, H, W) or (n, H, W, C), vectors "
        "(n, d), and tokens (n, T, d) as many as a map before them has locations can be modelled."
    )
