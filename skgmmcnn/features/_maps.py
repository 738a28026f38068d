"""Feature maps of a set of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from typing import Any

import numpy as np
from torch import Tensor

from ._decisions import not_finite
from ._pixels import Pictures
from ._sources import Change, FeatureBatch, MemorySource, NetworkSource, Rerun, Result
from ._spec import NetworkSpec
from ._store import DiskSource

Source = MemorySource | NetworkSource | DiskSource


class FeatureMaps:
    """Feature maps of the modelled layers for n images, computed lazily in batches.

    They are returned by :meth:`FeatureExtractor.transform` and can be indexed like arrays (``maps[rows]``), so that
    ``cross_validate``, ``train_test_split`` and ``GridSearchCV`` accept them as X.

    Parameters
    ----------
    source : Source
        Source of the activations: the network, memory or disk.

    Attributes
    ----------
    spec : NetworkSpec
        The modelled layers and their geometry.
    shape : tuple (n,)
        Number of images.

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
    >>> maps.spec.receptive_fields["1", "input"].window(4, 0)
    (slice(3, 6, None), slice(0, 2, None))
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def spec(self) -> NetworkSpec:
        """The modelled layers and their geometry."""
        return self._source.spec

    @property
    def shape(self) -> tuple[int]:
        """The number of images, as a tuple."""
        return (len(self._source),)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the modelled layers in network order, the lowest first."""
        return self.spec.layers

    @property
    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """Shape (channels, height, width) of the map of each layer."""
        return dict(self.spec.shapes)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, key: Any) -> FeatureMaps:
        return FeatureMaps(self._source[key[0] if isinstance(key, tuple) else key])

    def __repr__(self) -> str:
        return f"FeatureMaps(n={len(self)}, shapes={self.shapes})"

    def batches(self) -> Iterator[FeatureBatch]:
        """Iterate over all images once.

        Yields
        ------
        batch : FeatureBatch
            Activations, outputs and decisions of consecutive images.

        Raises
        ------
        ValueError
            If a layer contains NaN or infinity; the error names the image and the layer.
        """
        for batch in self._source.batches():
            for layer, values in batch.activations.items():
                bad_rows = not_finite(values)
                if bad_rows:
                    raise ValueError(f"Layer {layer!r} contains NaN or infinity for image {batch.start + bad_rows[0]}.")
            yield batch

    def rerun(self, work: Callable[[Rerun], Result], what: str = "network") -> Iterator[Result]:
        """Iterate over all images once, with reruns of the network from edited activations.

        The network runs once per batch, also for maps in memory or on disk.  Reruns start at the lowest edited layer.

        Parameters
        ----------
        work : callable
            Function of a ``Rerun`` of consecutive images.  If the memory of the device is exhausted, it is called
            again for the first half of them, so it must not depend on previous calls.
        what : str, default="network"
            Name of the progress bar.

        Yields
        ------
        result : object
            Results of `work`, one per batch.

        Raises
        ------
        ValueError
            If the maps were made without a network.
        """
        yield from self._network().rerun(work, what)

    def of_network(self) -> FeatureMaps | None:
        """Return the same maps computed by the network, neither in memory nor on disk.

        Returns
        -------
        maps : FeatureMaps or None
            Lazy maps; None without a network.
        """
        return None if self._source.network is None else FeatureMaps(self._source.network)

    def _network(self) -> NetworkSource:
        if self._source.network is None:
            raise ValueError("These maps were made from arrays, so there is no network to run.")
        return self._source.network

    @property
    def outputs(self) -> np.ndarray:
        """Outputs of the network, shape (n, C), or (n, 2) for a single probability; reads all images."""
        self._check_some()
        outputs = _concatenate_scores([batch.outputs for batch in self.batches()])
        if outputs is None:
            raise ValueError(
                "The network does not return a tensor of scores (n, C); read the outputs from batches() of maps that "
                "are not stored."
            )
        return outputs

    def compute(self) -> FeatureMaps:
        """Run the network once and keep all activations in memory.

        Returns
        -------
        maps : FeatureMaps
            Equal maps that do not run the network when read.  They take 4 bytes per activation.
        """
        self._check_some()
        arrays = {name: np.empty((len(self), h, w, c), np.float32) for name, (c, h, w) in self.spec.shapes.items()}
        batches = []
        for batch in self.batches():
            for name, values in batch.activations.items():
                arrays[name][batch.start : batch.start + len(values)] = values.permute(0, 2, 3, 1).numpy(force=True)
            batches.append(batch._replace(activations={}))
        outputs = _concatenate_scores([batch.outputs for batch in batches])
        decisions = [batch.decisions for batch in batches]
        size = max(map(len, decisions))
        return FeatureMaps(
            MemorySource(self.spec, arrays, outputs, np.concatenate(decisions), size, self._source.network)
        )

    def store(self, folder: str | PathLike, dtype: str = "float32") -> FeatureMaps:
        """Run the network once and store all activations on disk.

        An interrupted store is resumed, and threads and processes can share a folder.  Stores are identified by hashes
        of weights, layers and preprocessing, and images by a hash of their content.  Images of a data set are
        identified by the hash of the data set, their number, and the size and time of their file if the data set has a
        list `samples` of files, as in torchvision.  When a process uses a store for the first time, and always for data
        sets, a few images pass through the network again to compare values.

        Parameters
        ----------
        folder : str or path
            Folder of the files.
        dtype : {"float32", "float16"}, default="float32"
            Precision on disk.

        Returns
        -------
        maps : FeatureMaps
            Equal maps up to `dtype` that do not run the network when read.

        Raises
        ------
        ValueError
            If the store is damaged, also later when damaged values are read; or if it is stale, since the code of the
            network or the preprocessing, or files of a data set, have changed.
        OSError
            If the disk is too small for all activations, or the folder cannot be used.
        """
        source = DiskSource(self._network(), folder, dtype)
        for _ in source.batches():
            pass
        return FeatureMaps(source)

    def _check_some(self) -> None:
        if not len(self):
            raise ValueError("These FeatureMaps contain no images.")

    def pictures(self) -> Pictures | None:
        """Return the images as pixels, cropped and resized by the preprocessing.

        Returns
        -------
        pictures : Pictures or None
            One picture per image; None if the input of the network is not an image.
        """
        network = self._source.network
        if network is None or network.scale is None:
            return None
        return Pictures(network.images, network.scale, self.spec.input_shape)


def maps_of_changed_network(maps: FeatureMaps, change: Change) -> FeatureMaps:
    """Return lazy maps of the same images by a changed copy of the network.

    `change` is called with the copy, in evaluation mode and without gradients, and the first preprocessed images, and
    changes weights in place.  Layers and geometry must not change.
    """
    return FeatureMaps(maps._network().changed(change))


def maps_of_arrays(arrays: Mapping[str, np.ndarray]) -> FeatureMaps:
    """Return float arrays (n, d) by layer, the lowest first, as maps (d, 1, 1) without a network."""
    shapes = {layer: (values.shape[1], 1, 1) for layer, values in arrays.items()}
    n, d = next(iter(arrays.values())).shape
    spec = NetworkSpec(tuple(arrays), shapes, (d,), {}, 0, None)
    maps = {layer: values[:, None, None] for layer, values in arrays.items()}
    return FeatureMaps(MemorySource(spec, maps, np.empty((n, 0)), np.zeros(n, np.int64), n))


def _concatenate_scores(outputs: list[Any]) -> np.ndarray | None:
    """Return the scores of batches as one float32 array (n, C), None for other outputs."""
    arrays = [part.float().numpy(force=True) if isinstance(part, Tensor) else part for part in outputs]
    scores = all(isinstance(part, np.ndarray) and part.ndim == 2 for part in arrays)
    return np.concatenate(arrays) if scores else None
