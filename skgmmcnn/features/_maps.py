"""FeatureMaps: the activity of the modelled layers for a set of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._batch import FeatureBatch, Rerun
from ._decisions import not_finite
from ._images import Images, PixelScale
from ._receptive_field import ReceptiveField
from ._sources import Change, HeldSource, NetworkSource, Result, Source
from ._spec import NetworkSpec
from ._store import StoredSource


class FeatureMaps:
    """The activity of the modelled layers for n images, computed batch by batch when it is asked for.

    Made by :meth:`FeatureExtractor.transform`.  It can be indexed by rows as arrays are (``maps[rows]``), so that
    ``cross_validate``, ``train_test_split`` and ``GridSearchCV`` take it as X.

    Parameters
    ----------
    spec : NetworkSpec
        The modelled layers and their geometry.
    images : Images
        The images, for drawing.
    source : Source
        Yields the activations of given rows: from the network, memory or disk.
    network : NetworkSource or None
        Runs the network over given rows; None where there is none.
    scale : PixelScale or None
        How the network's input is shown as pixels; None where it is no image.
    rows : int array or None
        The images that are meant, in order; all by default.

    Attributes
    ----------
    shape : tuple (n,)
        Number of images, as scikit-learn asks for it.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from skgmmcnn import FeatureExtractor
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2))
    >>> images = np.random.default_rng(0).random((5, 8, 8)).astype("float32")
    >>> maps = FeatureExtractor(network, layers=["1", "3"], preprocess=None).fit_transform(images)
    >>> maps.shape, maps.shapes["1"], maps[1:3].shape
    ((5,), (4, 8, 8), (2,))
    >>> maps.receptive_fields["1", "input"].window(4, 0)
    (slice(3, 6, None), slice(0, 2, None))
    """

    def __init__(
        self,
        spec: NetworkSpec,
        images: Images,
        source: Source,
        network: NetworkSource | None,
        scale: PixelScale | None,
        rows: np.ndarray | None = None,
    ) -> None:
        self.spec, self._images, self._source, self._network, self._scale = spec, images, source, network, scale
        self._rows = np.arange(len(images)) if rows is None else rows

    def __getstate__(self) -> dict[str, Any]:
        if len(self._rows) == len(self._images) and np.array_equal(self._rows, np.arange(len(self._images))):
            return self.__dict__
        own = self.__dict__ | {"_images": self._images[self._rows], "_rows": np.arange(len(self))}
        own |= {"_network": None if self._network is None else self._network.of(self._rows)}
        return own | {"_source": own["_network"] if self._source is self._network else self._source.of(self._rows)}

    @property
    def shape(self) -> tuple[int]:
        """The number of images, as a tuple."""
        return (len(self._rows),)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the modelled layers in network order, the lowest first."""
        return self.spec.layers

    @property
    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """(channels, height, width) of each layer's map."""
        return dict(self.spec.shapes)

    @property
    def receptive_fields(self) -> dict[tuple[str, str], ReceptiveField]:
        """What each layer's locations see of each layer below, and of the ``"input"``."""
        return dict(self.spec.receptive_fields)

    @property
    def effective_fields(self) -> dict[tuple[str, str], ReceptiveField]:
        """Where each layer's locations get most of their activity from in the layers directly below."""
        return dict(self.spec.effective_fields)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the network's outputs."""
        return self.spec.class_names

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> FeatureMaps:
        rows = key[0] if isinstance(key, tuple) else key
        rows = np.atleast_1d(self._rows[rows])
        return FeatureMaps(self.spec, self._images, self._source, self._network, self._scale, rows)

    def __repr__(self) -> str:
        return f"FeatureMaps(n={len(self)}, shapes={self.shapes})"

    def batches(self) -> Iterator[FeatureBatch]:
        """Run over all images once.

        Yields
        ------
        batch : FeatureBatch
            Activations, outputs and decisions of consecutive images.

        Raises
        ------
        ValueError
            Where a layer holds NaN or infinity; the image and the layer are named.
        """
        for batch in self._source.batches(self._rows):
            for layer, values in batch.activations.items():
                _check_finite(values, layer, batch.start)
            yield batch

    def rerun(self, work: Callable[[Rerun], Result], what: str = "network") -> Iterator[Result]:
        """Run over all images once, such that the network can be run again with changed activations.

        The network runs once for the images of a batch, also where the maps are held or stored.  From then on it goes
        on from the lowest layer that is changed; one that torch.fx cannot trace runs as a whole each time.

        Parameters
        ----------
        work : callable
            Gets a ``Rerun`` of consecutive images.  Where the device's memory is short it is called again for
            the first half of them, so that it must not depend on what was called before.
        what : str, default="network"
            What the progress is called, where the extractor shows it.

        Yields
        ------
        result : object
            What `work` returned, batch by batch.

        Raises
        ------
        ValueError
            If the maps were made without a network.
        """
        yield from self._of_network().rerun(self._rows, work, what)

    def of_network(self) -> FeatureMaps | None:
        """Return the same maps as the network makes them, neither held nor stored.

        Returns
        -------
        maps : FeatureMaps or None
            Computed when they are read; None where there is no network.
        """
        network = self._network
        if network is None:
            return None
        return FeatureMaps(self.spec, self._images, network, network, self._scale, self._rows)

    def _of_network(self) -> NetworkSource:
        if self._network is None:
            raise ValueError("These maps were made from arrays, so there is no network that could be run again.")
        return self._network

    @property
    def outputs(self) -> np.ndarray:
        """What the network returned, shape (n, C); (n, 2) where that is one probability; runs over all images."""
        self._check_some()
        outputs = _joined([batch.outputs for batch in self.batches()])
        if outputs is None:
            raise ValueError(
                "The network returns no (n, C) tensor of scores; read what it returns batch by batch in batches() of "
                "maps that are not stored."
            )
        return outputs

    def compute(self) -> FeatureMaps:
        """Run the network once and hold all activations in memory.

        Returns
        -------
        maps : FeatureMaps
            Equal to this one; no later use of it runs the network.  Takes 4 bytes per activation.
        """
        self._check_some()
        arrays = {name: np.empty((len(self), h, w, c), np.float32) for name, (c, h, w) in self.spec.shapes.items()}
        outputs, decisions, size = [], [], 1
        for batch in self.batches():
            size = max(size, len(batch.decisions))
            for name, values in batch.activations.items():
                arrays[name][batch.start : batch.start + len(values)] = values.permute(0, 2, 3, 1).numpy(force=True)
            outputs.append(batch.outputs)
            decisions.append(batch.decisions)
        source = HeldSource(arrays, _joined(outputs), np.concatenate(decisions), size, self._source.device)
        network = None if self._network is None else self._network.of(self._rows)
        return FeatureMaps(self.spec, self._images[self._rows], source, network, self._scale)

    def store(self, folder: str | PathLike, dtype: str = "float32") -> FeatureMaps:
        """Run the network once and keep all activations on disk.

        What a process that was killed has left is completed.  The store is found again by hashes of the network's
        weights, the layers and the preprocessing, and each image in it by a hash of its content, as it is when maps are
        read; images of a data set are found by the data set's own hash, their number, and the size and time of their
        file where it lists files as torchvision's do.  Any number of threads and processes may share a folder.  Where
        this process has not used it before, and always for data sets, a few images pass through the network again and
        are compared.

        Parameters
        ----------
        folder : str or path
            Where the files go.
        dtype : {"float32", "float16"}, default="float32"
            Precision on disk.

        Returns
        -------
        maps : FeatureMaps
            Equal to this one up to `dtype`; no use of it runs the network.

        Raises
        ------
        ValueError
            If the store is damaged; also later, when damaged values are read.  If it is stale: the code of the network
            or the preprocessing, or files behind a data set, have changed.
        OSError
            If the disk has no room for all activations, or the folder cannot be used.
        """
        network = self._of_network().of(self._rows)
        source = StoredSource(network, folder, dtype)
        for _ in source.batches(np.arange(len(self))):
            pass
        return FeatureMaps(self.spec, network.images, source, network, self._scale)

    def _check_some(self) -> None:
        if not len(self):
            raise ValueError("There are no images in these FeatureMaps.")

    def pictures(self) -> Pictures | None:
        """Return the images as the network sees them, to be drawn.

        Returns
        -------
        pictures : Pictures or None
            One picture per image; None where the network's input is no image.
        """
        return None if self._scale is None else Pictures(self._images[self._rows], self._scale, self.spec.input_shape)


