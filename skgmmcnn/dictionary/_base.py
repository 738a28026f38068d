"""What LayerDictionary and LayerHMM have in common: they check feature maps alike, and label them by their words."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .._compat import ContainerOutput
from .._distributed import n_processes
from ..features import FeatureMaps
from ..mixture import Mixture
from ._influence import Influence
from ._labelling import Labeller, label
from ._representatives import Typical, illustrate
from ._statistics import count_classes
from ._words import Vocabulary, WordMaps

_N_REPRESENTATIVES = 9


class WordModel(ContainerOutput, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """An estimator that reads feature maps and gives word maps."""

    n_components: int | Mapping[str, int]
    max_samples: int
    keep_proba: bool
    keep_patches: bool
    word_names: Mapping[tuple[str, int] | str, str] | None
    layers_: tuple[str, ...]
    mixtures_: dict[str, Mixture]
    vocabulary_: Vocabulary
    dead_words_: dict[str, np.ndarray]
    _network: str | None

    @abstractmethod
    def _as_maps(self, X: Any, *, reset: bool) -> FeatureMaps:
        """Return plain arrays as feature maps."""

    @abstractmethod
    def _labeller(self) -> Labeller:
        """Return what gives locations their words."""

    def collect_representatives(self, X: FeatureMaps) -> Self:
        """Take each word's most typical locations from X, in place of those that there are.

        Parameters
        ----------
        X : FeatureMaps
            Activity of the layers for the images to choose from.

        Returns
        -------
        self : object
            The estimator with new representatives.
        """
        check_is_fitted(self)
        self._label(self._check(X, None, reset=False), illustrated=True)
        return self

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the identifiers of all words.

        Parameters
        ----------
        input_features : object
            Ignored.

        Returns
        -------
        names : array of str
            Layer and word, as ``"layer3_w017"``.
        """
        check_is_fitted(self)
        return np.asarray(self.vocabulary_.keys(), dtype=object)

    def _check(self, X: Any, y: Any, *, reset: bool) -> FeatureMaps:
        """Return X as feature maps that this model can read."""
        if isinstance(X, FeatureMaps):
            maps = X
            if y is not None:
                maps.spec.encode(y, len(maps))
        else:
            if isinstance(X, WordMaps):
                raise TypeError(
                    f"X is WordMaps, which {type(self).__name__} returns; it reads FeatureMaps. Give them to the step "
                    "behind it, or give what FeatureExtractor.transform returns."
                )
            if np.ma.is_masked(X):
                raise TypeError("X is a masked array; fill what is masked: X.filled(value).")
            maps = self._as_maps(X, reset=reset)
        if reset and not len(maps):
            raise ValueError("There are no images in X (n_samples = 0).")
        if not reset and {layer: maps.shapes[layer][0] for layer in maps.layers} != self._channels():
            raise ValueError(
                f"{type(self).__name__} was fitted on layers with channels {self._channels()}; X has "
                f"{ {layer: shape[0] for layer, shape in maps.shapes.items()} }."
            )
        if not reset:
            self._check_network(maps.spec.fingerprint)
        return maps

    def _check_network(self, its: str | None) -> None:
        mine = self._network
        if mine is not None and its is not None and its != mine:
            raise ValueError(
                f"{type(self).__name__} was fitted on maps of another network: its weights had SHA-256 {mine[:12]}..., "
                f"these have {its[:12]}..., whose channels mean something else. Take maps of the network that was "
                "fitted, or fit again."
            )

    def _channels(self) -> dict[str, int]:
        return {layer: self.mixtures_[layer].parameters.mean.shape[1] for layer in self.layers_}

    def _check_sizes(self, maps: FeatureMaps) -> None:
        if isinstance(self.n_components, Mapping) and not all(
            isinstance(n, Integral) and n >= 1 for n in self.n_components.values()
        ):
            raise ValueError(f"n_components must give every layer at least one word; got {dict(self.n_components)}.")
        if isinstance(self.n_components, Mapping) and set(self.n_components) != set(maps.layers):
            raise ValueError(
                f"n_components names layers {list(self.n_components)}; the layers are {list(maps.layers)}."
            )
        for layer, (_, height, width) in maps.shapes.items():
            n_rows, n_words = len(maps) * height * width, self._n_words(layer)
            if min(n_rows, self.max_samples) < n_words:
                raise ValueError(
                    f"Layer {layer!r} has {n_rows} locations (n_samples = {len(maps)}, max_samples = "
                    f"{self.max_samples}), too few for {n_words} words; give more images or a smaller n_components."
                )
        self._check_names(maps)

    def _names(self) -> dict[tuple[str, int], str]:
        """Return the names of words by layer and number, however `word_names` gives the words."""
        return {_word_of(key): name for key, name in (self.word_names or {}).items()}

    def _check_names(self, maps: FeatureMaps) -> None:
        sizes = {layer: self._n_words(layer) for layer in maps.layers}
        known = {(layer, word) for layer, n_words in sizes.items() for word in range(n_words)}
        for key, name in self._names().items():
            if key not in known:
                raise ValueError(
                    f"word_names names {key!r}; words are (layer, number) or 'layer_w017', and layers have {sizes}."
                )
            if not isinstance(name, str):
                raise TypeError(f"word_names calls {key!r} {name!r}; names are text.")

    def _n_words(self, layer: str) -> int:
        return self.n_components[layer] if isinstance(self.n_components, Mapping) else self.n_components

    def _label(self, maps: FeatureMaps, *, illustrated: bool) -> WordMaps:
        """Run the network once and return the words, with `illustrated` noting each word's representatives."""
        self._check_names(maps)
        typical = {layer: Typical(n, _N_REPRESENTATIVES) for layer, n in self.vocabulary_.n_words.items()}
        labels = label(
            maps,
            self._labeller(),
            self.vocabulary_.n_words,
            keep_proba=self.keep_proba,
            typical=typical if illustrated else None,
        )
        pictures = maps.pictures()
        if illustrated:
            shown = pictures if self.keep_patches else None
            found = {layer: illustrate(typical[layer], layer, maps.spec, shown) for layer in maps.layers}
            counts = {
                layer: count_classes(
                    words, labels.decisions, self.vocabulary_.n_words[layer], max(1, maps.spec.n_outputs)
                )
                for layer, words in labels.words.items()
            }
            self.vocabulary_ = replace(
                self.vocabulary_, representatives=found, statistics=counts, class_names=maps.spec.class_names
            )
            self.dead_words_ = {layer: count.dead for layer, count in counts.items()}
        return WordMaps(
            words=labels.words,
            decisions=labels.decisions,
            spec=maps.spec,
            vocabulary=replace(self.vocabulary_, names=self._names()),
            pictures=pictures,
            proba=labels.proba,
            log_density=labels.log_density,
            influence=Influence.of(maps, self.mixtures_),
        )


def _word_of(key: Any) -> Any:
    """Return layer and number of a word given as ``"layer3_w017"``; all else as it is."""
    layer, _, number = key.rpartition("_w") if isinstance(key, str) else ("", "", "")
    return (layer, int(number)) if number.isdecimal() else key


def check_shares(maps: FeatureMaps) -> None:
    """Refuse fewer images than there are processes to share them."""
    if len(maps) < n_processes():
        raise ValueError(f"{n_processes()} processes cannot share {len(maps)} images; start fewer.")


def vocabulary_of(mixtures: Mapping[str, Mixture], others: Iterable[np.ndarray] = ()) -> Vocabulary:
    """Return the words of mixtures by layer, with a fingerprint of these and of `others` that words depend on."""
    digest = hashlib.sha256()
    for layer, mixture in mixtures.items():
        digest.update(layer.encode())
        for array in (mixture.weights_, mixture.means_, mixture.covariances_):
            digest.update(np.ascontiguousarray(array).data)
    for array in others:
        digest.update(np.ascontiguousarray(array).data)
    n_words = {layer: len(mixture.weights) for layer, mixture in mixtures.items()}
    return Vocabulary(n_words, digest.hexdigest())
