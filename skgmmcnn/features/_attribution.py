"""Attribution of a scalar of the network to locations of a layer, by integrated gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Differentiable function of a map (n, C, H, W) that returns one number per image (n,).
Scalar = Callable[[Tensor], Tensor]


class Attribution(NamedTuple):
    """Attribution of a scalar m of each image to the locations of a layer.

    Parameters
    ----------
    influence : Tensor of shape (n, H, W)
        Influence of each location; the sum over a map is m(x) - m(b).
    slope : Tensor of shape (n, C, H, W)
        The gradient of m at the activations x.
    begin, end : Tensor of shape (n,)
        m(b) and m(x).
    residual : Tensor of shape (n,)
        Error of the integration before its correction, relative to the sum of abs(influence).
    """

    influence: Tensor
    slope: Tensor
    begin: Tensor
    end: Tensor
    residual: Tensor


def attribute(scalar: Scalar, values: Tensor, baseline: Tensor, n_steps: int) -> Attribution:
    """Return integrated gradients [1]_ of m, a scalar of maps, from a baseline b to the activations x in `values`.

    The straight line from b to x is divided into `n_steps` segments.  On each the gradient at the end nearer to x
    attributes the change of m to locations.  The difference to the exact change is distributed in proportion to the
    absolute contributions, without changing signs.

    References
    ----------
    .. [1] Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", ICML 2017.
    """
    change = (values - baseline).double()
    smallest = torch.finfo(change.dtype).tiny
    influence = change.new_zeros(values.shape[:1] + values.shape[2:])
    error = change.new_zeros(len(values))
    with torch.no_grad():
        begin = before = scalar(baseline.expand_as(values)).double()
    for step in range(1, n_steps + 1):
        point = torch.lerp(baseline.expand_as(values), values, step / n_steps)
        m, slope = value_and_gradient(scalar, point)
        part = (slope.double() * change).sum(1) / n_steps
        difference = m - before - part.sum((1, 2))
        error += difference.abs()
        scale = (difference / part.abs().sum((1, 2)).clamp_min(smallest)).clamp(-1, 1)
        influence += part + part.abs() * scale[:, None, None]
        before = m
    total = influence.abs().sum((1, 2)).clamp_min(smallest)
    return Attribution(influence, slope, begin, before, error / total)


def value_and_gradient(scalar: Scalar, at: Tensor) -> tuple[Tensor, Tensor]:
    """Return m (n,) of a map (n, C, H, W) in double precision, and its gradient."""
    leaf = at.detach().clone().requires_grad_()
    with torch.enable_grad():
        m = scalar(leaf)
        if not m.requires_grad:
            raise ValueError(
                "The decision has no gradient in this layer, as in networks that are quantised, run under no_grad or "
                "detach values; use evidence='counts'."
            )
        (gradient,) = torch.autograd.grad(m.sum(), leaf)
    return m.detach().double(), gradient