def maps_of_changed_network(maps: FeatureMaps, change: Change) -> FeatureMaps:
    """Return the maps of the same images as a changed copy of the network makes them, neither held nor stored.

    `change` gets the copy, in evaluation mode and without gradients, and the first images as the network takes them; it
    changes weights in place.  Layers and geometry must stay.
    """
    network = maps._of_network().changed(maps._rows, change)
    return FeatureMaps(maps.spec, network.images, network, network, maps._scale)


def maps_of_arrays(arrays: Mapping[str, np.ndarray]) -> FeatureMaps:
    """Return rows of numbers (n, d), by layer, the lowest first, as maps (d, 1, 1) without a network."""
    arrays = _checked(arrays)
    shapes = {layer: (values.shape[1], 1, 1) for layer, values in arrays.items()}
    first = next(iter(arrays.values()))
    spec = NetworkSpec(tuple(arrays), shapes, (first.shape[1],), {}, 0, None)
    held = {layer: values[:, None, None] for layer, values in arrays.items()}
    source = HeldSource(held, np.empty((len(first), 0)), np.zeros(len(first), np.int64), len(first))
    return FeatureMaps(spec, Images(first, None, None), source, None, None)


def _checked(arrays: Any) -> dict[str, np.ndarray]:
    """Return arrays (n, d) by layer as floats, having checked that they are of the same examples."""
    if not isinstance(arrays, Mapping) or not arrays:
        raise TypeError(f"Arrays are given by layer, as {{'hidden': X}}; got {arrays!r:.50}.")
    found = {layer: np.asarray(values) for layer, values in arrays.items()}
    for layer, values in found.items():
        if np.ma.is_masked(arrays[layer]):
            raise TypeError(f"Layer {layer!r} is a masked array; fill what is masked: X.filled(value).")
        if values.dtype.kind not in "biuf" or values.ndim != 2:
            raise ValueError(
                f"Layer {layer!r} must be an array (n, d) of real numbers; got {values.dtype} of shape {values.shape}."
            )
        if not np.isfinite(values).all():
            raise ValueError(f"Layer {layer!r} holds NaN or infinity.")
    sizes = {layer: len(values) for layer, values in found.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"All layers must have the same examples; their numbers are {sizes}.")
    return {layer: values if values.dtype.kind == "f" else values.astype(float) for layer, values in found.items()}


