"""What the network returns, and its decision: one output number per image."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

# As autograd calls operations.
_PRODUCTS = ("Mm", "Addmm", "Bmm", "Baddbmm", "Convolution", "MkldnnConvolution", "Linear")
_BOUNDED = ("Sigmoid", "Hardsigmoid", "Softmax", "Exp", "Clamp", "ClampMin", "Hardtanh", "Tanh", "Erf")


ONE_AT_A_TIME = (
    "Explain one output at a time, with a network that returns it alone, (n, 1), as nn.Sequential(network, Column(3)) "
    "where the forward of Column returns x[:, [number]]; or say which decision is meant: decision=callable."
)


class Meaning(NamedTuple):
    """What values (n, C) of a network can be taken for.

    Parameters
    ----------
    probabilities : bool
        Whether they are those of C classes, or that of the second of two: a softmax or a sigmoid came last.
    separate : bool
        Whether each is the probability of something else, as behind several sigmoids.
    """

    probabilities: bool = False
    separate: bool = False

    @property
    def bounded(self) -> bool:
        """Whether they lie in [0, 1]."""
        return self.probabilities or self.separate

    @classmethod
    def of(cls, outputs: Any) -> Meaning:
        """Tell it from what the network returned for some images."""
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or not outputs.is_floating_point():
            return cls()
        known = outputs[outputs.isfinite().all(1)]
        if not len(known) or not _in_range(known).all():
            return cls()
        return cls(probabilities=True) if bool(_adds_up(known).all()) else cls(separate=True)


def is_bounded(network: nn.Module, image: Tensor) -> bool:
    """Whether a sigmoid, a softmax or their like stands between a network's last product and its outputs.

    Scores can lie in [0, 1] by chance.  It is read from what autograd records of an image, as the network takes it;
    where that is nothing, it is assumed.
    """
    with torch.enable_grad():
        outputs = network(image.detach().requires_grad_().clone())
    if outputs.grad_fn is None:
        return True
    waiting, seen = [outputs.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        operation = node.name().partition("Backward")[0]
        if operation in _BOUNDED:
            return True
        if operation in _PRODUCTS:
            continue
        waiting += [lower for lower, _ in node.next_functions]
    return False


def _in_range(outputs: Tensor) -> Tensor:
    rounding = _rounding(outputs)
    return ((outputs >= -rounding) & (outputs <= 1 + rounding)).all(1)


def _adds_up(outputs: Tensor) -> Tensor:
    """Whether values in [0, 1] are a distribution, by row; a single one is, with the rest to 1."""
    if outputs.shape[1] == 1:
        return torch.ones(len(outputs), dtype=torch.bool, device=outputs.device)
    return (outputs.double().sum(1) - 1).abs() < _rounding(outputs)


def _rounding(outputs: Tensor) -> float:
    return max(1e-4, 4 * torch.finfo(outputs.dtype).eps) if outputs.is_floating_point() else 0.0


def check_one_decision(found: Meaning, n_outputs: int, decision: Callable | None) -> None:
    """Refuse networks that decide several things at once, unless they are told which decision is meant."""
    if not found.separate:
        return
    what = f"The network's {n_outputs} outputs lie in [0, 1] and do not add up to 1: they are {n_outputs} sigmoids"
    if decision is None:
        raise ValueError(f"{what} (multi-label). {ONE_AT_A_TIME}")
    warnings.warn(
        f"{what}. With your decision= they are taken for the scores of one softmax; better explain one "
        "output at a time, with a network that returns only that one (n, 1).",
        stacklevel=4,
    )


def count_outputs(outputs: Any, decision: Callable | None, class_names: Sized | None) -> int:
    """Return among how many outputs the network decides."""
    if decision is not None and class_names is not None:
        return len(class_names)
    if isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] and outputs.is_floating_point():
        return max(2, outputs.shape[1])
    if decision is not None:
        remedy = "pass class_names, one per decision"
    else:
        remedy = f"pass decision=callable and class_names{_scores_inside(outputs)}"
    raise ValueError(f"The network returns {_told(outputs)} for one image, not (1, C) scores to decide by; {remedy}.")


def _told(outputs: Any) -> str:
    if isinstance(outputs, Tensor):
        return f"{str(outputs.dtype).removeprefix('torch.')} numbers of shape {tuple(outputs.shape)}"
    return f"a {type(outputs).__name__}"


def _scores_inside(outputs: Any) -> str:
    """Name what looks like scores in a dict, a tuple or named outputs."""
    entries = (
        outputs.items()
        if isinstance(outputs, Mapping)
        else enumerate(outputs)
        if isinstance(outputs, (tuple, list))
        else ()
    )
    for key, value in entries:
        if isinstance(value, Tensor) and value.ndim == 2:
            return f"; or wrap it in a module whose forward returns entry {key!r} alone, of shape {tuple(value.shape)}"
    return ""


def entries(item: Any) -> Iterable[tuple[Any, Any]]:
    """Return what a dict, a tuple or a list holds, by its keys or numbers; nothing of other things."""
    if isinstance(item, Mapping):
        return item.items()
    return enumerate(item) if isinstance(item, (tuple, list)) else ()


class Judge(NamedTuple):
    """Reads what the network returns.

    Parameters
    ----------
    decision : callable or None
        The user's way to decide; the largest of C outputs where None, and for a single one whether it is positive, or
        above one half where it is a probability.
    n_outputs : int
        Among how many outputs the network decides.
    probabilities : bool
        Whether it returns probabilities, as it did for the images at fit.
    """

    decision: Callable | None
    n_outputs: int
    probabilities: bool

    def read(self, outputs: Any, start: int, activations: Mapping[str, Tensor]) -> tuple[Any, np.ndarray]:
        """Return outputs of images from number `start` on as later stages read them, and decisions, int64 (n,).

        Probabilities are those of all classes, (n, 2) for a single one.
        """
        n_images = len(next(iter(activations.values())))
        if isinstance(outputs, Tensor) and outputs.ndim and not torch.isfinite(outputs.sum()):
            _refuse_non_finite(outputs, start, activations)
        scores = _distribution(outputs, start) if self.probabilities else outputs
        if self.decision is not None:
            chosen = _decided(self.decision, outputs, start)
        elif scores.shape[1] == 1:
            chosen = (scores[:, 0] > 0).long()
        else:
            chosen = scores.argmax(1)
        return scores, _check_decisions(chosen, self.n_outputs, n_images)


def _decided(decision: Callable, outputs: Any, start: int) -> Any:
    try:
        return decision(outputs)
    except Exception as error:
        raise ValueError(
            f"decision failed on images from {start} on: {type(error).__name__}: {error}. It is called with what the "
            f"network returns, {_told(outputs)}."
        ) from error


def _refuse_non_finite(outputs: Tensor, start: int, activations: Mapping[str, Tensor]) -> None:
    bad = not_finite(outputs)
    if bad:  # else the sum alone overflowed
        first = next((f", first in layer {name!r}" for name, maps in activations.items() if not_finite(maps)), "")
        raise ValueError(
            f"The network returns NaN or infinity for image {start + bad[0]}{first}: nothing can be decided. Look at "
            "that image and its preprocessing, or leave it out."
        )


def not_finite(values: Tensor) -> list[int]:
    """Return the numbers of the rows that hold NaN or infinity."""
    return (~values.reshape(len(values), -1).isfinite().all(1)).nonzero().flatten().tolist()


def _distribution(outputs: Tensor, start: int) -> Tensor:
    """Return probabilities (n, C) of all classes that add up to 1."""
    wrong = (~(_in_range(outputs) & _adds_up(outputs))).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            "The network returned probabilities for the images at fit, from 0 to 1, and for image "
            f"{start + wrong[0]} it returns {outputs[wrong[0], :3].tolist()}. Fit again with that image first."
        )
    p = outputs.float().clamp(0, 1)
    if p.shape[1] == 1:  # what is left to 1 has no more digits than that
        return torch.cat([(1 - p).clamp_min(torch.finfo(p.dtype).eps / 2), p], 1)
    return p / p.sum(1, keepdim=True)


def _check_decisions(chosen: Any, n_outputs: int, n_images: int) -> np.ndarray:
    chosen = chosen.numpy(force=True) if isinstance(chosen, Tensor) else np.asarray(chosen)
    if chosen.shape != (n_images,) or chosen.dtype.kind not in "iub":
        raise ValueError(
            f"decision must return {n_images} output numbers for {n_images} images; it returned an array of "
            f"{chosen.dtype} of shape {chosen.shape}."
        )
    if chosen.min() < 0 or chosen.max() >= n_outputs:
        wrong = chosen.min() if chosen.min() < 0 else chosen.max()
        raise ValueError(f"decision returned output {wrong}, and there are outputs 0 to {n_outputs - 1}.")
    return chosen.astype(np.int64)
