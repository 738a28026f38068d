"""Extraction of feature maps from trained networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from os import PathLike
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from .._compat import ContainerOutput, Interval, StrOptions, fit_context
from .._device import resolve_device
from .._warnings import warn
from ._captured import CapturedNetwork
from ._copying import plain
from ._decisions import check_one_decision, count_outputs, decide, is_bounded, meaning_of
from ._effective_field import effective_fields
from ._images import Images, unreadable, warn_if_random
from ._inputs import make_images, normalise_input, of_bytes
from ._layers import choose_layers, split_layout
from ._maps import FeatureMaps
from ._network import Portable, build, fingerprint, share, usual_preprocess
from ._pixels import PixelScale
from ._receptive_field import ReceptiveField
from ._running import lay_out
from ._sources import NetworkSource, Running
from ._spec import NetworkSpec, check_class_names
from ._store import DiskSource, check_folder

_N_FIELD_IMAGES = 4  # on which effective fields are measured
_N_OUTPUT_IMAGES = 8  # used to check whether a network returns probabilities
_ROUNDING = 0.05  # relative; far above changes by the batch size in half precision
_SAME_AS_NETWORK = "the frozen network"  # replaces the model in pickles, which then contain it once


class FeatureExtractor(ContainerOutput, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Run a trained network on images and extract the feature maps of chosen layers.

    The extractor runs a frozen copy in evaluation mode, without gradients.  The network passed as `model` is not
    changed.

    Parameters
    ----------
    model : str, callable or torch.nn.Module
        A torchvision model name (``"resnet50"``), a function without arguments that returns a network, or a network.
    layers : str or sequence of str, default=None
        Names of submodules as in ``model.named_modules()``, or of torch functions in them as in torchvision
        (``"layer1.0.add"``, ``"layer1.0.add_1"`` for the second call), in any order.  None takes the last block
        of each of the four smallest map sizes, or the hidden layers of a network of vectors;
        :func:`skgmmcnn.features.list_layers` lists all layers.
    weights : str, path or torchvision weights, default=None
        A name of torchvision weights (``"DEFAULT"``, ``"IMAGENET1K_V1"``), or the path of a state dict (``.pth``,
        ``.safetensors``), also with a prefix or nested in a checkpoint.  None keeps the weights of the network; for a
        torchvision name these are random with a fixed seed.  A file named like published torchvision weights also
        provides their metadata.  Pickles refer to weights with a name or a file, and the SHA-256 is checked when they
        are loaded; files of :func:`skgmmcnn.save`, and pickles of other weights, contain them.
    preprocess : "auto", callable or None, default="auto"
        Preprocessing of one image.  ``"auto"`` takes the preprocessing of the torchvision weights; for other weights of
        a torchvision model and 8-bit images it takes that of the published weights, with a warning.  A callable gets a
        PIL image for files, PIL images and uint8 data, else a float tensor (C, H, W), and returns a float tensor.  None
        is for preprocessed float arrays.
    layout : {"auto", "channels_first", "channels_last"} or dict, default="auto"
        Axis of the channels in a 4-D X.  ``"auto"`` is the axis with as many entries as the first layer has channels.
        The channel axis of layers is inferred from the dependence of values on the image; a dict sets it by layer name
        (``{"norm": "channels_last"}``), and for X by ``"input"``.
    class_names : sequence of str, or dict of int to str, default=None
        Names of the outputs of the network, in order, or by number.  None takes those of the torchvision weights, if
        they have names.
    decision : callable, default=None
        Function of the output of the network that returns output numbers (n,).  None takes the largest of C outputs;
        for a single output, class 1 if it is positive, or above 0.5 if a sigmoid precedes it.  An error is raised for
        multi-label networks if the outputs are several probabilities that do not add up to 1, or if `y` marks several
        classes.  Multi-label scores are not recognised: give a network that returns one of them, ``x[:, [3]]``, or a
        decision.
    store : str or path, default=None
        Folder in which activations are stored when they are first computed, so that the network runs once on each
        image; see :meth:`FeatureMaps.store`.
    batch_size : int, default=32
        Images per forward pass.  On a CPU images pass in smaller parts (64 digits, or one photograph), each in one
        thread, so that values depend neither on the batch size nor on the number of threads.
    n_jobs : int, default=None
        Processes that read and preprocess images; None is the current process, -1 one per processor.
    on_error : {"raise", "skip"}, default="raise"
        Treatment of images that cannot be read, on which a data set or `preprocess` fails, or that contain NaN.  With
        "skip" all images are read once in advance and the others are renumbered, so that `y` must contain the labels
        of readable images only.
    verbose : int, default=0
        Whether to show progress bars of passes over the images.
    device : str or torch.device, default="auto"
        Device of the network; ``"auto"`` is a GPU if one is available.

    Attributes
    ----------
    network_ : torch.nn.Module
        The frozen network, shared by clones of this estimator.
    spec_ : NetworkSpec
        Modelled layers in network order, their shapes, receptive and effective fields, the outputs, and the SHA-256 of
        the weights.
    preprocess_ : callable or None
        The preprocessing.

    Notes
    -----
    *Receptive fields*, `spec_.receptive_fields`, contain everything that a location depends on.  In deep layers they
    grow to whole maps, most of which have little effect [1]_.  *Effective fields*, `spec_.effective_fields`, are the
    shortest intervals of rows and columns of the layer below with 68 % of the squared derivatives.

    References
    ----------
    .. [1] Luo, Li, Urtasun and Zemel, "Understanding the effective receptive field in deep convolutional neural
       networks", NIPS 2016.

    Examples
    --------
    >>> from skgmmcnn import FeatureExtractor
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> extractor = FeatureExtractor(digits.network, layers=["conv2", "conv3"], preprocess=None)
    >>> maps = extractor.fit_transform(digits.images[:10])
    >>> maps.shapes
    {'conv2': (16, 8, 8), 'conv3': (32, 4, 4)}
    """

    _parameter_constraints: ClassVar[dict] = {
        "model": [str, callable, nn.Module],
        "layers": [str, "array-like", None],
        "weights": [str, PathLike, WeightsEnum, None],
        "preprocess": [StrOptions({"auto"}), callable, None],
        "layout": [StrOptions({"auto", "channels_first", "channels_last"}), dict],
        "class_names": ["array-like", None],
        "decision": [callable, None],
        "store": [str, PathLike, None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Interval(Integral, 1, None, closed="left"), Interval(Integral, None, -1, closed="right"), None],
        "on_error": [StrOptions({"raise", "skip"})],
        "verbose": ["verbose"],
        "device": [str, torch.device],
    }

    def __init__(
        self,
        model: str | nn.Module | Callable[[], nn.Module],
        layers: str | Sequence[str] | None = None,
        *,
        weights: str | PathLike | WeightsEnum | None = None,
        preprocess: str | Callable | None = "auto",
        layout: str | Mapping[str, str] = "auto",
        class_names: Sequence[str] | Mapping[int, str] | None = None,
        decision: Callable | None = None,
        store: str | PathLike | None = None,
        batch_size: int = 32,
        n_jobs: int | None = None,
        on_error: str = "raise",
        verbose: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        self.model = model
        self.layers = layers
        self.weights = weights
        self.preprocess = preprocess
        self.layout = layout
        self.class_names = class_names
        self.decision = decision
        self.store = store
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.verbose = verbose
        self.device = device

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> FeatureExtractor:
        """Load the network and determine the geometry of its layers from a few images.

        Parameters
        ----------
        X : array, tensor or list
            Images (n, C, H, W), (n, H, W, C) or (n, H, W), vectors (n, d), a list of image files or PIL images, a
            folder with image files, or a map-style :class:`torch.utils.data.Dataset` of images or of (image, label).
        y : array-like of shape (n,), default=None
            Output numbers or class names.  They are only validated; later steps of a pipeline use them.

        Returns
        -------
        self : FeatureExtractor
            The fitted extractor.
        """
        self._check_parameters()
        X = normalise_input(X, existing=self.on_error == "raise")  # before weights are downloaded
        device = resolve_device(self.device)
        built = build(self.model, self.weights, seed=0)
        preprocess: Any = self.preprocess
        if preprocess == "auto":
            preprocess = built.preprocess
            if preprocess is None and isinstance(self.model, str) and of_bytes(X):
                preprocess = usual_preprocess(self.model)
        network = CapturedNetwork(built.network)
        images = self._images_of(X, network.first_layer, preprocess)
        image = images.batch(0, 1)
        warn_if_random(images, image)
        lay_out(built.network, image)
        layers, layouts = self._layers_of(network, image)
        captured, fields = network.select(layers, image, layouts)
        class_names = built.class_names if self.class_names is None else self.class_names
        spec = self._survey(captured, fields, images, image, class_names)
        if y is not None:
            spec.encode(y, len(images))
        captured = captured.on(share(built.network, device))
        direct = {(upper, lower): fields[upper, lower] for upper, lowers in spec.below.items() for lower in lowers}
        effective = effective_fields(captured, _evenly_spaced(images, _N_FIELD_IMAGES, spec.input_shape), direct)
        self._scale = PixelScale.of(images, image)
        self._captured = captured
        self.preprocess_ = preprocess
        self.spec_ = replace(spec, effective_fields=effective, fingerprint=fingerprint(captured.network))
        return self

    def _check_parameters(self) -> None:
        if self.layers is not None and not len(self.layers):
            raise ValueError(f"layers must list at least one layer name; got {self.layers!r}.")
        wrong = [layer for layer in self._layer_names() or () if not isinstance(layer, str)]
        if wrong:
            raise TypeError(f"layers must list names of layers, as returned by list_layers; got {wrong[0]!r}.")
        if self.store is not None:
            check_folder(self.store)

    @property
    def network_(self) -> nn.Module:
        """The frozen network, shared by clones of this estimator."""
        return self._captured.network

    def transform(self, X: Any) -> FeatureMaps:
        """Return the feature maps of X, which are computed when they are read.

        Parameters
        ----------
        X : array, tensor or list
            As in :meth:`fit`; preprocessed images must have the same size as there.

        Returns
        -------
        maps : FeatureMaps
            Lazy maps of the modelled layers for each image.
        """
        check_is_fitted(self)
        X = normalise_input(X, existing=self.on_error == "raise")
        images = self._images_of(X, self._captured.first_layer, self.preprocess_)
        images.batch(0, 1, self.spec_.input_shape)
        running = Running(self.decision, self.batch_size, self.n_jobs, self.verbose, self.device)
        network = NetworkSource(self._captured, self.spec_, self.spec_.fingerprint, images, self._scale, running)
        return FeatureMaps(network if self.store is None else DiskSource(network, self.store, "float32"))

    def score(self, X: Any, y: Any) -> float:
        """Return the accuracy of the network.

        An accuracy far below the published one indicates another preprocessing or order of classes.

        Parameters
        ----------
        X : array, tensor or list
            As in :meth:`fit`.
        y : array-like of shape (n,)
            Output numbers or class names.

        Returns
        -------
        accuracy : float
            Share of images with the decision `y`, between 0 and 1.
        """
        maps = self.transform(X)
        labels = self.spec_.encode(y, len(maps))
        return float((np.concatenate([batch.decisions for batch in maps.batches()]) == labels).mean())

    def _images_of(self, X: Any, first_layer: nn.Module | None, preprocess: Callable | None) -> Images:
        """Return X as images; those that cannot be read are skipped if ``on_error="skip"``."""
        layout, _ = split_layout(self.layout)
        images = make_images(X, first_layer, layout, preprocess)
        if self.on_error == "raise":
            return images
        errors = unreadable(images, self.n_jobs)
        if not errors:
            return images
        if len(errors) == len(images):
            raise ValueError(f"None of the {len(images)} images can be read; the first: {errors[0]}")
        examples = "; ".join(f"image {number}: {error}" for number, error in list(errors.items())[:3])
        warn(f"{len(errors)} of {len(images)} images cannot be read and are skipped: {examples}")
        return images[np.setdiff1d(np.arange(len(images)), list(errors))]

    def _layer_names(self) -> Sequence[str] | None:
        return [self.layers] if isinstance(self.layers, str) else self.layers

    def _layers_of(self, network: CapturedNetwork, image: Tensor) -> tuple[list[str], dict[str, str]]:
        """Return the layers to model and the layouts set by the user."""
        _, layouts = split_layout(self.layout)
        layers = self._layer_names()
        if layers is None:
            layers = choose_layers(network.survey(image, layouts), network.network)
            if not layers:
                raise ValueError("The network has no hidden layer to choose by default; set layers=[...].")
        for name in layouts:
            if name not in layers:
                raise ValueError(
                    f"layout has the key {name!r}, which is neither one of the layers {layers} nor 'input'."
                )
        return list(layers), layouts

    def _survey(
        self,
        captured: CapturedNetwork,
        fields: Mapping[tuple[str, str], ReceptiveField],
        images: Images,
        image: Tensor,
        class_names: Sequence[str] | Mapping[int, str] | None,
    ) -> NetworkSpec:
        """Run the network on an image, and on more if it returns probabilities; return its description."""
        outputs, activations = captured.run(image)
        last = images.batch(len(images) - 1, len(images), tuple(image.shape[1:]))
        warn_if_unsteady(captured, torch.cat([image, last]), activations)
        n_outputs = count_outputs(outputs, self.decision, class_names)
        meaning = "scores"
        if meaning_of(outputs) != "scores" and is_bounded(captured.network, captured.prepare(image)):
            meaning = meaning_of(captured.run(_evenly_spaced(images, _N_OUTPUT_IMAGES, tuple(image.shape[1:])))[0])
        if meaning == "separate":
            check_one_decision(n_outputs, self.decision)
        spec = NetworkSpec(
            layers=captured.layers,
            shapes={name: (c, h, w) for name, values in activations.items() for _, c, h, w in [values.shape]},
            input_shape=tuple(image.shape[1:]),
            receptive_fields=fields,
            n_outputs=n_outputs,
            class_names=check_class_names(class_names, n_outputs),
            probabilities=meaning == "probabilities",
        )
        decide(outputs, activations, 0, self.decision, spec)
        return spec

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def __sklearn_clone__(self) -> FeatureExtractor:
        # clone makes deep copies of parameters, which would copy the network and its hooks.
        return type(self)(**self.get_params(deep=False))

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if isinstance(self.model, nn.Module):
            model = plain(self.model)
            same = "_captured" in state and fingerprint(model) == self.spec_.fingerprint
            state["model"] = _SAME_AS_NETWORK if same else Portable(model)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if isinstance(self.model, str) and self.model == _SAME_AS_NETWORK:
            self.model = self.network_


def _evenly_spaced(images: Images, n: int, shape: tuple[int, ...]) -> Tensor:
    """Return at most `n` preprocessed images, evenly spaced."""
    rows = np.linspace(0, len(images) - 1, min(n, len(images))).astype(int).tolist()
    return torch.cat([images.batch(row, row + 1, shape) for row in rows])


def warn_if_unsteady(network: CapturedNetwork, images: Tensor, activations: dict[str, Tensor]) -> None:
    """Warn if the maps of the first image change when another image is in the batch."""
    _, repeated = network.run(images)
    for layer, values in activations.items():
        change = (repeated[layer][:1] - values).abs().max()
        if change > _ROUNDING * values.abs().max():
            warn(
                f"Layer {layer!r} returns different values for the same image beside another one: the network draws "
                "random numbers, or mixes the images of a batch, as batch normalisation without running statistics "
                "does. Words and graphs will change with each pass.",
            )
            return
