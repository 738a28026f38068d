"""Base class of LayerDictionary and LayerHMM: checks of feature maps, and labelling."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._compat import ContainerOutput, Interval, StrOptions, wrap_table
from .._distributed import n_processes
from .._threads import reproducible
from ..features import FeatureMaps
from ..mixture import EMISSIONS, STARTS, Mixture, Trained, check_scale, family_of, moments, start, variance_floor
from ._influence import Influence
from ._labelling import Assign, label
from ._representatives import Typical, illustrate
from ._training import Sample
from ._words import Vocabulary, WordMaps, count_classes

_N_REPRESENTATIVES = 9
# A layer counts as rectified if at least this fraction of its values is exactly zero and none is negative.
_LEAST_ZEROS = 0.1


class WordModel(Trained, ContainerOutput, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Base of estimators that turn feature maps into word maps."""

    _parameter_constraints: ClassVar[dict] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), dict],
        "covariance_type": [StrOptions({"tied_diag", "diag", "spherical"})],
        "emission": [StrOptions({"gaussian", "rectified", "auto"})],
        "max_samples": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "reg_covar": [Interval(Real, 0, None, closed="neither")],
        "keep_proba": ["boolean"],
        "keep_patches": ["boolean"],
        "word_names": [dict, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }
    n_components: int | Mapping[str, int]
    covariance_type: str
    emission: str
    init_params: str = "random_from_data"
    reg_covar: float
    max_samples: int
    keep_proba: bool
    keep_patches: bool
    word_names: Mapping[tuple[str, int] | str, str] | None

    @abstractmethod
    def _as_maps(self, X: Any, *, reset: bool) -> FeatureMaps:
        """Return plain arrays as feature maps."""

    @abstractmethod
    def _assigner(self) -> Assign:
        """Return the function that assigns words in one pass over images; its scorers are made once."""

    @abstractmethod
    def _fit(self, X: Any, y: Any) -> WordMaps:
        """Fit, and return the words of X."""

    @abstractmethod
    def _log_likelihood(self, X: Any) -> float:
        """Return the mean log-density of X in nats."""

    @abstractmethod
    def _posterior_table(self, maps: FeatureMaps) -> np.ndarray:
        """Return the posteriors of all words for maps of one location, shape (n, sum of K)."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the words and collect their most typical locations.

        Parameters
        ----------
        X : FeatureMaps or array-like
            Activations of the layers.  The notes of the class describe the accepted arrays.
        y : array-like of shape (n,), default=None
            Output indices or class names: targets of the discriminative objective of :class:`LayerDictionary`, and
            decisions for plain arrays in :class:`LayerHMM`; only validated otherwise.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        self._fit(X, y)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Fit, and return the words of X without another pass through the network.

        Parameters
        ----------
        X : FeatureMaps or array-like
            As in :meth:`fit`.
        y : array-like of shape (n,), default=None
            As in :meth:`fit`.

        Returns
        -------
        words : WordMaps or array of shape (n, sum of K)
            As from :meth:`transform`.
        """
        words = self._fit(X, y)
        return words if isinstance(X, FeatureMaps) else self.transform(X)

    def transform(self, X: Any) -> Any:
        """Return the most likely word at every location.

        Parameters
        ----------
        X : FeatureMaps or array-like
            Activations of the layers.

        Returns
        -------
        words : WordMaps or array of shape (n, sum of K)
            Word maps for feature maps; posteriors of all words, layer by layer, for plain arrays.
        """
        check_is_fitted(self)
        maps = self._check(X, None, reset=False)
        if isinstance(X, FeatureMaps):
            return self._label(maps, illustrated=False)
        return wrap_table(self, self._posterior_table(maps), X)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-likelihood.

        Parameters
        ----------
        X : FeatureMaps or array-like
            Activations of the layers.
        y : object
            Ignored.

        Returns
        -------
        score : float
            In nats per location, summed over the layers; per example for :class:`LayerHMM`.  Comparable only for equal
            layers and `reg_covar`.
        """
        check_is_fitted(self)
        return self._log_likelihood(X)

    def collect_representatives(self, X: FeatureMaps) -> Self:
        """Replace the most typical locations of each word by those found in X.

        Parameters
        ----------
        X : FeatureMaps
            Activations of the layers for the images to search.

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
            For example ``"layer3_w017"``.
        """
        check_is_fitted(self)
        return np.asarray(self.vocabulary_.keys(), dtype=object)

    def _check(self, X: Any, y: Any, *, reset: bool) -> FeatureMaps:
        """Return X as validated feature maps; with `reset`, for a new fit."""
        if isinstance(X, FeatureMaps):
            maps = X
            if y is not None:
                maps.spec.encode(y, len(maps))
        else:
            self._check_type(X)
            maps = self._as_maps(X, reset=reset)
        if not reset:
            self._check_layers(maps)
        elif not len(maps):
            raise ValueError("X holds no images (n_samples = 0).")
        return maps

    def _check_type(self, X: Any) -> None:
        """Raise TypeError or ValueError if X is neither feature maps nor plain arrays."""
        if isinstance(X, WordMaps):
            raise TypeError(
                f"X is WordMaps, the output of {type(self).__name__}; expected FeatureMaps. Pass X to the next "
                "step, or pass the result of FeatureExtractor.transform."
            )
        if np.ma.is_masked(X):
            raise TypeError("X is a masked array; fill the masked entries: X.filled(value).")
        if getattr(X, "ndim", 2) > 2:
            raise ValueError(
                f"{type(self).__name__} expects FeatureMaps or 2-D arrays; X has {X.ndim} dimensions. Pass images "
                "to a FeatureExtractor first."
            )

    def _check_layers(self, maps: FeatureMaps) -> None:
        """Raise ValueError if `maps` are of other layers or of another network than the fitted ones."""
        channels = {layer: shape[0] for layer, shape in maps.shapes.items()}
        fitted_channels = {layer: self.mixtures_[layer].n_channels for layer in self.layers_}
        if channels != fitted_channels:
            raise ValueError(
                f"{type(self).__name__} was fitted on layers with channels {fitted_channels}; X has {channels}."
            )
        fitted, current = self._network, maps.spec.fingerprint
        if fitted and current and fitted != current:
            raise ValueError(
                f"{type(self).__name__} was fitted on maps of another network: its weights had SHA-256 "
                f"{fitted[:12]}..., these have {current[:12]}.... Pass maps of the fitted network, or fit again."
            )

    def _check_training(self, X: Any, y: Any, *, reset: bool) -> FeatureMaps:
        """Return X as validated feature maps for training; with `reset`, of new words."""
        maps = self._check(X, y, reset=reset)
        if len(maps) < n_processes():
            raise ValueError(f"{len(maps)} images cannot be divided among {n_processes()} processes; start fewer.")
        if reset:
            self._check_sizes(maps)
            self._names({layer: self._n_words(layer) for layer in maps.layers})
        return maps

    def _check_sizes(self, maps: FeatureMaps) -> None:
        """Raise ValueError if `n_components` does not fit the layers, or exceeds the number of rows."""
        if isinstance(self.n_components, Mapping):
            sizes = dict(self.n_components)
            if not all(isinstance(n, Integral) and n >= 1 for n in sizes.values()):
                raise ValueError(f"n_components must be at least 1 for each layer; got {sizes}.")
            if set(sizes) != set(maps.layers):
                raise ValueError(f"n_components names layers {list(sizes)}; the layers are {list(maps.layers)}.")
        for layer, (_, height, width) in maps.shapes.items():
            n_rows = len(maps) * height * width
            n_words = self._n_words(layer)
            if min(n_rows, self.max_samples) < n_words:
                raise ValueError(
                    f"Layer {layer!r} has {n_rows} locations (n_samples = {len(maps)}, max_samples = "
                    f"{self.max_samples}), too few for {n_words} words; pass more images or decrease n_components."
                )

    def _names(self, n_words: Mapping[str, int]) -> dict[tuple[str, int], str]:
        """Return `word_names` by layer and number, validated."""
        words = {(layer, word) for layer, n in n_words.items() for word in range(n)}
        names = {_word_of(key): name for key, name in (self.word_names or {}).items()}
        for key, name in names.items():
            if key not in words:
                raise ValueError(
                    f"word_names has key {key!r}; keys are (layer, number) or 'layer_w017', layers have {n_words} "
                    "words."
                )
            if not isinstance(name, str):
                raise TypeError(f"word_names has the name {name!r} for {key!r}; names must be str.")
        return names

    def _n_words(self, layer: str) -> int:
        return self.n_components[layer] if isinstance(self.n_components, Mapping) else self.n_components

    @reproducible()
    def _initialize(self, layer: str, sample: Sample) -> Mixture:
        """Return the initial mixture of a layer: means at some rows, all with the variance of all rows."""
        mean, variance = moments(sample.rows)
        check_scale(f"Layer {layer!r}", variance)
        family = family_of(self._emission_of(layer, sample.rows), self.covariance_type)
        means = STARTS[self.init_params](sample.rows, self._n_words(layer), sample.generator)
        return start(means, family(variance_floor(variance, self.reg_covar)), mean, variance, sample.rows)

    def _emission_of(self, layer: str, rows: Tensor) -> str:
        """Return "gaussian" or "rectified"; "auto" is resolved by the fraction of zeros in the rows."""
        negative = bool((rows < 0).any())
        if self.emission == "auto":
            possible = ("rectified", self.covariance_type) in EMISSIONS and not negative
            zeros = (rows == 0).double().mean().item()
            return "rectified" if possible and zeros >= _LEAST_ZEROS else "gaussian"
        if self.emission == "rectified" and negative:
            raise ValueError(
                f"Layer {layer!r} has negative values, but emission='rectified' models the output of a ReLU; "
                "use emission='auto' or 'gaussian'."
            )
        return self.emission

    def _set_words(self, maps: FeatureMaps, mixtures: dict[str, Mixture], others: Iterable[np.ndarray] = ()) -> None:
        """Set the attributes of words fitted on `maps`; `others` are further arrays that determine words."""
        emissions = {family: emission for (emission, _), family in EMISSIONS.items()}
        self.layers_ = maps.layers
        self.mixtures_ = mixtures
        self.emissions_ = {layer: emissions[type(mixture.emission)] for layer, mixture in mixtures.items()}
        digest = hashlib.sha256()
        for layer, mixture in mixtures.items():
            digest.update(layer.encode())
            for array in (mixture.weights_, mixture.means_, mixture.covariances_):
                digest.update(np.ascontiguousarray(array).data)
        for array in others:
            digest.update(np.ascontiguousarray(array).data)
        n_words = {layer: len(mixture.weights) for layer, mixture in mixtures.items()}
        self.vocabulary_ = Vocabulary(n_words, digest.hexdigest())
        self._network = maps.spec.fingerprint

    def _label(self, maps: FeatureMaps, *, illustrated: bool) -> WordMaps:
        """Return the words after one pass through the network; with `illustrated`, collect representatives."""
        n_words = self.vocabulary_.n_words
        names = self._names(n_words)
        typical = {layer: Typical(n, _N_REPRESENTATIVES) for layer, n in n_words.items()} if illustrated else None
        labels, decisions = label(maps, self._assigner(), n_words, keep_proba=self.keep_proba, typical=typical)
        words = {layer: arrays[0] for layer, arrays in labels.items()}
        if typical is not None:
            self._set_examples(maps, words, decisions, typical)
        network = maps.of_network()
        return WordMaps(
            words=words,
            decisions=decisions,
            spec=maps.spec,
            vocabulary=replace(self.vocabulary_, names=names),
            pictures=maps.pictures(),
            proba={layer: arrays[1] for layer, arrays in labels.items()} if self.keep_proba else None,
            log_density={layer: arrays[2] for layer, arrays in labels.items()} if self.keep_proba else None,
            influence=None if network is None else Influence(network, self.mixtures_),
        )

    def _set_examples(
        self, maps: FeatureMaps, words: Mapping[str, np.ndarray], decisions: np.ndarray, typical: Mapping[str, Typical]
    ) -> None:
        """Set representatives and statistics of the words from those of all images."""
        pictures = maps.pictures() if self.keep_patches else None
        n_outputs = max(1, maps.spec.n_outputs)
        representatives, statistics = {}, {}
        for layer, n_words in self.vocabulary_.n_words.items():
            representatives[layer] = illustrate(typical[layer], layer, maps.spec, pictures)
            statistics[layer] = count_classes(words[layer], decisions, n_words, n_outputs)
        self.vocabulary_ = replace(
            self.vocabulary_,
            representatives=representatives,
            statistics=statistics,
            class_names=maps.spec.class_names,
        )
        self.dead_words_ = {layer: counts.dead for layer, counts in statistics.items()}


def _word_of(key: Any) -> Any:
    """Return layer and number for ``"layer3_w017"``; other keys unchanged."""
    layer, _, number = key.rpartition("_w") if isinstance(key, str) else ("", "", "")
    return (layer, int(number)) if number.isdecimal() else key
