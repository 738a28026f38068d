"""Construction, sharing and pickling of frozen networks."""

from __future__ import annotations

import copy
import difflib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

import joblib
import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from .._warnings import warn
from ._checkpoints import load_weights
from ._copying import copy_memo, private_copy, remove_parametrizations
from ._running import in_memory

_WEIGHT_FILES = (".pth", ".pt", ".th", ".safetensors", ".ckpt", ".bin", ".tar")


class Build(NamedTuple):
    """A network with the preprocessing and the class names of its weights, None if unknown."""

    network: nn.Module
    preprocess: Callable | None
    class_names: tuple[str, ...] | None


class Recipe(NamedTuple):
    """Instructions to rebuild a network: name or factory, and published weights or a file."""

    model: str | Callable[[], nn.Module]
    weights: str | Path
    fingerprint: str
    channels_last: bool

    def __call__(self) -> nn.Module:
        """Return the network; raise an error if its weights have changed."""
        network = build(self.model, self.weights, 0).network
        if fingerprint(network) != self.fingerprint:
            raise ValueError(
                f"The weights {str(self.weights)!r} have changed since this object was saved (their SHA-256 differs). "
                "Restore the old weights, or fit again."
            )
        if self.channels_last:
            in_memory(network, torch.channels_last)
        return share(network, torch.device("cpu"))


# Model and weights of networks to which pickles refer.
_references: WeakKeyDictionary[nn.Module, tuple[Any, Any]] = WeakKeyDictionary()


def build(model: str | nn.Module | Callable[[], nn.Module], weights: Any, seed: int) -> Build:
    """Return a new network in evaluation mode; a network passed as `model` is copied.

    Pickles refer to weights that have a name or a file, and do not contain them.
    """
    file = Path(weights) if names_file(weights) else None
    entry = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(model, str):
            entry = _weights_entry(model, weights, file)
            network = _torchvision_network(model, None if file else entry)
        elif weights is not None and file is None:
            raise ValueError(
                f"weights={weights!r} is a name of torchvision weights, which needs a torchvision name as model; give "
                "the path of a state dict, or weights=None and a network with its weights."
            )
        else:
            network = private_copy(model if isinstance(model, nn.Module) else _call_factory(model))
    if file is not None:
        load_weights(network, file)
    remove_parametrizations(network)
    if not isinstance(model, nn.Module) and (file is not None or entry is not None):
        _references[network] = model, str(entry) if file is None else file.absolute()
    network.eval().requires_grad_(False)
    if entry is None:
        return Build(network, None, None)
    return Build(network, entry.transforms(), tuple(entry.meta["categories"]) if "categories" in entry.meta else None)


def _torchvision_network(name: str, entry: Any) -> nn.Module:
    try:
        return torchvision.models.get_model(name, weights=entry)
    except OSError as error:  # URLError among them
        raise OSError(
            f"The weights {entry} cannot be downloaded: {error}. Without a connection, copy {Path(entry.url).name!r}, "
            f"from {entry.url}, to {os.path.join(torch.hub.get_dir(), 'checkpoints')!r}, or pass the path of a file as "
            "weights."
        ) from error


def names_file(weights: Any) -> bool:
    """Return whether `weights` is the path of a file instead of a name of torchvision weights."""
    return isinstance(weights, os.PathLike) or (isinstance(weights, str) and weights.endswith(_WEIGHT_FILES))


def _weights_entry(model: str, weights: Any, file: Path | None) -> Any:
    """Return the member of the weights enumeration of torchvision, None for other weights."""
    names = torchvision.models.list_models(module=torchvision.models)
    if model not in names:
        near = difflib.get_close_matches(model, names, n=5, cutoff=0.5)
        raise ValueError(f"torchvision has no classification model {model!r}. Near names: {', '.join(near) or 'none'}.")
    published = torchvision.models.get_model_weights(model)
    if file is not None:  # a file named like published weights has their metadata
        return next((entry for entry in published if Path(entry.url).name == file.name), None)
    if weights is None or isinstance(weights, torchvision.models.WeightsEnum):
        return weights
    name = str(weights).removeprefix(f"{published.__name__}.")
    if name != "DEFAULT" and name not in published.__members__:
        members = ", ".join(map(repr, ["DEFAULT", *published.__members__]))
        raise ValueError(
            f"{model} has no weights {weights!r}: use one of {members}, None for random weights, or the path of a "
            f"state dict ({', '.join(_WEIGHT_FILES)})."
        )
    return published[name]


