"""Device, memory layout, precision and batching of frozen networks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from .._device import exact_float32
from .._threads import by_blocks

# Largest numbers of values and images in one pass on a CPU, so that maps fit into its caches.
_MAX_VALUES = 2**17
_MAX_IMAGES = 64
_OPERATIONS_PER_VALUE = 2000  # approximate number of multiplications of a network per value of an image


def lay_out(network: nn.Module, image: Tensor) -> None:
    """Store the weights of a network on the CPU channels last, if it then runs on `image` (1, ...).

    This saves 15 to 45 % of the time on a CPU.  A network that views a map as a vector fails and keeps its layout; an
    error is raised if it cannot run on the image at all.
    """
    required = [p for p in inspect.signature(network.forward).parameters.values() if p.default is p.empty]
    names = [p.name for p in required if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(names) > 1:
        raise ValueError(
            f"The network takes {len(names)} inputs ({', '.join(names)}) instead of one. Wrap it in a module "
            f"whose forward({names[0]}) calls it with the others fixed."
        )
    if image.ndim == 4 and _runs(in_memory(network, torch.channels_last), image) is None:
        return
    error = _runs(in_memory(network, torch.contiguous_format), image)
    if error is not None:
        kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
        raise ValueError(
            f"The network fails on an image of shape {tuple(image.shape[1:])}: {kind}{error}. Is the image too small, "
            "or not preprocessed as in training?"
        ) from error


def in_memory(network: nn.Module, memory_format: torch.memory_format) -> nn.Module:
    """Set the memory format of the weights of 2-D convolutions; return the network."""
    for weight in network.parameters():
        if weight.ndim == 4:  # Module.to fails for weights of volumes
            weight.data = weight.data.to(memory_format=memory_format)
    return network


def _runs(network: nn.Module, image: Tensor) -> Exception | None:
    """Return the error that the network raises for an image, None if it runs."""
    try:
        with torch.no_grad():
            network(prepare(network, image))
    except Exception as error:
        return error
    return None


def move(network: nn.Module, device: torch.device) -> None:
    """Move a network to `device`; on a GPU weights are stored channels first, the layout of float32 kernels."""
    network.to(device)
    if device.type != "cpu":
        in_memory(network, torch.contiguous_format)


def prepare(network: nn.Module, batch: Tensor) -> Tensor:
    """Return `batch` with the device, floating-point type and memory layout of the weights."""
    weights = [weight for weight in network.parameters() if weight.is_floating_point()]
    like = weights[0] if weights else batch
    if batch.ndim == 4 and any(weight.ndim == 4 and not weight.is_contiguous() for weight in weights):
        batch = batch.contiguous(memory_format=torch.channels_last)
    if like.is_cuda and not batch.is_cuda:
        batch = batch.pin_memory()
    return batch.to(like.device, like.dtype, non_blocking=True)


def precisely(device: torch.device) -> AbstractContextManager:
    """Compute in full float32, which a GPU may not do by default."""
    # The switches belong to the process, so several threads cannot set and restore them.
    return nullcontext() if device.type == "cpu" else exact_float32()


def images_at_once(shape: Sequence[int]) -> int:
    """Return the number of images of shape (C, H, W) in one pass on a CPU."""
    return min(_MAX_IMAGES, max(1, _MAX_VALUES // prod(shape)))


def in_parts(
    run: Callable[[Tensor], tuple[Any, dict[str, Tensor]]], batch: Tensor, size: int
) -> tuple[Any, dict[str, Tensor]]:
    """Return the result of `run` on `batch`, computed in parts of `size` images.

    Rounding depends on the size of products.  So that the values of an image depend neither on the batch nor on the
    number of threads, each part is computed by one thread, and the last part is padded.
    """
    n = len(batch)
    if n % size:
        batch = torch.cat([batch, batch[-1:].expand(-n % size, *batch.shape[1:])])
    parts = batch.split(size)
    n_operations = _OPERATIONS_PER_VALUE * batch.numel() if len(parts) > 1 else 0
    outputs, maps = zip(*by_blocks(run, parts, n_operations), strict=True)
    return _joined(outputs, n), {layer: torch.cat([part[layer] for part in maps])[:n] for layer in maps[0]}


def _joined(outputs: Sequence[Any], n: int) -> Any:
    """Return the concatenated output for n images: containers of tensors with one row per image."""
    leaves, (structure, *_) = zip(*map(tree_flatten, outputs), strict=True)
    return tree_unflatten([_rows(parts, n) for parts in zip(*leaves, strict=True)], structure)


def _rows(parts: Sequence[Any], n: int) -> Any:
    """Return the rows of n images; values without rows are those of the first part."""
    has_rows = isinstance(parts[0], Tensor) and parts[0].ndim
    return torch.cat(tuple(parts))[:n] if has_rows else parts[0]
