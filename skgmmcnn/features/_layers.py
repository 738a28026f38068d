"""Which layers a network has, and which to model where nobody says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, NamedTuple

from torch import nn
from torchvision.models import WeightsEnum

from ._images import InputKind, gather
from ._network import build
from ._receptive_field import ReceptiveField
from ._tracing import watch

_MOST_LAYERS = 4


class LayerInfo(NamedTuple):
    """A layer that can be modelled.

    Parameters
    ----------
    name : str
        As `layers` of :class:`FeatureExtractor` takes it.
    kind : str
        Class of the submodule.
    shape : tuple (channels, height, width)
        Size of its map; height and width are 1 for a vector.
    field : tuple (height, width) or None
        Pixels of the input that a location sees at most; None where it does not depend on the input.
    stride : tuple (height, width) or None
        Pixels between neighbouring locations, None along an axis where they are not evenly spaced.
    """

    name: str
    kind: str
    shape: tuple[int, int, int]
    field: tuple[int, int] | None
    stride: tuple[int | None, int | None] | None


def list_layers(
    model: str | nn.Module | Callable[[], nn.Module],
    X: Any,
    *,
    weights: str | PathLike | WeightsEnum | None = None,
    preprocess: str | Callable | None = "auto",
    layout: str = "auto",
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
    layout : {"auto", "channels_first", "channels_last"}, default="auto"
        As in :class:`FeatureExtractor`.

    Returns
    -------
    layers : list of LayerInfo
        Where several submodules return the same tensor, the outermost.

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
    watched = watch(built.network)
    ready: Any = built.preprocess if preprocess == "auto" else preprocess
    image = gather(X, InputKind.of(watched.first_layer), layout, ready).batch(0, 1)
    modules = dict(built.network.named_modules())
    return [
        _info(name, type(modules.get(name, modules.get(name.rpartition("_")[0]))).__name__, shape, field)
        for name, (shape, field) in watched.survey(image).items()
    ]


def _info(name: str, kind: str, shape: tuple[int, int, int], field: ReceptiveField | None) -> LayerInfo:
    if field is None:
        return LayerInfo(name, kind, shape, None, None)
    rows, columns = (int((stop - start).max()) for start, stop in (field.rows, field.columns))
    return LayerInfo(name, kind, shape, (rows, columns), field.stride)


def choose_layers(survey: Mapping[str, tuple[tuple[int, int, int], Any]], network: nn.Module) -> list[str]:
    """Return layers that a first attempt can do with.

    Of maps, the last layer of each of the smallest resolutions; where all are of one resolution, as in a vision
    transformer, some of the longest chain of blocks.  Without maps, the hidden layers.
    """
    seeing = {name: shape for name, (shape, field) in survey.items() if field is not None}
    sizes = {name: shape[1:] for name, shape in seeing.items() if shape[1] * shape[2] > 1}
    if len(set(sizes.values())) == 1:
        return _spread_over_blocks(list(sizes), dict(network.named_modules()))
    if sizes:
        return _last_of_each_size(sizes)
    return _hidden_vectors(list(seeing), network)


def _last_of_each_size(sizes: Mapping[str, tuple[int, int]]) -> list[str]:
    # The outermost submodules lie on the main path, those inside them on branches.
    depth = {size: min(name.count(".") for name in sizes if sizes[name] == size) for size in sizes.values()}
    last = {size: name for name, size in sizes.items() if name.count(".") == depth[size]}
    order = list(sizes)
    return sorted(last.values(), key=order.index)[-_MOST_LAYERS:]


def _spread_over_blocks(names: list[str], modules: Mapping[str, nn.Module]) -> list[str]:
    """Return layers at equal distances among the largest group of siblings of one class, the last one included.

    Where a parent returns what the last of them does, it stands for that one in `names`.
    """
    groups: dict[tuple[str, type], list[str]] = {}
    for name in names:
        groups.setdefault((name.rpartition(".")[0], type(modules.get(name))), []).append(name)
    (parent, _), blocks = max(groups.items(), key=lambda group: len(group[1]))
    blocks += [parent] if parent in names else []
    n_layers = min(_MOST_LAYERS, len(blocks))
    return [blocks[(place + 1) * len(blocks) // n_layers - 1] for place in range(n_layers)]


def _hidden_vectors(vectors: list[str], network: nn.Module) -> list[str]:
    linear = {name for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    hidden: list[str] = []
    for name in vectors[:-1]:  # the last one is what the network returns
        if name in linear:
            hidden.append(name)
        elif hidden:  # the activation behind it
            hidden[-1] = name
    if not hidden:
        raise ValueError("The network has no hidden layer that could be chosen; name layers=[...].")
    return hidden[-_MOST_LAYERS:]
