"""Dictionary of visual words: one Gaussian mixture per layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from .._compat import StrOptions, fit_context
from .._distributed import local_slice
from .._threads import reproducible
from ..features import FeatureMaps, maps_of_arrays
from ..mixture import SOLVERS, STARTS, Expectation, Fitted, Mixture, OnlineState, Rows, Scorer, Training, online_step
from ._base import WordModel
from ._labelling import Assign, Assigned, as_rows, average_posteriors
from ._readouts import Readout, fit_readout, train_words
from ._training import Sample, draw, passes
from ._words import WordMaps
from ._worth import DictionaryReport, worth

# EM starts on an eighth of the rows if there are at least twenty per word.  This saves a third of the time, and the
# words of two seeds agree as well.
_FIRST, _ROWS_EACH = 8, 20
# Training ends at a pass in which fewer than this fraction of the rows change their word; the first one on the eighth.
_STILL_FIRST, _STILL = 0.02, 0.03


class LayerDictionary(WordModel, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Model the activations of each layer as a Gaussian mixture whose components are visual words.

    The channels at one location of a layer are one row.  Each layer has a mixture of Gaussians with diagonal
    covariances [1]_, fitted to a random sample of rows of bounded size.  :meth:`fit` makes two passes through the
    network: one to sample rows of all layers, and one to assign a word to each location and to collect the most typical
    locations of each word.

    Parameters
    ----------
    n_components : int or dict of str to int, default=100
        Number of words of each layer, or by layer name.
    objective : {"generative", "discriminative"}, default="generative"
        "generative" maximises the likelihood of the rows (L_G of [1]_).  "discriminative" continues from there and
        minimises the cross-entropy of a linear softmax classifier on posteriors averaged over each image (L_D of [1]_).
        The classes are y, or the network's decisions if y is None.  It works best if `max_samples` admits all
        locations.
    covariance_type : {"tied_diag", "diag", "spherical"}, default="tied_diag"
        Variances per channel, common to all words; per word and channel, as in the paper; or per word.
    emission : {"gaussian", "rectified", "auto"}, default="auto"
        "rectified" models the input of a ReLU [2]_ and requires ``covariance_type="diag"``.  With "diag", "auto"
        selects it for layers with at least a tenth of exact zeros and no negative values.
    init_params : {"random_from_data", "k-means++"}, default="random_from_data"
        Initial means: random rows, or rows far from each other.
    solver : {"em", "online", "sgd"}, default="em"
        Training algorithm; see :class:`DiagonalGaussianMixture`.  "em" starts on an eighth of the sample.
    max_samples : int, default=130_000
        Maximum number of training rows per layer, further limited to 256 MiB.
    max_iter : int, default=200
        Maximum number of passes over the sample.
    tol : float, default=1e-4
        Training stops when a pass gains less than this, in nats per row and channel.  "em" also stops when fewer than
        3 % of the rows change their word in a pass.
    reg_covar : float, default=0.3
        Floor of the variance of a component, as a fraction of the channel's variance; scikit-learn's parameter of this
        name is added instead.
    keep_proba : bool, default=False
        Whether word maps hold the posterior and the log-density of the word at each location.
    keep_patches : bool, default=True
        Whether to store image patches of typical locations, for displays.  Set to False if image content must not be
        stored; the indices of images and locations are stored in any case.
    word_names : dict of (str, int) or str to str, default=None
        Names of words, by layer and number, ``{("layer3", 17): "leaf"}``, or by key, ``{"layer3_w017": "leaf"}``, as in
        the JSON file of :class:`InferenceGraphPage`: ``word_names=json.load(file)``.  Displays and texts show them.
        They may also be set after `fit`.
    verbose : int, default=0
        Whether to show progress and the final :meth:`report`.
    random_state : int, RandomState instance or None, default=None
        Determines the sample and the initial means.

    Attributes
    ----------
    mixtures_ : dict of str to Mixture
        By layer, with `weights_`, `means_` and `covariances_` as in :class:`sklearn.mixture.GaussianMixture`.  Of
        rectified mixtures, `means_` are those before the ReLU, `emitted_means_` those behind it.
    layers_ : tuple of str
        The layers, in network order.
    emissions_ : dict of str to str
        "gaussian" or "rectified", by layer.
    vocabulary_ : Vocabulary
        Sizes, fingerprint, representatives and statistics of the words.
    dead_words_ : dict of str to int array
        Words that occur at no location of the fitted images, by layer.
    readouts_ : dict of str to Readout
        Linear classifiers on the words of each layer, with the discriminative objective or after
        :meth:`fit_readout`: `coef` (n_outputs, K) and `intercept` (n_outputs,).
    lower_bounds_ : dict of str to list of float
        Mean log-density of the training rows in nats after each pass, by layer; the best so far with "em".  With the
        discriminative objective, the last entry refers to the final words.  :meth:`partial_fit` appends the mean
        log-density of its rows before the step.
    lower_bound_ : float
        Sum over the layers of the last entries of `lower_bounds_`.
    n_iter_ : int
        Number of generative passes of the slowest layer; number of steps after `partial_fit`.
    converged_ : bool
        True if all layers converged.
    n_features_in_ : int
        Number of columns if X is a 2-D array.

    See Also
    --------
    InferenceGraph : Graph of the words of successive layers.

    Notes
    -----
    If ``torch.distributed`` is initialised, the processes divide the images in `fit`, `partial_fit` and
    `collect_representatives`.  All must call these with equal X and parameters; all end with the same dictionary.

    A 2-D array (n, d) is treated as one fully connected layer named "dense"; `transform` then returns posteriors.

    References
    ----------
    .. [1] Konforti, Shpigler, Lerner and Bar-Hillel, "Inference Graphs for CNN Interpretation", ECCV 2020, Eq. 1.
    .. [2] Konforti, Shpigler, Lerner and Bar-Hillel, "SIGN: Statistical Inference Graphs Based on Probabilistic
       Network Activity Interpretation", IEEE TPAMI, 2023.

    Examples
    --------
    >>> from skgmmcnn import FeatureExtractor, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> maps = FeatureExtractor(digits.network, layers=["conv2", "conv3"]).fit_transform(digits.images)
    >>> words = LayerDictionary({"conv2": 10, "conv3": 20}, random_state=0).fit_transform(maps)
    >>> words
    WordMaps(n=1347, conv2: 10 words, conv3: 20 words)
    """

    _parameter_constraints: ClassVar[dict] = {
        **WordModel._parameter_constraints,
        "objective": [StrOptions({"generative", "discriminative"})],
        "init_params": [StrOptions(set(STARTS))],
        "solver": [StrOptions(set(SOLVERS))],
    }

    def __init__(
        self,
        n_components: int | Mapping[str, int] = 100,
        *,
        objective: str = "generative",
        covariance_type: str = "tied_diag",
        emission: str = "auto",
        init_params: str = "random_from_data",
        solver: str = "em",
        max_samples: int = 130_000,
        max_iter: int = 200,
        tol: float = 1e-4,
        reg_covar: float = 0.3,
        keep_proba: bool = False,
        keep_patches: bool = True,
        word_names: Mapping[tuple[str, int] | str, str] | None = None,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.objective = objective
        self.covariance_type = covariance_type
        self.emission = emission
        self.init_params = init_params
        self.solver = solver
        self.max_samples = max_samples
        self.max_iter = max_iter
        self.tol = tol
        self.reg_covar = reg_covar
        self.keep_proba = keep_proba
        self.keep_patches = keep_patches
        self.word_names = word_names
        self.verbose = verbose
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def _fit(self, X: Any, y: Any) -> WordMaps:
        maps = self._check_training(X, y, reset=True)
        if self.objective == "discriminative" and not maps.spec.n_outputs:
            raise ValueError("objective='discriminative' needs the FeatureMaps of a network; X is a plain array.")
        samples, decisions = draw(maps, self.max_samples, self.random_state)
        readouts: dict[str, Readout] = {}
        with reproducible():
            fits = {layer: self._train(layer, sample) for layer, sample in samples.items()}
            n_iter = max(fit.n_iter for fit in fits.values())
            if self.objective == "discriminative":
                targets = decisions if y is None else maps.spec.encode(y, len(maps))
                for layer, sample in samples.items():
                    fits[layer], readouts[layer] = train_words(fits[layer], sample, targets, maps.spec.n_outputs)
        self._set_states(maps, {layer: fit.state for layer, fit in fits.items()})
        if readouts:
            self.readouts_ = readouts
        slow = [layer for layer, fit in fits.items() if not fit.converged]
        self._set_course({layer: fit.lower_bounds for layer, fit in fits.items()}, n_iter, not slow)
        if slow:
            self._warn_unconverged(f"The mixtures of layers {slow}")
        words = self._label(maps, illustrated=True)
        if self.verbose:
            print(self.report(maps))
        return words

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> LayerDictionary:
        """Take one step of online EM with the rows of X, which are not stored.

        The first call also chooses the initial means and the variance floor; after :meth:`fit`, steps continue from
        there.  Representatives are not collected; see :meth:`collect_representatives`.

        Parameters
        ----------
        X : FeatureMaps or array-like of shape (n, d)
            Activations of the layers.
        y : array-like of shape (n,), default=None
            Output indices or class names; only validated.

        Returns
        -------
        self : LayerDictionary
            The dictionary after the step.
        """
        if self.objective == "discriminative":
            raise ValueError(
                "partial_fit supports the generative objective only; set objective='generative', or use fit."
            )
        states: dict[str, OnlineState] = dict(getattr(self, "_states", {}))
        maps = self._check_training(X, y, reset=not states)
        if states:
            mixtures = {layer: state.mixture for layer, state in states.items()}
            bounds = dict(self.lower_bounds_)
        else:
            samples, _ = draw(maps, self.max_samples, self.random_state)
            mixtures = {layer: self._initialize(layer, sample) for layer, sample in samples.items()}
            bounds = {layer: [] for layer in mixtures}
        for layer, expectation in self._expect(maps[local_slice(len(maps))], mixtures).items():
            expectation.merge()
            states[layer] = online_step(expectation, mixtures[layer], states.get(layer))
            bounds[layer] = [*bounds[layer], expectation.mean_log_likelihood]
        self._set_states(maps, states)
        self._set_course(bounds, states[maps.layers[0]].n_steps, converged=False)
        return self

    def predict(self, X: Any) -> Any:
        """Return the words as plain arrays.

        Parameters
        ----------
        X : FeatureMaps or array-like of shape (n, d)
            Activations of the layers.

        Returns
        -------
        words : dict of str to int array of shape (n, H, W), or int array of shape (n,)
            By layer for feature maps; one word per row for a 2-D array.
        """
        check_is_fitted(self)
        words = self._label(self._check(X, None, reset=False), illustrated=False).words
        return words if isinstance(X, FeatureMaps) else words[self.layers_[0]].ravel().astype(np.int64)

    def report(self, X: Any, *, n_images: int = 100) -> DictionaryReport:
        """Measure the use of words, the variance that they explain, and the decisions that they preserve.

        Parameters
        ----------
        X : FeatureMaps or array-like of shape (n, d)
            Activations of the layers, preferably for held-out images.
        n_images : int, default=100
            Number of images, spread evenly over X.  Each takes one run of the network, and one more from each layer.

        Returns
        -------
        report : DictionaryReport
            One line of text per layer.  ``report.layers[layer]`` has `n_words`; `n_used`, the number of words in use;
            `r2`, the fraction of the layer's variance explained by the means of the words; and `kept`, the fraction of
            decisions that are preserved when each location is replaced by the mean of its word, NaN without a
            network.

        Warns
        -----
        UserWarning
            If the words of a layer preserve fewer than half of the decisions.
        """
        check_is_fitted(self)
        if n_images < 1:
            raise ValueError(f"n_images must be at least 1; got {n_images}.")
        maps = self._check(X, None, reset=False)
        rows = np.unique(np.linspace(0, len(maps) - 1, min(n_images, len(maps))).astype(int))
        return worth(maps[rows], self._assigner(), self.mixtures_)

    def fit_readout(self, X: FeatureMaps, y: Any = None) -> LayerDictionary:
        """Fit a linear classifier of the class on the words of each layer; the words are not changed.

        Parameters
        ----------
        X : FeatureMaps
            Activations of the layers.
        y : array-like of shape (n,), default=None
            Output indices or class names; the network's decisions if None.

        Returns
        -------
        self : LayerDictionary
            The dictionary, with `readouts_`.
        """
        check_is_fitted(self)
        maps = self._check(X, y, reset=False)
        if not maps.spec.n_outputs:
            raise ValueError("fit_readout needs the FeatureMaps of a network; X is a plain array.")
        posteriors, decisions = average_posteriors(maps, self.mixtures_)
        targets = decisions if y is None else maps.spec.encode(y, len(maps))
        self.readouts_ = {
            layer: fit_readout(values, targets, maps.spec.n_outputs) for layer, values in posteriors.items()
        }
        return self

    def predict_class_proba(self, X: FeatureMaps) -> dict[str, np.ndarray]:
        """Return class probabilities, predicted from the words of each single layer.

        Parameters
        ----------
        X : FeatureMaps
            Activations of the layers.

        Returns
        -------
        probabilities : dict of str to array of shape (n, n_outputs)
            By layer; each row sums to one.
        """
        check_is_fitted(self)
        if not hasattr(self, "readouts_"):
            raise NotFittedError("There are no readouts: call fit_readout, or fit with objective='discriminative'.")
        posteriors, _ = average_posteriors(self._check(X, None, reset=False), self.mixtures_)
        return {layer: readout.predict_proba(posteriors[layer]) for layer, readout in self.readouts_.items()}

    def _as_maps(self, X: Any, *, reset: bool) -> FeatureMaps:
        return maps_of_arrays({"dense": validate_data(self, X, dtype=[np.float64, np.float32], reset=reset)})

    def _assigner(self) -> Assign:
        scorers: dict[str, Scorer] = {}

        def assign(activations: Mapping[str, Tensor], scored: bool) -> Assigned:
            for layer, values in activations.items():
                rows = as_rows(values)
                if layer not in scorers:
                    scorers[layer] = self.mixtures_[layer].scorer(rows)
                yield layer, scorers[layer].assign(rows, scored)

        return assign

    def _posterior_table(self, maps: FeatureMaps) -> np.ndarray:
        with reproducible():
            (layer,) = self.layers_
            rows = torch.cat([as_rows(batch.activations[layer]) for batch in maps.batches()])
            return self.mixtures_[layer].scorer(rows).predict_proba(rows).numpy(force=True)

    def _log_likelihood(self, X: Any) -> float:
        expectations = self._expect(self._check(X, None, reset=False), self.mixtures_)
        return sum(expectation.mean_log_likelihood for expectation in expectations.values())

    def _initialize(self, layer: str, sample: Sample) -> Mixture:
        if self._n_words(layer) > 1 and (sample.rows == sample.rows[0]).all():
            raise ValueError(
                f"Layer {layer!r} is constant over all locations and images, so it has no words; leave it out."
            )
        return super()._initialize(layer, sample)

    def _train(self, layer: str, sample: Sample) -> Fitted:
        mixture = self._initialize(layer, sample)
        rows = Rows(sample.rows, shared=True)
        with passes(self.max_iter, layer, shown=self.verbose) as report:
            tol = self.tol * rows.values.shape[1]
            training = Training(self.max_iter, tol, generator=sample.generator, report=report, still=_STILL_FIRST)
            n_first = len(rows) // _FIRST
            if self.solver == "em" and n_first >= _ROWS_EACH * self._n_words(layer):
                mixture = SOLVERS["em"](rows[:n_first], mixture, training).mixture  # in random order
            return SOLVERS[self.solver](rows, mixture, replace(training, still=_STILL))

    def _expect(self, maps: FeatureMaps, mixtures: Mapping[str, Mixture]) -> dict[str, Expectation]:
        """Return the E-step of each layer over all locations, after one pass through the network."""
        expectations: dict[str, Expectation] = {}
        with reproducible():
            for batch in maps.batches():
                for layer, values in batch.activations.items():
                    rows = as_rows(values)
                    if layer not in expectations:
                        expectations[layer] = Expectation(mixtures[layer], rows)
                    expectations[layer].add(Rows(rows))
        return expectations

    def _set_states(self, maps: FeatureMaps, states: dict[str, OnlineState]) -> None:
        if hasattr(self, "readouts_"):  # of the previous words
            del self.readouts_
        self._states = {layer: state.to("cpu") for layer, state in states.items()}
        self._set_words(maps, {layer: state.mixture for layer, state in self._states.items()})
