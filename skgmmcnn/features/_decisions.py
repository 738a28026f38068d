"""Decisions of networks: one output number per image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._warnings import warn
from ._scores import adds_up, in_unit_interval
from ._spec import ONE_AT_A_TIME, NetworkSpec

# Names of operations in autograd.
_PRODUCTS = ("Mm", "Addmm", "Bmm", "Baddbmm", "Convolution", "MkldnnConvolution", "Linear")
_BOUNDED = ("Sigmoid", "Hardsigmoid", "Softmax", "Exp", "Clamp", "ClampMin", "Hardtanh", "Tanh", "Erf")


def meaning_of(outputs: Any) -> str:
    """Return "scores", "probabilities" of the classes, or "separate" ones (multi-label), from outputs of images."""
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or not outputs.is_floating_point():
        return "scores"
    finite = outputs[outputs.isfinite().all(1)]
    if not len(finite) or not in_unit_interval(finite).all():
        return "scores"
    return "probabilities" if bool(adds_up(finite).all()) else "separate"


def is_bounded(network: nn.Module, image: Tensor) -> bool:
    """Return whether a sigmoid, softmax or similar follows the last product of a network.

    Scores can lie in [0, 1] by chance.  The operations are those that autograd records for a preprocessed image; if
    there are none, True is returned.
    """
    with torch.enable_grad():
        outputs = network(image.detach().requires_grad_().clone())
    if outputs.grad_fn is None:
        return True
    nodes, visited = [outputs.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        operation = node.name().partition("Backward")[0]
        if operation in _BOUNDED:
            return True
        if operation not in _PRODUCTS:
            nodes += [lower for lower, _ in node.next_functions]
    return False


def check_one_decision(n_outputs: int, decision: Callable | None) -> None:
    """Raise an error for a multi-label network without a decision function, else warn."""
    what = f"The network's {n_outputs} outputs lie in [0, 1] and do not add up to 1: they are {n_outputs} sigmoids"
    if decision is None:
        raise ValueError(f"{what} (multi-label). {ONE_AT_A_TIME}")
    warn(
        f"{what}. With decision= they are treated as scores of one softmax; it is better to explain one "
        "output at a time, with a network that returns only that one (n, 1).",
    )


def count_outputs(outputs: Any, decision: Callable | None, class_names: Sized | None) -> int:
    """Return the number of outputs that the network decides between."""
    if decision is not None and class_names is not None:
        return len(class_names)
    if isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] and outputs.is_floating_point():
        return max(2, outputs.shape[1])
    if decision is not None:
        remedy = "pass class_names, one per decision"
    else:
        remedy = f"pass decision=callable and class_names{_scores_inside(outputs)}"
    raise ValueError(f"The network returns {_describe(outputs)} for one image, not scores (1, C); {remedy}.")


def _describe(outputs: Any) -> str:
    if isinstance(outputs, Tensor):
        return f"{str(outputs.dtype).removeprefix('torch.')} numbers of shape {tuple(outputs.shape)}"
    return f"a {type(outputs).__name__}"


def _scores_inside(outputs: Any) -> str:
    """Return a hint at the first entry of a container that can be scores, "" if there is none."""
    for key, value in entries(outputs):
        if isinstance(value, Tensor) and value.ndim == 2:
            return f"; or wrap it in a module whose forward returns only entry {key!r}, of shape {tuple(value.shape)}"
    return ""


def entries(item: Any) -> Iterable[tuple[Any, Any]]:
    """Return the (key, value) pairs of a dict, tuple or list, none for other objects."""
    if isinstance(item, Mapping):
        return item.items()
    return enumerate(item) if isinstance(item, (tuple, list)) else ()


def decide(
    outputs: Any, activations: Mapping[str, Tensor], start: int, decision: Callable | None, spec: NetworkSpec
) -> tuple[Any, np.ndarray]:
    """Return outputs and int64 decisions (n,) of images from number `start` on.

    Without a `decision` function the decision is the largest of C outputs, or a threshold on a single one: 0, or 0.5
    for probabilities.  Probabilities are returned for all classes, (n, 2) for a single output.
    """
    if isinstance(outputs, Tensor) and outputs.ndim and not torch.isfinite(outputs.sum()):
        _refuse_non_finite(outputs, start, activations)
    scores = _distribution(outputs, start) if spec.probabilities else outputs
    if decision is not None:
        decisions = _call_decision(decision, outputs, start)
    elif scores.shape[1] == 1:
        decisions = (scores[:, 0] > 0).long()
    else:
        decisions = scores.argmax(1)
    n_images = len(next(iter(activations.values())))
    return scores, _check_decisions(decisions, spec.n_outputs, n_images)


def _call_decision(decision: Callable, outputs: Any, start: int) -> Any:
    try:
        return decision(outputs)
    except Exception as error:
        raise ValueError(
            f"decision failed on images from {start} on: {type(error).__name__}: {error}. It is called with what the "
            f"network returns, {_describe(outputs)}."
        ) from error


def _refuse_non_finite(outputs: Tensor, start: int, activations: Mapping[str, Tensor]) -> None:
    bad = not_finite(outputs)
    if bad:  # otherwise the sum overflowed
        first = next((f", first in layer {name!r}" for name, maps in activations.items() if not_finite(maps)), "")
        raise ValueError(
            f"The network returns NaN or infinity for image {start + bad[0]}{first}. Check that image and "
            "its preprocessing, or leave it out."
        )


def not_finite(values: Tensor) -> list[int]:
    """Return the numbers of the rows with NaN or infinity."""
    if values.sum().isfinite():
        return []
    return (~values.reshape(len(values), -1).isfinite().all(1)).nonzero().flatten().tolist()


def _distribution(outputs: Tensor, start: int) -> Tensor:
    """Return probabilities (n, C) of all classes that add up to 1."""
    wrong = (~(in_unit_interval(outputs) & adds_up(outputs))).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            "The network returned probabilities for the images at fit, from 0 to 1, and for image "
            f"{start + wrong[0]} it returns {outputs[wrong[0], :3].tolist()}. Fit again with that image first."
        )
    p = outputs.float().clamp(0, 1)
    if p.shape[1] == 1:  # the precision of the complement
        return torch.cat([(1 - p).clamp_min(torch.finfo(p.dtype).eps / 2), p], 1)
    return p / p.sum(1, keepdim=True)


def _check_decisions(decisions: Any, n_outputs: int, n_images: int) -> np.ndarray:
    decisions = decisions.numpy(force=True) if isinstance(decisions, Tensor) else np.asarray(decisions)
    if decisions.shape != (n_images,) or decisions.dtype.kind not in "iub":
        raise ValueError(
            f"decision must return {n_images} output numbers for {n_images} images; got an array of {decisions.dtype} "
            f"of shape {decisions.shape}."
        )
    outside = decisions[(decisions < 0) | (decisions >= n_outputs)]
    if len(outside):
        raise ValueError(f"decision returned output {outside[0]}, but there are outputs 0 to {n_outputs - 1}.")
    return decisions.astype(np.int64)
