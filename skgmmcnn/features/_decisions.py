"""The network's decision: one output number per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor


def count_outputs(outputs: Any, decision: Callable | None, class_names: Sequence[str] | None) -> int:
    """Return among how many outputs the network decides."""
    if decision is not None and class_names is not None:
        return len(class_names)
    if isinstance(outputs, Tensor) and outputs.ndim == 2:
        return max(2, outputs.shape[1])
    shape = (
        f"a tensor of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
    )
    missing = "class_names, one per decision" if decision is not None else "decision=callable and class_names"
    raise ValueError(f"The network returns {shape} for one image, not (1, C) scores to decide by; pass {missing}.")


def decide(outputs: Any, decision: Callable | None, n_outputs: int, n_images: int) -> np.ndarray:
    """Return the decisions for a batch, int64 (n,): by `decision`, by the largest of C outputs, by the sign of one."""
    if decision is not None:
        chosen = decision(outputs)
    elif outputs.shape[1] == 1:
        chosen = (outputs[:, 0] > 0).long()
    else:
        chosen = outputs.argmax(1)
    chosen = chosen.numpy(force=True) if isinstance(chosen, Tensor) else np.asarray(chosen)
    if chosen.shape != (n_images,) or chosen.dtype.kind not in "iub":
        raise ValueError(
            f"decision must return {n_images} output numbers for {n_images} images; it returned an array of "
            f"{chosen.dtype} of shape {chosen.shape}."
        )
    if chosen.min() < 0 or chosen.max() >= n_outputs:
        raise ValueError(f"decision returned output {chosen.max()}, and there are outputs 0 to {n_outputs - 1}.")
    return chosen.astype(np.int64)
