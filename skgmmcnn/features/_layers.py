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
        if len(shape) in (2, 4)
    ]


def _info(name: str, kind: str, shape: tuple[int, ...], field: ReceptiveField | None) -> LayerInfo:
    channels, height, width = (*shape[1:], 1, 1)[:3]
    size = channels, height, width
    if field is None:
        return LayerInfo(name, kind, size, None, None)
    rows, columns = (int((stop - start).max()) for start, stop in (field.rows, field.columns))
    return LayerInfo(name, kind, size, (rows, columns), field.stride)


def choose_layers(survey: Mapping[str, tuple[tuple[int, ...], Any]], network: nn.Module) -> list[str]:
    """Return the last layer of each of the smallest resolutions of a network; the hidden layers of one of vectors."""
    sizes = {name: shape[2:] for name, (shape, _) in survey.items() if len(shape) == 4 and shape[2] * shape[3] > 1}
    # The outermost submodules lie on the main path, those inside them on branches.
    depth = {size: min(name.count(".") for name in sizes if sizes[name] == size) for size in sizes.values()}
    last = {size: name for name, size in sizes.items() if name.count(".") == depth[size]}
    if last:
        order = list(sizes)
        return sorted(last.values(), key=order.index)[-_MOST_LAYERS:]
    vectors = [name for name, (shape, _) in survey.items() if len(shape) == 2]
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