def _call_factory(factory: Callable[[], nn.Module]) -> nn.Module:
    try:
        network = factory()
    except Exception as error:
        raise ValueError(
            f"The model is called as a function without arguments, and fails: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise TypeError(f"The model factory returned a {type(network).__name__}, not a torch.nn.Module.")
    return network


def usual_preprocess(model: str) -> Callable | None:
    """Return the preprocessing of the published weights of a torchvision model, with a warning."""
    entry = getattr(torchvision.models.get_model_weights(model), "DEFAULT", None)
    if entry is None:
        return None
    warn(
        f"Images are preprocessed as for {entry}, the published weights of {model!r}; pass preprocess=... if "
        "yours were trained otherwise.",
    )
    return entry.transforms()


def fingerprint(network: nn.Module) -> str:
    """Return the SHA-256 of the names, types, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256(type(network).__qualname__.encode())
    for name, tensor in network.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(_to_array(tensor).data)
    return digest.hexdigest()


_shared: WeakValueDictionary[tuple, nn.Module] = WeakValueDictionary()


def share(network: nn.Module, device: torch.device) -> nn.Module:
    """Return an equal network on `device` if one exists, else this one, moved there.

    So clones fitted by a grid search share one network.  Networks are equal if their modules have the same classes, and
    their pickles are equal.
    """
    try:
        content = joblib.hash(Portable(network))
    except Exception:  # a network that cannot be pickled cannot be compared either
        return network.to(device)
    key = (*map(type, network.modules()), content, str(device))
    return _shared.setdefault(key, network.to(device))


class Portable:
    """Wrapper that pickles a network as arrays and a module without tensors, and is unpickled to a network on the CPU.

    Equal weights give equal pickles, as hashes of joblib need.  A network whose weights have a name or a file is
    rebuilt from these, and its fingerprint is compared.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def __reduce__(self) -> tuple:
        if self._network in _references:
            channels_last = any(map(_is_channels_last, self._network.parameters()))
            return Recipe(*_references[self._network], fingerprint(self._network), channels_last), ()
        places = list(slots(self._network))
        tensors = {id(tensor): tensor for *_, tensor in places}
        numbers = {key: number for number, key in enumerate(tensors)}
        skeleton = copy.deepcopy(self._network, copy_memo(self._network) | dict.fromkeys(tensors))
        arrays = [_to_bytes(tensor) for tensor in tensors.values()]
        trainable = [tensor.requires_grad for tensor in tensors.values()]
        places_of_arrays = [(path, kind, name, numbers[id(tensor)]) for path, kind, name, tensor in places]
        return _assemble, (skeleton, arrays, trainable, places_of_arrays)


def slots(network: nn.Module) -> Iterator[tuple[str, str, str, Tensor]]:
    """Yield (submodule path, dictionary, name, tensor) for every tensor of a network."""
    for path, module in network.named_modules():
        for kind in ("_parameters", "_buffers", "__dict__"):
            for name, tensor in getattr(module, kind).items():
                if isinstance(tensor, Tensor):
                    yield path, kind, name, tensor


def _assemble(skeleton: nn.Module, arrays: list, trainable: list[bool], places: list) -> nn.Module:
    tensors = [_from_array(*array) for array in arrays]
    parameters: dict[int, nn.Parameter] = {}
    for path, kind, name, number in places:
        tensor = tensors[number]
        if kind == "_parameters":
            tensor = parameters.setdefault(number, nn.Parameter(tensor, requires_grad=trainable[number]))
        getattr(skeleton.get_submodule(path), kind)[name] = tensor
    return skeleton


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and not tensor.is_contiguous()


def memory_order(strides: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Return the axes from the slowest to the fastest in memory, since rounding of sums depends on their order.

    Axes of length 1, which have any stride, follow others of equal stride, as in layouts of torch.
    """
    return sorted(range(len(shape)), key=lambda axis: (-abs(strides[axis]), shape[axis] == 1))


def _to_bytes(tensor: Tensor) -> tuple[np.ndarray, str, tuple[int, ...], list[int]]:
    """Return the bytes of a tensor in memory order, its type, its shape in that order, and the axes."""
    axes = memory_order(tensor.stride(), tensor.shape)
    stored = tensor.detach().permute(axes)
    return _to_array(stored), str(tensor.dtype), tuple(stored.shape), axes


def _from_array(array: np.ndarray, dtype: str, shape: tuple[int, ...], axes: list[int]) -> Tensor:
    stored = torch.from_numpy(np.array(array)).view(getattr(torch, dtype.removeprefix("torch."))).reshape(shape)
    return stored.permute(np.argsort(axes).tolist())


def _to_array(tensor: Tensor) -> np.ndarray:
    """Return the bytes of a tensor, since numpy lacks some types of torch."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