class Pictures:
    """Images as the network sees them, cropped and resized by its preprocessing, as uint8 (height, width, 3).

    ``pictures[3]`` is one array, ``pictures[[3, 1]]`` are Pictures again.

    Parameters
    ----------
    images : Images
        The images.
    scale : PixelScale
        How the network's input is shown as pixels.
    shape : tuple of int
        Shape of a preprocessed image (C, H, W).
    """

    def __init__(self, images: Images, scale: PixelScale, shape: tuple[int, ...]) -> None:
        self._images, self._scale, self._shape = images, scale, shape

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, key: Any) -> Any:
        """Return the picture with number `key` as an array, or the chosen pictures where `key` names several."""
        if isinstance(key, (int, np.integer)):
            return self._scale.pixels(self._images.batch(int(key), int(key) + 1, self._shape))[0]
        return Pictures(self._images[key], self._scale, self._shape)

    def file_name(self, number: int) -> str:
        """Return the name of the file of a picture.

        Parameters
        ----------
        number : int
            The picture.

        Returns
        -------
        name : str
            The name without its folder; "" where the image comes from elsewhere.
        """
        return self._images.file_name(number)


def _check_finite(values: Tensor, layer: str, start: int) -> None:
    bad = [] if torch.isfinite(values.sum()) else not_finite(values)
    if bad:  # else the sum alone overflowed
        raise ValueError(f"Layer {layer!r} holds NaN or infinity for image {start + bad[0]}.")


def _joined(outputs: list[Any]) -> np.ndarray | None:
    """Return scores (n, C) of batches as one float32 array, None where the network returns something else."""
    arrays = [part.float().numpy(force=True) if isinstance(part, Tensor) else part for part in outputs]
    scores = all(isinstance(part, np.ndarray) and part.ndim == 2 for part in arrays)
    return np.concatenate(arrays) if scores else None
