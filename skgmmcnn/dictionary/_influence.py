"""Contributions of locations to the decisions of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._device import exact_float32
from ..features import Attribution, Edits, FeatureMaps, Rerun, Result, attribute, check_decided, check_layers, margins
from ..mixture import Mixture
from ._labelling import as_rows

# The scalar that is explained (n,), in nats, of the images of a batch with edited layers, differentiable.
Margin = Callable[[Rerun, Edits], Tensor]


@dataclass(frozen=True)
class ClassMargin:
    """Log-odds of one output for each image; with `contrasts`, the margin over another output."""

    classes: np.ndarray
    contrasts: np.ndarray | None = None

    def __call__(self, part: Rerun, edits: Edits) -> Tensor:
        return self.of_outputs(part.run(edits).outputs, part.rows)

    def of_outputs(self, outputs: Any, rows: slice) -> Tensor:
        """Return the scalar, given the outputs of the network for the images `rows`."""
        return margins(outputs, self.classes[rows], None if self.contrasts is None else self.contrasts[rows])


@dataclass(frozen=True)
class WordMargin:
    """Log-odds of one word of a layer under the mixture, averaged over the locations `where` (n, H, W); 0 for none."""

    layer: str
    word: np.ndarray
    where: np.ndarray
    mixture: Mixture

    def __call__(self, part: Rerun, edits: Edits) -> Tensor:
        values = part.map_of(self.layer, edits)
        where = torch.from_numpy(self.where[part.rows]).to(values.device)
        rows = as_rows(values)
        with exact_float32():
            scorer = self.mixture.scorer(rows)
            joint = torch.cat([scorer.joint(block) for block in rows.split(scorer.block_rows)]).double()
        log_p = joint.log_softmax(1).unflatten(0, where.shape)
        at = torch.from_numpy(self.word[part.rows]).to(values.device)[:, None, None, None].expand(*where.shape, 1)
        others = log_p.scatter(-1, at, -torch.inf).logsumexp(-1)
        log_odds = log_p.gather(-1, at)[..., 0] - others
        return (log_odds * where).sum((1, 2)) / where.sum((1, 2)).clamp_min(1)


@dataclass(frozen=True, eq=False)
class InfluenceMaps:
    """Contributions of locations to the log-odds of a class or its margin over another, for n images, in nats.

    `maps`, by layer (n, H, W), are positive for evidence for the class; their sums are `margins` (n,) - `baselines` up
    to rounding.  `baselines`, by layer (n,), are the margins with the mean of the layer at all locations.  `residuals`,
    by layer (n,), are integration errors as a fraction of the absolute contributions, among which they are divided.
    """

    maps: Mapping[str, np.ndarray]
    margins: np.ndarray
    baselines: Mapping[str, np.ndarray]
    residuals: Mapping[str, np.ndarray]


class Influence:
    """Contributions of locations to the decisions for n images, computed on demand.

    This is the attribute `influence` of :class:`WordMaps`.  It holds the network and the images, but no activations,
    and supports indexing by image.
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
        """Yield the results of `work` batch by batch; see :meth:`FeatureMaps.rerun`."""
        yield from self._maps.rerun(work, what)

    def baseline(self, layer: str, like: Tensor) -> Tensor:
        """Return the mean of a layer over the fitted images, (1, C, 1, 1), with dtype and device of `like`."""
        return layer_mean(self.mixtures[layer], like)

    def attribute(self, part: Rerun, layer: str, margin: Margin, n_steps: int) -> Attribution:
        """Attribute `margin` to the locations of a layer, along `n_steps` segments from the mean of the layer."""
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

        `classes` are the outputs, by index or class name, that are explained for the images; the network's decisions
        if None.  With `contrasts`, their margin over these outputs is explained instead of the log-odds.  The path from
        the layer's mean to the activations has `n_steps` segments.
        """
        names = check_layers(layers, self._maps.layers)
        if n_steps < 1:
            raise ValueError(f"n_steps must be at least 1; got {n_steps}.")
        encode = self._maps.spec.encode
        targets, others = (None if y is None else encode(y, len(self)) for y in (classes, contrasts))

        def work(part: Rerun) -> tuple[dict[str, Attribution], np.ndarray]:
            self.check(part)
            outputs = targets
            if outputs is None:
                outputs = np.zeros(len(self), np.int64)
                outputs[part.rows] = part.original.decisions
            margin = ClassMargin(outputs, others)
            attributions = {layer: self.attribute(part, layer, margin, n_steps) for layer in names}
            return attributions, margin(part, {}).numpy(force=True)

        attributions, margins_of_batches = zip(*self.rerun(work), strict=True)

        def collect(name: str) -> dict[str, np.ndarray]:
            return {
                layer: np.concatenate([getattr(batch[layer], name).numpy(force=True) for batch in attributions])
                for layer in names
            }

        return InfluenceMaps(
            maps=collect("influence"),
            margins=np.concatenate(margins_of_batches),
            baselines=collect("begin"),
            residuals=collect("residual"),
        )

    def check(self, part: Rerun) -> None:
        """Raise ValueError unless the decision is the largest of the scores that the network returns."""
        check_decided(part.original.outputs, part.original.decisions, self._maps.spec.n_outputs)


def layer_mean(mixture: Mixture, like: Tensor) -> Tensor:
    """Return the mean of a layer under its mixture, shape (1, C, 1, 1)."""
    mean = torch.from_numpy(mixture.weights_ @ mixture.emitted_means_)
    return mean.to(like)[None, :, None, None]
