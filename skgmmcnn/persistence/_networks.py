"""Saving of networks and preprocessing by name and numbers, without code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision import models, transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from ..features import CapturedNetwork, build, fingerprint, in_memory
from ._values import KINDS, Kind, Packer, Unpacker, fill, pack_weights, pick, simple, unpack_weights

_TRANSFORMS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        ImageClassification,
        transforms.CenterCrop,
        transforms.Compose,
        transforms.ConvertImageDtype,
        transforms.Grayscale,
        transforms.Normalize,
        transforms.PILToTensor,
        transforms.Resize,
        transforms.ToTensor,
    )
}
_ARGUMENTS = ("model", "preprocess", "decision")
# Differences by rounding on another processor are far below these.
_RELATIVE, _ABSOLUTE = 1e-2, 1e-4
_MAX_VALUES = 2**26


def _pack_network(value: nn.Module, pack: Packer) -> str:
    digest = fingerprint(value)
    if digest not in pack.networks:
        model = pack.owner.model
        name = model if isinstance(model, str) else None
        if name is None:
            pack.needs["model"] = _describe(model)
        elif pack.owner.weights is None and not pack.embed:
            raise ValueError(f"The network {name!r} has random weights, which are saved only with embed=True.")
        pack.networks[digest] = {
            "class": _describe(value),
            "name": name,
            "channels_last": any(part.ndim == 4 and not part.is_contiguous() for part in value.parameters()),
            "source": None if pack.embed else pack_weights(pack.owner.weights, pack),
            "weights": pack(dict(value.state_dict())) if pack.embed else None,
        }
    return digest


def _unpack_network(digest: str, unpack: Unpacker) -> nn.Module:
    return unpack.once(digest, lambda: _rebuild(digest, unpack.networks[digest], unpack))


def _rebuild(digest: str, record: dict[str, Any], unpack: Unpacker) -> nn.Module:
    """Return the network with this fingerprint, in evaluation mode."""
    model = unpack.arguments.get("model", record["name"])
    state = unpack(record["weights"])
    network = build(model, unpack_weights(record["source"], unpack) if state is None else None, seed=0).network
    if state is not None:
        try:
            network.load_state_dict(state, assign=True)  # keeps their types and memory layout
        except RuntimeError as error:
            raise ValueError(f"the saved weights, of a {record['class']}, do not fit the model: {error}") from error
    elif record["channels_last"]:
        in_memory(network, torch.channels_last)
    if fingerprint(network) != digest:
        raise ValueError(
            f"the saved network was a {record['class']} with weights of SHA-256 {digest[:12]}...; the model is a "
            f"{_describe(network)} with {fingerprint(network)[:12]}...: other weights, or another class."
        )
    return network


def _pack_captured(value: Any, pack: Packer) -> Any:
    _, (_, *arguments) = value.__reduce__()
    return [
        _pack_network(value.network, pack),
        [pack(argument) for argument in arguments],
        list(pack.owner.spec_.input_shape),
        pack(_probe(value, pack.owner.spec_.input_shape)),
    ]


def _unpack_captured(content: Any, unpack: Unpacker) -> Any:
    digest, arguments, shape, activations = content
    captured = CapturedNetwork(_unpack_network(digest, unpack), *map(unpack, arguments))
    current = _probe(captured, tuple(shape))
    for layer, expected in unpack(activations).items():
        if not np.allclose(current[layer], expected, _RELATIVE, _ABSOLUTE, equal_nan=True):
            raise ValueError(
                f"layer {layer!r} does not return the same values as when the file was saved, although the weights are "
                "equal: the code of the network has changed. Pass the old code as load(path, model=...), or fit again."
            )
    return captured


def _probe(captured: Any, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return the activations of each layer for an image of noise, averaged over locations."""
    if math.prod(shape) > _MAX_VALUES:
        raise ValueError(f"images of shape {shape} are too large to check the network.")
    noise = torch.from_numpy(np.random.RandomState(0).rand(1, *shape).astype(np.float32))
    _, activations = captured.run(noise)
    return {
        layer: values.float().reshape(*values.shape[:2], -1).mean((0, 2)).numpy(force=True)
        for layer, values in activations.items()
    }


def _pack_transform(value: Any, pack: Packer) -> Any:
    state = {name: item for name, item in vars(value).items() if name not in vars(nn.Module())}
    return [type(value).__name__, {name: pack(item) for name, item in state.items()}]


def _unpack_transform(content: Any, unpack: Unpacker) -> Any:
    kind = pick(_TRANSFORMS, content[0])
    transform = kind.__new__(kind)
    if isinstance(transform, nn.Module):
        nn.Module.__init__(transform)
    return fill(transform, {name: unpack(item) for name, item in content[1].items()})


def _pack_code(value: Any, pack: Packer) -> Any:
    name = pack.place[-1].rstrip("_") if pack.place else ""
    if name not in _ARGUMENTS:
        raise pack.refusal(value)
    if name == "model" and isinstance(value, nn.Module) and fingerprint(value) == pack.owner.spec_.fingerprint:
        return ["network", _pack_network(pack.owner.network_, pack)]  # in memory as it runs
    pack.needs[name] = _describe(value)
    return ["argument", name]


def _unpack_code(content: Any, unpack: Unpacker) -> Any:
    place, key = content
    return _unpack_network(key, unpack) if place == "network" else unpack.arguments[key]


def _describe(value: Any) -> str:
    """Return the qualified name of the code of an object."""
    place = value if hasattr(value, "__qualname__") else type(value)
    return f"{place.__module__}.{place.__qualname__}"


ALL_KINDS: dict[str, Kind] = KINDS | {
    "transform": Kind(lambda v: type(v) in _TRANSFORMS.values(), _pack_transform, _unpack_transform),
    "interpolation": simple(InterpolationMode, lambda v: v.value, InterpolationMode),
    "weights": simple(models.WeightsEnum, str, models.get_weight),
    "captured": Kind(lambda v: isinstance(v, CapturedNetwork), _pack_captured, _unpack_captured),
    "code": Kind(callable, _pack_code, _unpack_code),
}
