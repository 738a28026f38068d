"""One pass over the images that gives every location its word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from .._device import exact_float32
from .._distributed import gathered, my_share, n_processes
from ..features import FeatureMaps
from ..mixture import Mixture
from ..mixture._em import Assignment, Scorer
from ._representatives import Typical


@dataclass(frozen=True)
class Labels:
    """What the pass found, by layer: words, posteriors and log-densities (n, H, W); and the decisions (n,)."""

    words: dict[str, np.ndarray]
    decisions: np.ndarray
    proba: dict[str, np.ndarray] | None
    log_density: dict[str, np.ndarray] | None


def label(
    maps: FeatureMaps,
    mixtures: Mapping[str, Mixture],
    *,
    keep_proba: bool = False,
    typical: Mapping[str, Typical] | None = None,
) -> Labels:
    """Return the words of all images; with `typical`, also let it see how typical each location is.

    With `typical` processes of ``torch.distributed`` divide the images.
    """
    if typical is not None and n_processes() > 1:
        return _label_together(maps, mixtures, keep_proba, typical)
    return _label(maps, mixtures, keep_proba, typical, 0)


def _label_together(
    maps: FeatureMaps, mixtures: Mapping[str, Mixture], keep_proba: bool, typical: Mapping[str, Typical]
) -> Labels:
    mine = my_share(len(maps))
    parts = gathered(_label(maps[mine], mixtures, keep_proba, typical, mine.start))
    for found in typical.values():
        found.merge()

    def joined(name: str) -> Any:
        arrays = [getattr(part, name) for part in parts]
        return None if arrays[0] is None else {k: np.concatenate([a[k] for a in arrays]) for k in arrays[0]}

    decisions = np.concatenate([part.decisions for part in parts])
    return Labels(joined("words"), decisions, joined("proba"), joined("log_density"))


def _label(
    maps: FeatureMaps,
    mixtures: Mapping[str, Mixture],
    keep_proba: bool,
    typical: Mapping[str, Typical] | None,
    first: int,
) -> Labels:
    """Label all images; the first is number `first` to `typical`."""
    labels = _empty(maps, mixtures, keep_proba)
    scorers: dict[str, Scorer] = {}
    with exact_float32():
        for batch in maps.batches():
            labels.decisions[batch.start : batch.start + len(batch.decisions)] = batch.decisions
            for layer, values in batch.activations.items():
                rows = as_rows(values)
                scorer = scorers.setdefault(layer, Scorer(mixtures[layer], rows))
                if not keep_proba and typical is None:
                    _put(labels.words[layer], batch.start, scorer.predict(rows))
                    continue
                assigned = scorer.assign(rows)
                _note(labels, layer, batch.start, assigned)
                if typical is not None:
                    seen = labels.words[layer][batch.start : batch.start + len(values)]
                    typical[layer].add(
                        first + batch.start, seen.reshape(len(seen), -1), assigned.posterior, assigned.log_density
                    )
    return labels


def average_posteriors(maps: FeatureMaps, mixtures: Mapping[str, Mixture]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return by layer the posteriors of the words averaged over each image (n, K), and the decisions (n,)."""
    averages = {layer: np.empty((len(maps), len(mixtures[layer].weights)), np.float32) for layer in maps.layers}
    decisions = np.empty(len(maps), np.int64)
    scorers: dict[str, Scorer] = {}
    with exact_float32():
        for batch in maps.batches():
            place = slice(batch.start, batch.start + len(batch.decisions))
            decisions[place] = batch.decisions
            for layer, values in batch.activations.items():
                scorer = scorers.setdefault(layer, Scorer(mixtures[layer], values))
                for number, image in enumerate(values, batch.start):
                    averages[layer][number] = scorer.predict_proba(as_rows(image[None])).mean(0).numpy(force=True)
    return averages, decisions


def as_rows(values: Tensor) -> Tensor:
    """Return the channels at each location of maps (n, C, H, W) as rows (n H W, C)."""
    return values.permute(0, 2, 3, 1).flatten(0, 2)


def _empty(maps: FeatureMaps, mixtures: Mapping[str, Mixture], keep_proba: bool) -> Labels:
    shapes = {layer: (len(maps), *shape[1:]) for layer, shape in maps.shapes.items()}

    def blank(kind: Any) -> dict[str, np.ndarray]:
        return {layer: np.empty(shape, kind) for layer, shape in shapes.items()}

    smallest = {layer: np.min_scalar_type(len(mixtures[layer].weights) - 1) for layer in shapes}
    return Labels(
        words={layer: np.empty(shape, smallest[layer]) for layer, shape in shapes.items()},
        decisions=np.empty(len(maps), np.int64),
        proba=blank(np.float16) if keep_proba else None,
        log_density=blank(np.float32) if keep_proba else None,
    )


def _note(labels: Labels, layer: str, start: int, assigned: Assignment) -> None:
    _put(labels.words[layer], start, assigned.component)
    if labels.proba is not None and labels.log_density is not None:
        _put(labels.proba[layer], start, assigned.posterior)
        _put(labels.log_density[layer], start, assigned.log_density)


def _put(array: np.ndarray, start: int, values: Tensor) -> None:
    """Write the values of consecutive images, the first of which is number `start`, into `array` (n, H, W)."""
    part = values.numpy(force=True).reshape(-1, *array.shape[1:])
    array[start : start + len(part)] = part
