"""What the locations of a layer contributed to a scalar of the network: integrated gradients from a baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# From a map (n, C, H, W) of a layer to one number per image (n,), differentiable.
Scalar = Callable[[Tensor], Tensor]


class Attribution(NamedTuple):
    """What each location of a layer contributed to a scalar m of each image.

    Parameters
    ----------
    influence : Tensor of shape (n, H, W)
        Sums over a map to m(x) - m(b), but for `residual`.
    slope : Tensor of shape (n, C, H, W)
        The gradient of m at the activations x.
    begin, end : Tensor of shape (n,)
        m(b) and m(x).
    residual : Tensor of shape (n,)
        The share of the sum of abs(influence) by which the rule as such misses, before the correction.
    """

    influence: Tensor
    slope: Tensor
    begin: Tensor
    end: Tensor
    residual: Tensor


def attribute(scalar: Scalar, values: Tensor, baseline: Tensor, n_steps: int) -> Attribution:
    """Return integrated gradients [1]_ of a scalar along the straight line from a baseline to the activations.

    The line is cut into `n_steps` segments.  On each of them the gradient at the end that is nearer to the activations
    divides the change of m among the locations.  What it misses of the exact change is divided among them in proportion
    to the absolute contributions there, without changing any sign.

    Parameters
    ----------
    scalar : callable
        Makes m (n,) of a map (n, C, H, W).
    values : Tensor of shape (n, C, H, W)
        The activations x.
    baseline : Tensor broadcast to (n, C, H, W)
        The point b where nothing is known.
    n_steps : int
        Number of segments, and of gradients to compute.

    Returns
    -------
    attribution : Attribution
        In the units of m.

    References
    ----------
    .. [1] Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", ICML 2017.
    """
    change = (values - baseline).double()
    influence = change.new_zeros(values.shape[:1] + values.shape[2:])
    missed = change.new_zeros(len(values))
    with torch.no_grad():
        begin = last = scalar(baseline.expand_as(values)).double()
    for step in range(1, n_steps + 1):
        point = torch.lerp(baseline.expand_as(values), values, step / n_steps)
        now, slope = value_and_gradient(scalar, point)
        part = (slope.double() * change).sum(1) / n_steps
        size, miss = part.abs().sum((1, 2)), now - last - part.sum((1, 2))
        missed += miss.abs()
        scale = (miss / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp(-1, 1)
        influence += part + part.abs() * scale[:, None, None]
        last = now
    total = influence.abs().sum((1, 2)).clamp_min(torch.finfo(missed.dtype).tiny)
    return Attribution(influence, slope, begin, last, missed / total)


def value_and_gradient(scalar: Scalar, at: Tensor) -> tuple[Tensor, Tensor]:
    """Return m (n,) at a map (n, C, H, W), in double precision, and its gradient there."""
    leaf = at.detach().clone().requires_grad_()
    with torch.enable_grad():
        m = scalar(leaf)
        if not m.requires_grad:
            raise ValueError(
                "The decision has no gradient in this layer, as in networks that are quantised, or that run under "
                "no_grad or detach what they compute; use evidence='counts' for them."
            )
        (gradient,) = torch.autograd.grad(m.sum(), leaf)
    return m.detach().double(), gradient
