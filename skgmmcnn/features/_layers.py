"""Lists of layers, and the layers to model by default."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from os import PathLike
from typing import Any, NamedTuple

from torch import nn
from torchvision.models import WeightsEnum
from torchvision.ops import StochasticDepth

from ._captured import CapturedNetwork
from ._following import LayerGeometry
from ._inputs import make_images, normalise_input
from ._network import build

_MOST_LAYERS = 4


class LayerInfo(NamedTuple):
    """A layer that can be modelled.

    Parameters
    ----------
    name : str
        Name for the parameter `layers` of :class:`FeatureExtractor`.
    kind : str
        Class of the submodule.
    shape : tuple (channels, height, width)
        Size of its map; height and width are 1 for a vector.
    field : tuple (height, width) or None
        Largest receptive field in the input, in pixels; None if the layer does not depend on the input.
    stride : tuple (height, width) or None
        Pixels between neighbouring locations; None along an axis with uneven distances.
    default : bool
        Whether :class:`FeatureExtractor` models the layer by default.
    """

    name: str
    kind: str
    shape: tuple[int, int, int]
    field: tuple[int, int] | None
    stride: tuple[int | None, int | None] | None
    default: bool


def list_layers(
    model: str | nn.Module | Callable[[], nn.Module],
    X: Any,
    *,
    weights: str | PathLike | WeightsEnum | None = None,
    preprocess: str | Callable | None = "auto",
    layout: str | Mapping[str, str] = "auto",
) -> list[LayerInfo]:
    """Return the layers of a network that can be modelled, in the order in which they run.

    Parameters
    ----------
    model : str, callable or torch.nn.Module
        As in :class:`FeatureExtractor`.
    X : array, tensor or list
        Images; the first one passes through the network.
    weights : str, path or torchvision weights, default=None
        As in :class:`FeatureExtractor`.
    preprocess : "auto", callable or None, default="auto"
        As in :class:`FeatureExtractor`.
    layout : {"auto", "channels_first", "channels_last"} or dict, default="auto"
        As in :class:`FeatureExtractor`.

    Returns
    -------
    layers : list of LayerInfo
        Of several submodules that return the same tensor, the outermost.

    Examples
    --------
    >>> from skgmmcnn.datasets import load_digits_network
    >>> from skgmmcnn.features import list_layers
    >>> digits = load_digits_network()
    >>> for layer in list_layers(digits.network, digits.images)[:2]:
    ...     print(layer.name, layer.shape, layer.field, layer.stride)
    conv1.0 (16, 8, 8) (3, 3) (1, 1)
    conv1 (16, 8, 8) (3, 3) (1, 1)
    """
    built = build(model, weights, 0)
    captured = CapturedNetwork(built.network)
    ready: Any = built.preprocess if preprocess == "auto" else preprocess
    of_images, of_layers = split_layout(layout)
    image = make_images(normalise_input(X), captured.first_layer, of_images, ready).batch(0, 1)
    survey = captured.survey(image, of_layers)
    modules, default = _Modules(built.network), choose_layers(survey, built.network)
    layers = []
    for name, geometry in survey.items():
        field = geometry.fields.get("input")
        extent = None if field is None else (field.rows.longest, field.columns.longest)
        stride = None if field is None else field.stride
        layers.append(LayerInfo(name, type(modules[name]).__name__, geometry.shape, extent, stride, name in default))
    return layers


def split_layout(layout: str | Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the layout of images and the layouts of layers by name."""
    of_layers = {"input": layout} if isinstance(layout, str) else dict(layout)
    for name, value in of_layers.items():
        if value not in ("channels_first", "channels_last") and (name, value) != ("input", "auto"):
            raise ValueError(f"layout[{name!r}] must be 'channels_first' or 'channels_last'; got {value!r}.")
    return of_layers.pop("input", "auto"), of_layers


class _Modules:
    """Submodules of a network by the names of their calls."""

    def __init__(self, network: nn.Module) -> None:
        self._modules = dict(network.named_modules())

    def __getitem__(self, name: str) -> nn.Module:
        return self._modules[name if name in self._modules else name.rpartition("_")[0]]

    def is_block(self, name: str) -> bool:
        """Return whether the submodule contains submodules with weights."""
        return any(next(child.parameters(), None) is not None for child in self[name].children())


