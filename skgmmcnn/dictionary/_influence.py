"""Contributions of the locations of the modelled layers to the decisions of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .._device import exact_float32
from ..features import Attribution, Edits, FeatureMaps, Rerun, Result, attribute, check_decided, margins
from ..mixture import Mixture, Scorer


class Margin(Protocol):
    """A scalar of each image that is explained, in nats, for images given by their numbers."""

    def __call__(self, part: Rerun, edits: Edits) -> Tensor:
        """Return it for the images of `part` with changed layers, shape (n,), differentiable."""


@dataclass(frozen=True)
class ClassMargin:
    """The log-odds of one output for each image; with `contrasts` the lead over another output."""

    classes: np.ndarray
    contrasts: np.ndarray | None = None

    def __call__(self, part: Rerun, edits: Edits) -> Tensor:
        """Return it for the images of `part` with changed layers, shape (n,), differentiable."""
        return self.of_outputs(part.run(edits).outputs, part.rows)

    def of_outputs(self, outputs: Any, rows: slice) -> Tensor:
        """Return it from what the network returns for the images `rows`."""
        return margins(outputs, self.classes[rows], None if self.contrasts is None else self.contrasts[rows])


@dataclass(frozen=True)
class WordMargin:
    """The log-odds under the mixture of one word of a layer, the mean over the locations `where` (n, H, W).

    Images without such a location have 0.
    """

    layer: str
    word: np.ndarray
    where: np.ndarray
    mixture: Mixture

    def __call__(self, part: Rerun, edits: Edits) -> Tensor:
        """Return it for the images of `part` with changed layers, shape (n,), differentiable."""
        values = part.map_of(self.layer, edits)
        where = torch.from_numpy(self.where[part.rows]).to(values.device)
        rows = values.permute(0, 2, 3, 1).flatten(0, 2)
        with exact_float32():
            scorer = Scorer(self.mixture, rows)
            joint = torch.cat([scorer.log_joint(scorer.features(block)) for block in scorer.blocks(rows)]).double()
        log_p = joint.log_softmax(1).unflatten(0, where.shape)
        at = torch.from_numpy(self.word[part.rows]).to(values.device)[:, None, None, None].expand(*where.shape, 1)
        others = log_p.scatter(-1, at, -torch.inf).logsumexp(-1)
        log_odds = log_p.gather(-1, at)[..., 0] - others
        return (log_odds * where).sum((1, 2)) / where.sum((1, 2)).clamp_min(1)


@dataclass(frozen=True, eq=False)
class InfluenceMaps:
    """Contributions of locations to the log-odds of a class, for n images; see :meth:`Influence.of_classes`."""

    maps: Mapping[str, np.ndarray]
    margins: np.ndarray
    baselines: Mapping[str, np.ndarray]
    residuals: Mapping[str, np.ndarray]


class Influence:
    """Contributions of locations to the decisions for n images, computed on demand.

    It is the attribute `influence` of :class:`WordMaps`, holds the network and the images, never activations, and can
    be indexed by rows as arrays are.

    Parameters
    ----------
    maps : FeatureMaps
        Maps that run the network.
    mixtures : dict of str to Mixture
        The mixture of each layer.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> extractor = FeatureExtractor(digits.network, layers=["conv2", "conv3"])
    >>> words = make_pipeline(extractor, LayerDictionary(5, random_state=0)).fit_transform(digits.images[:50])
    >>> found = words.influence[:2].of_classes()
    >>> found.maps["conv3"].shape
    (2, 4, 4)
    """

    def __init__(self, maps: FeatureMaps, mixtures: Mapping[str, Mixture]) -> None:
        self._maps, self.mixtures = maps, mixtures

    def __len__(self) -> int:
        return len(self._maps)

    def __getitem__(self, key: Any) -> Influence:
        return Influence(self._maps[key], self.mixtures)

    def __repr__(self) -> str:
        return f"Influence(n={len(self)}, layers={list(self._maps.layers)})"

    def rerun(self, work: Callable[[Rerun], Result], what: str = "influence") -> Iterator[Result]:
        """Yield the results of `work` for the images, batch by batch, as :meth:`FeatureMaps.rerun` does."""
        yield from self._maps.rerun(work, what)

    def baseline(self, layer: str, like: Tensor) -> Tensor:
        """Return the mean of a layer over the fitted images, (1, C, 1, 1), of the dtype and device of `like`."""
        return layer_mean(self.mixtures[layer], like)

    def attribute(self, part: Rerun, layer: str, margin: Margin, n_steps: int) -> Attribution:
        """Return the attribution of a scalar of the images of `part` to the locations of a layer.

        The path from the mean of the layer to the activations is integrated in `n_steps` segments.
        """
        values = part.original.activations[layer]
        return attribute(
            lambda changed: margin(part, {layer: lambda _: changed}), values, self.baseline(layer, values), n_steps
        )

    def of_classes(
        self,
        classes: Sequence[int] | np.ndarray | None = None,
        contrasts: Sequence[int] | np.ndarray | None = None,
        *,
        layers: Sequence[str] | None = None,
        n_steps: int = 4,
    ) -> InfluenceMaps:
        """Return the contribution of each location to the log-odds of a class.

        Parameters
        ----------
        classes : array-like of shape (n,), default=None
            An output for each image, by number or class name; the network's decisions where None.
        contrasts : array-like of shape (n,), default=None
            Outputs over which the lead of `classes` is explained, rather than their log-odds.
        layers : sequence of str, default=None
            Some of the modelled layers; all by default.
        n_steps : int, default=4
            Number of segments of the path from the layer's mean to the activations.

        Returns
        -------
        influence : InfluenceMaps
            In nats: `maps`, by layer (n, H, W), positive where a location speaks for the class, the sum over a map
            being `margins` - `baselines` but for rounding; `margins` (n,), the log-odds of the class, or its lead;
            `baselines`, by layer (n,), the same with the mean of the layer everywhere; `residuals`, by layer (n,), the
            fraction of the absolute contributions that the rule of integration missed, divided among the locations in
            proportion.

        Raises
        ------
        ValueError
            If outputs are no scores, if there is no such layer or output, or if n_steps is less than 1.
        """
        names = self._maps.layers if layers is None else tuple(layers)
        for layer in names:
            if layer not in self._maps.layers:
                raise ValueError(f"There is no layer {layer!r}; there is {', '.join(map(repr, self._maps.layers))}.")
        if n_steps < 1:
            raise ValueError(f"n_steps must be at least 1; got {n_steps}.")
        encode = self._maps.spec.encode
        given, others = (None if y is None else encode(y, len(self)) for y in (classes, contrasts))

        def work(part: Rerun) -> tuple[dict[str, Attribution], np.ndarray]:
            self.check(part)
            outputs = given
            if outputs is None:
                outputs = np.zeros(len(self), np.int64)
                outputs[part.rows] = part.original.decisions
            margin = ClassMargin(outputs, others)
            found = {layer: self.attribute(part, layer, margin, n_steps) for layer in names}
            return found, margin(part, {}).numpy(force=True)

        parts = list(self.rerun(work))

        def joined(name: str) -> dict[str, np.ndarray]:
            values = {layer: [getattr(found[layer], name).numpy(force=True) for found, _ in parts] for layer in names}
            return {layer: np.concatenate(part) for layer, part in values.items()}

        return InfluenceMaps(
            joined("influence"), np.concatenate([m for _, m in parts]), joined("begin"), joined("residual")
        )

    def check(self, part: Rerun) -> None:
        """Refuse networks whose decision is not the largest of the scores that they return."""
        check_decided(part.original.outputs, part.original.decisions, self._maps.spec.n_outputs)


def layer_mean(mixture: Mixture, like: Tensor) -> Tensor:
    """Return the mean column of a layer as its mixture has it, shape (1, C, 1, 1)."""
    mean = torch.from_numpy(mixture.weights_ @ mixture.emitted_means_)
    return mean.to(like)[None, :, None, None]
