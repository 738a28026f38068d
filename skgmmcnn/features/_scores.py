"""Probabilities, log-odds and contrasts of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

_ROUNDING = 1e-4


def log_proba(outputs: Any) -> Tensor:
    """Return the log-probabilities (n, C) of the classes, in nats.

    Scores are converted by softmax, probabilities are used directly; a single score is the logit of the second of two
    classes.
    """
    if not isinstance(outputs, (Tensor, np.ndarray)) or outputs.ndim != 2:
        kind = f"an array of shape {outputs.shape}" if hasattr(outputs, "shape") else f"a {type(outputs).__name__}"
        raise ValueError(f"Probabilities need scores (n, C) of the classes; the network returns {kind}.")
    scores = torch.as_tensor(outputs).double()
    if scores.shape[1] == 1:
        return torch.cat([torch.zeros_like(scores), scores], 1).log_softmax(1)
    if bool(in_unit_interval(scores).all() and adds_up(scores).all()):
        return scores.clamp_min(float(np.finfo(np.float32).tiny)).log()
    return scores.log_softmax(1)


def in_unit_interval(outputs: Tensor) -> Tensor:
    """Return for each row whether its values lie in [0, 1], up to rounding."""
    rounding = _rounding(outputs)
    return ((outputs >= -rounding) & (outputs <= 1 + rounding)).all(1)


def adds_up(outputs: Tensor) -> Tensor:
    """Return for each row of values in [0, 1] whether it is a distribution; a single value is, with its complement."""
    if outputs.shape[1] == 1:
        return torch.ones(len(outputs), dtype=torch.bool, device=outputs.device)
    return (outputs.double().sum(1) - 1).abs() < _rounding(outputs)


def _rounding(outputs: Tensor) -> float:
    return max(_ROUNDING, 4 * torch.finfo(outputs.dtype).eps)


def of_class(values: Tensor, classes: np.ndarray) -> Tensor:
    """Return the entry of `values` (n, C) for one class of each image, shape (n,)."""
    return values.gather(1, _indices(classes, values))[:, 0]


def _of_others(log_p: Tensor, classes: np.ndarray) -> Tensor:
    """Return log-probabilities (n, C) without those of one class of each image."""
    return log_p.scatter(1, _indices(classes, log_p), -torch.inf)


def _indices(classes: np.ndarray, values: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(classes, np.int64)).to(values.device)[:, None]


def proba_of(outputs: Any, classes: np.ndarray) -> np.ndarray:
    """Return the probability of one class for each image, shape (n,)."""
    return of_class(log_proba(outputs), classes).exp().numpy(force=True)


def margins(outputs: Any, classes: np.ndarray, contrasts: np.ndarray | None = None) -> Tensor:
    """Return the log-odds of one class of each image, in nats, shape (n,).

    They are z_c - log sum over the other classes of exp z_j; with `contrasts` z_c - z_contrast.
    """
    log_p = log_proba(outputs)
    log_p_of_class = of_class(log_p, classes)
    if contrasts is not None:
        return log_p_of_class - of_class(log_p, contrasts)
    return log_p_of_class - _of_others(log_p, classes).logsumexp(1)


def runners_up(outputs: Any, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the most probable other class of each image and its probability, shapes (n,)."""
    best = _of_others(log_proba(outputs), classes).max(1)
    return best.indices.numpy(force=True), best.values.exp().numpy(force=True)


def check_decided(outputs: Any, decisions: np.ndarray, n_outputs: int) -> None:
    """Raise an error if decisions are not the classes of the largest scores."""
    log_p = log_proba(outputs)
    if log_p.shape[1] == n_outputs:
        lead = log_p.max(1).values - of_class(log_p, decisions)
        if bool((lead < _ROUNDING).all()):
            return
    raise ValueError(
        "This uses the probability of the decision, which must be the class of the largest score; with this decision= "
        f"it is not: {log_p.shape[1]} scores, {n_outputs} classes. Give a network that returns one score per class, as "
        "nn.Sequential(network, your_head); graphs also support evidence='counts'."
    )