def choose_layers(survey: Mapping[str, LayerGeometry], network: nn.Module) -> list[str]:
    """Return the default layers, none if the network has no hidden ones.

    For maps they are the last block of each of the smallest resolutions, or if all have one resolution, as in a vision
    transformer, some blocks of the longest chain.  Without maps they are the hidden layers.
    """
    modules = _Modules(network)
    dependent = {name: geometry for name, geometry in survey.items() if "input" in geometry.fields}
    names = [name for name in _below_scores(dependent, modules) if not _changes_nothing(modules[name])]
    sizes = {name: dependent[name].shape[1:] for name in names if dependent[name].is_map}
    if len(set(sizes.values())) == 1:
        return _spread_over_blocks(list(sizes), modules)
    if sizes:
        return _last_of_each_size(sizes, modules)
    return _hidden_vectors(list(dependent), network)


def _changes_nothing(module: nn.Module) -> bool:
    places = "torch.nn.modules.padding", "torch.nn.modules.dropout"
    return type(module).__module__ in places or isinstance(module, (nn.Identity, StochasticDepth))


def _below_scores(dependent: Mapping[str, LayerGeometry], modules: _Modules) -> list[str]:
    """Return the layers below a map of class scores, which is the last module with weights if that is a map."""
    names = list(dependent)
    places = [place for place, name in enumerate(names) if _has_weights(name, dependent, modules)]
    last = places[-1] if places else 0
    is_map = bool(names) and dependent[names[last]].is_map
    has_maps_below = any(dependent[name].is_map for name in names[:last])
    return names[:last] if is_map and has_maps_below and names[last + 1 :] else names


def _has_weights(name: str, layers: Container[str], modules: _Modules) -> bool:
    """Return whether a layer has weights outside of other layers."""
    return any(
        next(module.parameters(recurse=False), None) is not None
        for inner, module in modules[name].named_modules(prefix=name)
        if inner == name or inner not in layers
    )


def _last_of_each_size(sizes: Mapping[str, tuple[int, int]], modules: _Modules) -> list[str]:
    """Return the last block of each of the smallest sizes; single layers only if there are at most two blocks."""
    last: dict[tuple[int, int], str] = {}
    blocks = set(filter(modules.is_block, sizes))
    for size in dict.fromkeys(sizes.values()):
        of_size = [name for name in sizes if sizes[name] == size]
        candidates = [name for name in of_size if name in blocks] or of_size
        # The outermost submodules are on the main path, inner ones on branches.
        depth = min(name.count(".") for name in candidates)
        last[size] = [name for name in candidates if name.count(".") == depth][-1]
    layers = sorted(last.values(), key=list(sizes).index)[-_MOST_LAYERS:]
    of_blocks = [name for name in layers if name in blocks]
    return of_blocks if len(of_blocks) > 1 else layers


def _spread_over_blocks(names: list[str], modules: _Modules) -> list[str]:
    """Return evenly spaced layers from the largest group of siblings of one class, including the last.

    A parent with the same output replaces the last sibling in `names`.
    """
    groups: dict[tuple[str, type], list[str]] = {}
    for name in names:
        groups.setdefault((name.rpartition(".")[0], type(modules[name])), []).append(name)
    (parent, _), blocks = max(groups.items(), key=lambda group: len(group[1]))
    blocks += [parent] if parent in names else []
    n_layers = min(_MOST_LAYERS, len(blocks))
    return [blocks[(place + 1) * len(blocks) // n_layers - 1] for place in range(n_layers)]


def _hidden_vectors(vectors: list[str], network: nn.Module) -> list[str]:
    linear = {name for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    hidden: list[str] = []
    for name in vectors[:-1]:  # the last one is the output
        if name in linear:
            hidden.append(name)
        elif hidden:  # the activation behind it
            hidden[-1] = name
    return hidden[-_MOST_LAYERS:]
