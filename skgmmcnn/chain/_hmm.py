"""Hidden Markov model over the layers of a fully connected network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import Tensor

from .._compat import Interval, StrOptions, fit_context
from .._device import exact_float32
from .._threads import reproducible
from ..dictionary import Assign, Assigned, Sample, WordMaps, WordModel, draw, passes
from ..features import FeatureMaps, maps_of_arrays
from ..mixture import SOLVERS, Assignment, OnlineState, Rows, Training, in_blocks, online_pass, sampling
from ._chain import Chain, ChainScorer, assign, joined, uniform
from ._paths import InferencePaths
from ._recursions import likeliest_paths, state_posteriors, viterbi


class LayerHMM(WordModel, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Model the layers of a fully connected network as a hidden Markov chain whose states are visual words.

    The activations of a layer are one observation of a word, and the words of successive layers form a chain [1]_::

        P(h, x) = P(h_1) prod_l P(h_l+1 | h_l) prod_l p(x_l | h_l)

    Densities and transitions are fitted jointly.  The estimator replaces :class:`LayerDictionary` in a pipeline and
    returns word maps for :class:`InferenceGraph`.  :meth:`paths` returns the path of each example through the words.

    Parameters
    ----------
    n_components : int or dict of str to int, default=50
        Number of words of each layer, or by layer name.
    layer_sizes : sequence of int, default=None
        Number of columns of each layer if X is one array (n, sum of d).  One of them may be -1, for the remaining
        columns.  None treats all columns as one layer.
    covariance_type : {"diag", "tied_diag", "spherical"}, default="diag"
        Variances of the words; see :class:`LayerDictionary`.
    emission : {"gaussian", "rectified", "auto"}, default="auto"
        Densities of the words; see :class:`LayerDictionary`.
    solver : {"online", "em"}, default="online"
        "online" takes a step of stepwise EM [2]_ after each `batch_size` examples.  "em" passes over all examples
        before each step and never lowers the penalised likelihood.
    max_samples : int, default=130_000
        Maximum number of training examples, further limited to 256 MiB.
    max_iter : int, default=100
        Maximum number of passes over the examples.
    tol : float, default=1e-3
        Training stops when a pass gains less than this, in nats per example and channel.
    batch_size : int, default=1024
        Examples per step of "online" and of :meth:`partial_fit`.
    smoothing : float, default=1.0
        Pseudo-count, in examples, of each row of a table, divided evenly among the cells.
    reg_covar : float, default=0.1
        Floor of the variance of a word, as a fraction of the channel's variance; see :class:`LayerDictionary`.
    keep_proba : bool, default=False
        Whether word maps hold the posterior and the log-density of the word of each layer.
    keep_patches : bool, default=True
        Whether to store patches of typical images, for displays.
    word_names : dict of (str, int) or str to str, default=None
        Names of words; see :class:`LayerDictionary`.
    verbose : int, default=0
        Whether to show progress.
    random_state : int, RandomState instance or None, default=None
        Determines the sample, initial means, order of examples, and draws of :meth:`sample`.

    Attributes
    ----------
    startprob_ : array of shape (K_1,)
        Distribution of the word of the lowest layer.
    transmats_ : list of array of shape (K_l, K_l+1)
        P(word of the layer above | word), one per pair of layers.
    decisionprob_ : array of shape (K_L, n_classes) or None
        P(decision | word of the last layer); None if no decisions were observed.
    classes_ : array of shape (n_classes,) or None
        The outputs of the network, or the distinct values of y for plain arrays.
    layers_, mixtures_, emissions_, vocabulary_, dead_words_
        As in :class:`LayerDictionary`; the weights of mixtures are the marginal probabilities of words.  Plain arrays
        are layers "dense", or "dense0", "dense1" and so on.
    lower_bounds_ : list of float
        Mean log-likelihood of the examples and their decisions in nats, after each pass; penalised by `smoothing` with
        ``solver="em"``.
    lower_bound_ : float
        The last entry of `lower_bounds_`.
    n_iter_ : int
        Number of passes over the examples; number of steps after :meth:`partial_fit`.
    converged_ : bool
        True if `fit` converged.
    n_features_in_ : int
        Number of columns if X holds plain arrays.

    See Also
    --------
    LayerDictionary : Independent mixtures, also for maps with many locations.
    PathDisplay : Draws paths.

    Notes
    -----
    Decisions are observed only in `fit` and `partial_fit`, as the last node of the chain, and by :meth:`paths` with y.

    X may be feature maps, a list of arrays (n, d_l), or one array (n, sum of d).  For plain arrays, y replaces the
    decisions, and `transform` returns the posteriors of the words of all layers.

    References
    ----------
    .. [1] Konforti, Shpigler, Lerner and Bar-Hillel, "SIGN: Statistical Inference Graphs Based on Probabilistic
       Network Activity Interpretation", IEEE TPAMI, 2023.
    .. [2] Cappe and Moulines, "On-line expectation-maximization algorithm for latent data models", JRSS B 71(3), 2009.

    Examples
    --------
    >>> import numpy as np
    >>> from skgmmcnn import LayerHMM
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 200)
    >>> layers = [rng.normal(6 * y[:, None], 1, (200, 3)), rng.normal(-6 * y[:, None], 1, (200, 2))]
    >>> hmm = LayerHMM(2, solver="em", random_state=0).fit(layers, y)
    >>> bool((hmm.predict(layers) == y).all())
    True
    >>> hmm.paths(layers).path_table().shares.round(1)
    array([0.6, 0.4])
    """

    _parameter_constraints: ClassVar[dict] = {
        **WordModel._parameter_constraints,
        "layer_sizes": ["array-like", None],
        "solver": [StrOptions({"online", "em"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "smoothing": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_components: int | Mapping[str, int] = 50,
        *,
        layer_sizes: Sequence[int] | None = None,
        covariance_type: str = "diag",
        emission: str = "auto",
        solver: str = "online",
        max_samples: int = 130_000,
        max_iter: int = 100,
        tol: float = 1e-3,
        batch_size: int = 1024,
        smoothing: float = 1.0,
        reg_covar: float = 0.1,
        keep_proba: bool = False,
        keep_patches: bool = True,
        word_names: Mapping[tuple[str, int] | str, str] | None = None,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.layer_sizes = layer_sizes
        self.covariance_type = covariance_type
        self.emission = emission
        self.solver = solver
        self.max_samples = max_samples
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.smoothing = smoothing
        self.reg_covar = reg_covar
        self.keep_proba = keep_proba
        self.keep_patches = keep_patches
        self.word_names = word_names
        self.verbose = verbose
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def _fit(self, X: Any, y: Any) -> WordMaps:
        maps, classes, targets = self._check_examples(X, y, reset=True)
        sample, examples = self._sample(maps, targets)
        chain = self._start(maps, sample, classes)
        with reproducible(), passes(self.max_iter, "chain", shown=self.verbose) as report:
            training = Training(
                self.max_iter,
                self.tol * examples.values.shape[1],
                momentum=0,  # longer steps overshoot: responsibilities are nearly 0 or 1
                batch_size=self.batch_size,
                generator=sample.generator,
                report=report,
            )
            fitted = SOLVERS[self.solver](examples, chain, training)
        self._set_state(fitted.state, maps, classes)
        self._set_course(fitted.lower_bounds, fitted.n_iter, fitted.converged)
        if not fitted.converged:
            self._warn_unconverged("The chain")
        return self._label(maps, illustrated=True)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, classes: Any = None) -> LayerHMM:
        """Take a step of online EM for each `batch_size` examples of X, which are not stored.

        At most `max_samples` examples are used.  The first call also chooses initial means and variance floors; after
        :meth:`fit`, steps continue from there.  Representatives are not collected.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activations of fully connected layers.
        y : array-like of shape (n,), default=None
            As in :meth:`fit`.
        classes : array-like of shape (n_classes,), default=None
            For plain arrays, in the first call: all possible values of y.  The values in y if None.

        Returns
        -------
        self : LayerHMM
            The chain after the steps.
        """
        state: OnlineState | None = getattr(self, "_state", None)
        maps, classes, targets = self._check_examples(X, y, reset=state is None, classes=classes)
        sample, examples = self._sample(maps, targets)
        chain = self._start(maps, sample, classes) if state is None else state.mixture
        with reproducible():
            bound, state = online_pass(in_blocks(examples, self.batch_size), chain, state)
        self._set_state(state, maps, classes)
        self._set_course([*getattr(self, "lower_bounds_", []), bound], state.n_steps, converged=False)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log-likelihood of each example.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activations of the layers.

        Returns
        -------
        log_likelihood : array of shape (n,)
            In nats.
        """
        (log_likelihood,), _ = self._infer(X, lambda *model: state_posteriors(*model)[:1])
        return log_likelihood

    def posteriors(self, X: Any) -> dict[str, np.ndarray]:
        """Return the posterior of each word, by the forward-backward recursions.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activations of the layers.

        Returns
        -------
        posteriors : dict of str to array of shape (n, K)
            By layer; each row sums to one.
        """
        posteriors, _ = self._infer(X, lambda *model: state_posteriors(*model)[1])
        return dict(zip(self.layers_, posteriors, strict=True))

    def decode(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the most likely path of each example, by the Viterbi recursion.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activations of the layers.

        Returns
        -------
        log_proba : array of shape (n,)
            Joint log-density of path and activations, in nats.
        paths : int array of shape (n, L)
            One word per layer.
        """
        (log_proba, paths), _ = self._infer(X, viterbi)
        return log_proba, paths

    def predict(self, X: Any) -> np.ndarray:
        """Predict the decision.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activations of the layers.

        Returns
        -------
        decisions : array of shape (n,)
            Output indices, or values of y for plain arrays.
        """
        columns = self.predict_proba(X).argmax(1)
        return self.classes_[columns]  # type: ignore[index]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each decision given the activations.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activations of the layers.

        Returns
        -------
        probabilities : array of shape (n, n_classes)
            Columns in the order of `classes_`; each row sums to one.
        """
        self._check_decides()
        return self.posteriors(X)[self.layers_[-1]] @ self.decisionprob_

    def paths(self, X: Any, y: Any = None) -> InferencePaths:
        """Return the most likely path of each example, with probabilities.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activations of the layers.
        y : array-like of shape (n,), default=None
            Decisions to condition on: output indices or class names, or values of y for plain arrays.  None does not
            condition on decisions.

        Returns
        -------
        paths : InferencePaths
            Words as from :meth:`decode` for ``y=None``, with probabilities given activations and y.
        """
        check_is_fitted(self)
        maps = self._check(X, None, reset=False)
        targets = None
        if y is not None:
            self._check_decides()
            targets = maps.spec.encode(y, len(maps)) if isinstance(X, FeatureMaps) else self._encode(y, self.classes_)
        (words, path_proba, posteriors, last_posteriors), network_decisions = self._infer(
            maps, likeliest_paths, targets
        )
        decisions = targets
        class_tables = None
        if self.decisionprob_ is not None:
            class_tables = tuple(table.numpy() for table in self._chain.class_tables())
            if targets is None:
                decisions = (last_posteriors @ self.decisionprob_).argmax(1)
        if targets is None and maps.spec.n_outputs:
            decisions = network_decisions
        steps = [self.startprob_[words[:, 0]]]
        steps += [table[words[:, i], words[:, i + 1]] for i, table in enumerate(self.transmats_)]
        with np.errstate(divide="ignore"):
            log_proba = np.log(np.stack(steps, axis=1))
        return InferencePaths(
            layers=self.layers_,
            n_words=tuple(self.vocabulary_.n_words.values()),
            words=words,
            log_proba=log_proba,
            posteriors=posteriors,
            path_proba=path_proba,
            decisions=decisions,
            class_tables=class_tables,
        )

    def sample(self, n_samples: int = 1) -> tuple[list[np.ndarray], np.ndarray]:
        """Draw activations and words.

        Parameters
        ----------
        n_samples : int, default=1
            Number of examples.

        Returns
        -------
        X : list of array of shape (n_samples, d_l)
            Activations of each layer, with exact zeros from rectified densities.
        words : int array of shape (n_samples, L)
            Words from which X was drawn.
        """
        check_is_fitted(self)
        chain = self._chain
        generator = self._generator()
        with sampling(n_samples, sum(chain.sizes)):
            words = [torch.multinomial(chain.start, int(n_samples), replacement=True, generator=generator)]
            for table in chain.transitions:
                words.append(torch.multinomial(table[words[-1]], 1, generator=generator).squeeze(1))
            rows = [mixture.emit(word, generator) for mixture, word in zip(chain.mixtures, words, strict=True)]
        return [part.numpy() for part in rows], torch.stack(words, 1).numpy()

    def _as_maps(self, X: Any, *, reset: bool) -> FeatureMaps:
        if isinstance(X, (list, tuple)) and len(X) and all(np.ndim(part) == 2 for part in X):
            arrays = [check_array(part, dtype=[np.float64, np.float32], input_name="X") for part in X]
            check_consistent_length(*arrays)
            if reset:
                self.n_features_in_ = sum(array.shape[1] for array in arrays)
        else:
            whole = validate_data(self, X, dtype=[np.float64, np.float32], reset=reset)
            arrays = np.split(whole, np.cumsum(self._sizes(whole.shape[1]))[:-1], axis=1)
        names = [f"dense{i}" for i in range(len(arrays))] if len(arrays) > 1 else ["dense"]
        if not reset and len(arrays) == len(self.layers_):
            names = list(self.layers_)
        return maps_of_arrays(dict(zip(names, arrays, strict=True)))

    def _sizes(self, n_columns: int) -> list[int]:
        """Return the number of columns of each layer."""
        if self.layer_sizes is None:
            return [n_columns]
        sizes = [int(size) for size in self.layer_sizes]
        if sizes.count(-1) == 1:
            sizes[sizes.index(-1)] = n_columns - sum(size for size in sizes if size != -1)
        if not sizes or min(sizes) < 1 or sum(sizes) != n_columns:
            raise ValueError(
                f"layer_sizes={list(self.layer_sizes)} does not divide the {n_columns} feature(s) of X (n_features = "
                f"{n_columns}) among layers of at least one each."
            )
        return sizes

    def _check(self, X: Any, y: Any, *, reset: bool) -> FeatureMaps:
        maps = super()._check(X, y if isinstance(X, FeatureMaps) else None, reset=reset)
        for layer, (_, height, width) in maps.shapes.items():
            if (height, width) != (1, 1):
                raise ValueError(
                    f"LayerHMM needs layers with one location; layer {layer!r} has a map of {height} x {width}. Use "
                    "LayerDictionary, or other layers."
                )
        return maps

    def _check_examples(
        self, X: Any, y: Any, *, reset: bool, classes: Any = None
    ) -> tuple[FeatureMaps, Any, np.ndarray | None]:
        """Return X as maps, the distinct decisions, and the indices of the decisions for plain arrays."""
        maps = self._check_training(X, y, reset=reset)
        if isinstance(X, FeatureMaps):
            return maps, np.arange(maps.spec.n_outputs), None
        if not reset and (y is None) != (self.classes_ is None):
            raise ValueError("y must be given in all calls of partial_fit, or in none.")
        if y is None:
            return maps, None, None
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        check_consistent_length(maps, y)
        classes = np.unique(y if classes is None else classes) if reset else self.classes_
        return maps, classes, self._encode(y, classes)

    @staticmethod
    def _encode(y: Any, classes: Any) -> np.ndarray:
        return LabelEncoder().fit(classes).transform(y)

    def _sample(self, maps: FeatureMaps, targets: np.ndarray | None) -> tuple[Sample, Rows]:
        """Return a sample of examples, with the layers side by side, and with their decisions."""
        samples, decisions = draw(maps, self.max_samples, self.random_state, {"chain": maps.layers})
        sample = samples["chain"]
        if maps.spec.n_outputs:
            targets = decisions
        observed = None if targets is None else torch.from_numpy(targets[sample.images])
        return sample, Rows(sample.rows, targets=observed, shared=True)

    def _start(self, maps: FeatureMaps, sample: Sample, classes: np.ndarray | None) -> Chain:
        """Return the initial chain."""
        parts = sample.rows.split([channels for channels, _, _ in maps.shapes.values()], 1)
        layers = zip(maps.layers, parts, strict=True)
        mixtures = tuple(self._initialize(layer, sample._replace(rows=part)) for layer, part in layers)
        tables = uniform([len(mixture.weights) for mixture in mixtures], 0 if classes is None else len(classes))
        chain = Chain((), mixtures, float(self.smoothing))
        return chain.with_tables([table.to(sample.rows.device) for table in tables])

    def _set_state(self, state: OnlineState, maps: FeatureMaps, classes: np.ndarray | None) -> None:
        self._state = state.to("cpu")
        self._chain = chain = self._state.mixture
        self.classes_ = classes
        self.startprob_ = chain.start.numpy()
        self.transmats_ = [table.numpy() for table in chain.transitions]
        self.decisionprob_ = None if chain.decision is None else chain.decision.numpy()
        mixtures = dict(zip(maps.layers, chain.mixtures, strict=True))
        self._set_words(maps, mixtures, [self.startprob_, *self.transmats_])

    def _check_decides(self) -> None:
        check_is_fitted(self)
        if self.classes_ is None:
            raise ValueError("The chain has no decisions: it was fitted on plain arrays without y.")

    def _assigner(self) -> Assign:
        scorer: ChainScorer | None = None

        def assign_words(activations: Mapping[str, Tensor], scored: bool) -> Assigned:
            nonlocal scorer
            values = joined(activations, self.layers_)
            scorer = scorer or self._chain.scorer(values)
            parts = scorer.infer(assign, values)
            for layer, assigned in zip(self.layers_, zip(*parts, strict=True), strict=True):
                yield layer, Assignment(*map(torch.cat, zip(*assigned, strict=True)))

        return assign_words

    def _log_likelihood(self, X: Any) -> float:
        return float(self.score_samples(X).mean())

    def _posterior_table(self, maps: FeatureMaps) -> np.ndarray:
        return np.concatenate(list(self.posteriors(maps).values()), axis=1)

    def _infer(
        self, X: Any, recursion: Callable[..., Sequence[Tensor]], targets: np.ndarray | None = None
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the results of a recursion for all examples, and the decisions of the network (n,)."""
        check_is_fitted(self)
        results, decisions, scorer = [], [], None
        maps = self._check(X, None, reset=False)
        for batch in maps.batches():
            values = joined(batch.activations, self.layers_)
            observed = None if targets is None else torch.from_numpy(targets[batch.rows])
            with exact_float32():
                scorer = scorer or self._chain.scorer(values)
                blocks = scorer.infer(recursion, values, observed)
                results += [[part.numpy(force=True) for part in parts] for parts in blocks]
            decisions.append(batch.decisions)
        return [np.concatenate(parts) for parts in zip(*results, strict=True)], np.concatenate(decisions)
