"""LayerHMM: the layers of a fully connected network as a hidden Markov chain."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import Tensor

from .._compat import Interval, StrOptions, fit_context, wrap_table
from .._device import exact_float32
from .._distributed import gathered, my_share
from .._threads import one_thread
from ..dictionary._base import WordModel, check_shares, vocabulary_of
from ..dictionary._reservoir import Reservoir
from ..dictionary._training import Sample, begin, choose_emission, passes
from ..dictionary._words import WordMaps
from ..features import FeatureMaps
from ..mixture._solvers import (
    Fitted,
    OnlineState,
    Schedule,
    Training,
    fit_em,
    fit_online,
    in_blocks,
    online_pass,
)
from ._chain import Chain, ChainLabeller, ChainScorer, Examples, joined, uniform
from ._paths import InferencePaths
from ._recursions import forward, forward_backward, likeliest_paths, log_evidence, state_posteriors, viterbi

_SOLVERS: dict[str, Callable[[Examples, Chain, Training], Fitted[Chain]]] = {"online": fit_online, "em": fit_em}


class LayerHMM(WordModel, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Model the layers of a fully connected network as a hidden Markov chain, whose states are visual words.

    The whole activity of a layer is one observation of a word, and words follow each other from layer to layer [1]_::

        P(h, x) = P(h_1) prod_l P(h_l+1 | h_l) prod_l p(x_l | h_l)

    Densities and transitions are fitted jointly.  The estimator stands where :class:`LayerDictionary` does, and gives
    word maps from which :class:`InferenceGraph` follows unchanged.  It also tells which path through the words an
    example takes; see :meth:`paths`.

    Parameters
    ----------
    n_components : int or dict of str to int, default=50
        Number of words, of every layer or by layer name.
    layer_sizes : sequence of int, default=None
        Where X is one array (n, sum of d): how many of its columns belong to each layer.  One of them may be -1: what
        the others leave.  None takes all columns as one layer.
    covariance_type : {"diag", "tied_diag", "spherical"}, default="diag"
        Whose variances the words' densities have; see :class:`LayerDictionary`.
    emission : {"gaussian", "rectified", "auto"}, default="auto"
        "rectified" models the values before a ReLU, with ``covariance_type="diag"``; "auto" does so there for layers at
        least a tenth of whose values are exact zeros, and none negative.
    solver : {"online", "em"}, default="online"
        "online" takes a step of stepwise EM [2]_ after each `batch_size` examples; "em" passes over all examples before
        each step, and never lowers the penalised likelihood.
    max_samples : int, default=200_000
        Most examples to train on; fewer where they would take more than 256 MiB.
    max_iter : int, default=100
        Most passes over them.
    tol : float, default=1e-3
        Training stops when a pass gains less than this, in nats per example and channel.
    batch_size : int, default=1024
        Examples per step of "online" and of :meth:`partial_fit`.
    learning_offset : float, default=2.0
        With `learning_decay`, the length of steps: step i of stepwise EM goes ``(i + learning_offset) **
        -learning_decay`` of the way to what the examples at hand say.  At least 1.
    learning_decay : float in (0.5, 1], default=0.6
        See `learning_offset`.
    burn_in : int, default=0
        First steps in which statistics are averaged, and parameters left as they are.
    smoothing : float, default=1.0
        Weight of the belief that all cells of a row of a table are alike, in examples.
    reg_covar : float, default=0.1
        Smallest variance of a word, as a share of the channel's variance; see :class:`LayerDictionary`.
    startprob_init : array-like of shape (K_1,), default=None
        Distribution of the lowest layer's word to start from.
    transmats_init : sequence of array-like of shape (K_l, K_l+1), default=None
        Tables to start from, one per pair of layers; cells that are 0 stay 0.
    keep_proba : bool, default=False
        Whether word maps carry the posterior and the log-density of each layer's word.
    keep_patches : bool, default=True
        Whether pictures of typical images are stored, for drawing.
    word_names : dict of (str, int) or str to str, default=None
        Names for words; see :class:`LayerDictionary`.
    verbose : int, default=0
        Whether to show progress.
    random_state : int, RandomState instance or None, default=None
        Chooses the sample, starting means, the order of examples, and what :meth:`sample` draws.

    Attributes
    ----------
    startprob_ : array of shape (K_1,)
        Distribution of the lowest layer's word.
    transmats_ : list of array of shape (K_l, K_l+1)
        P(word of the layer above | word), one per pair of layers.
    decisionprob_ : array of shape (K_L, n_classes) or None
        P(decision | word of the last layer); None where there was no decision to observe.
    classes_ : array of shape (n_classes,) or None
        The network's outputs, or for plain arrays the distinct values of y.
    mixtures_ : dict of str to Mixture
        The words' densities by layer, with `means_` and `covariances_`; `weights_` are the words' marginal
        probabilities.
    layers_ : tuple of str
        The layers, in network order; "dense", or "dense0", "dense1" and so on, for plain arrays.
    emissions_ : dict of str to str
        "gaussian" or "rectified", by layer.
    vocabulary_ : Vocabulary
        Sizes, fingerprint, representatives and statistics of the words.
    dead_words_ : dict of str to int array
        Words that no fitted example shows, by layer.
    lower_bounds_ : list of float
        Mean log-likelihood of the examples and their decisions in nats, after every pass; with `solver="em"` the
        penalised one that `smoothing` asks for.
    lower_bound_ : float
        The last of them.
    n_iter_ : int
        Passes over the examples; after :meth:`partial_fit` the number of steps.
    converged_ : bool
        Whether `fit` converged.
    n_features_in_ : int
        Number of columns, where X holds plain arrays.

    See Also
    --------
    LayerDictionary : Independent mixtures, also for maps of many locations.
    PathDisplay : Draws paths.

    Notes
    -----
    Decisions are observed in `fit` and `partial_fit` only, as a last node of the chain.  All that is asked of the chain
    afterwards is told from activations alone; :meth:`paths_given` is the one exception.

    X may be feature maps, a list of arrays (n, d_l), or one array (n, sum of d).  For plain arrays, y takes the place
    of decisions, and `transform` returns posteriors.

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
    >>> log_proba, paths = hmm.decode(layers)
    >>> paths.shape
    (200, 2)
    """

    _parameter_constraints: ClassVar[dict] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), dict],
        "layer_sizes": ["array-like", None],
        "covariance_type": [StrOptions({"tied_diag", "diag", "spherical"})],
        "emission": [StrOptions({"gaussian", "rectified", "auto"})],
        "solver": [StrOptions({"online", "em"})],
        "max_samples": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_offset": [Interval(Real, 1, None, closed="left")],
        "learning_decay": [Interval(Real, 0.5, 1, closed="right")],
        "burn_in": [Interval(Integral, 0, None, closed="left")],
        "smoothing": [Interval(Real, 0, None, closed="left")],
        "reg_covar": [Interval(Real, 0, None, closed="neither")],
        "startprob_init": ["array-like", None],
        "transmats_init": ["array-like", None],
        "keep_proba": ["boolean"],
        "keep_patches": ["boolean"],
        "word_names": [dict, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components: int | Mapping[str, int] = 50,
        *,
        layer_sizes: Sequence[int] | None = None,
        covariance_type: str = "diag",
        emission: str = "auto",
        solver: str = "online",
        max_samples: int = 200_000,
        max_iter: int = 100,
        tol: float = 1e-3,
        batch_size: int = 1024,
        learning_offset: float = 2.0,
        learning_decay: float = 0.6,
        burn_in: int = 0,
        smoothing: float = 1.0,
        reg_covar: float = 0.1,
        startprob_init: Any = None,
        transmats_init: Any = None,
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
        self.learning_offset = learning_offset
        self.learning_decay = learning_decay
        self.burn_in = burn_in
        self.smoothing = smoothing
        self.reg_covar = reg_covar
        self.startprob_init = startprob_init
        self.transmats_init = transmats_init
        self.keep_proba = keep_proba
        self.keep_patches = keep_patches
        self.word_names = word_names
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> LayerHMM:
        """Train densities and transitions jointly, and find each word's most typical examples.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activity of fully connected layers.
        y : array-like of shape (n,), default=None
            For plain arrays the decisions.  For feature maps, whose network decides, labels that are only checked.

        Returns
        -------
        self : LayerHMM
            The fitted chain.
        """
        self._fit(X, y)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Fit, and return the words of X without running the network again.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activity of fully connected layers.
        y : array-like of shape (n,), default=None
            As in :meth:`fit`.

        Returns
        -------
        words : WordMaps or array of shape (n, sum of K)
            As from :meth:`transform`.
        """
        words = self._fit(X, y)
        return words if isinstance(X, FeatureMaps) else self.transform(X)

    @fit_context(prefer_skip_nested_validation=True)
    def _fit(self, X: Any, y: Any) -> WordMaps:
        maps, classes, targets = self._check_examples(X, y, reset=True)
        self._check_sizes(maps)
        examples, generator = self._sample(maps, targets)
        chain, emissions = self._start(maps, examples, generator, classes)
        with exact_float32(), one_thread(), passes(self.max_iter, "chain", shown=self.verbose) as report:
            training = Training(
                self.max_iter,
                self.tol * examples.values.shape[1],
                momentum=0,  # responsibilities are nearly 0 or 1, so every longer step goes too far
                batch_size=self.batch_size,
                generator=generator,
                report=report,
                schedule=self._schedule(),
            )
            fitted = _SOLVERS[self.solver](examples, chain, training)
        self._set_state(fitted.state, maps.layers, emissions, classes)
        self._network = maps.spec.fingerprint
        self.lower_bounds_ = fitted.lower_bounds
        self.lower_bound_ = fitted.lower_bounds[-1]
        self.n_iter_ = fitted.n_iter
        self.converged_ = fitted.converged
        if not fitted.converged:
            warnings.warn(
                f"The chain did not converge in {self.max_iter} passes; raise max_iter or tol.",
                ConvergenceWarning,
                stacklevel=4,
            )
        return self._label(maps, illustrated=True)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, classes: Any = None) -> LayerHMM:
        """Take a step of online EM for each `batch_size` examples of X, or of `max_samples` of them; none are kept.

        A first call also chooses starting means and variance floors; after :meth:`fit`, steps go on from there.
        Representatives are not collected; see :meth:`collect_representatives`.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activity of fully connected layers.
        y : array-like of shape (n,), default=None
            As in :meth:`fit`.
        classes : array-like of shape (n_classes,), default=None
            For plain arrays, in a first call: all values that y will ever take; those that it takes now if None.

        Returns
        -------
        self : LayerHMM
            The chain after the steps.
        """
        state: OnlineState[Chain] | None = getattr(self, "_state", None)
        maps, classes, targets = self._check_examples(X, y, reset=state is None, classes=classes)
        if state is None:
            self._check_sizes(maps)
        examples, generator = self._sample(maps, targets)
        if state is None:
            chain, emissions = self._start(maps, examples, generator, classes)
        else:
            chain, emissions = state.mixture, self.emissions_
        with exact_float32(), one_thread():
            bound, state = online_pass(in_blocks(examples, self.batch_size), chain, state, self._schedule())
        self._set_state(state, maps.layers, emissions, classes)
        self._network = maps.spec.fingerprint
        self.lower_bound_ = bound
        self.lower_bounds_ = [*getattr(self, "lower_bounds_", []), bound]
        self.n_iter_ = state.n_steps
        self.converged_ = False
        return self

    def transform(self, X: Any) -> Any:
        """Return the word of every layer: the likeliest one by its posterior, given the activity of all layers.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activity of the layers.

        Returns
        -------
        words : WordMaps or array of shape (n, sum of K)
            Word maps for feature maps; posteriors, layer by layer, for plain arrays.
        """
        check_is_fitted(self)
        maps = self._check(X, None, reset=False)
        if isinstance(X, FeatureMaps):
            return self._label(maps, illustrated=False)
        return wrap_table(self, np.concatenate(list(self._posteriors(maps).values()), axis=1), X)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-likelihood of the examples.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activity of the layers.
        y : object
            Ignored.

        Returns
        -------
        score : float
            In nats per example.
        """
        return float(self.score_samples(X).mean())

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log-likelihood of every example, by the forward recursion.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activity of the layers.

        Returns
        -------
        log_likelihood : array of shape (n,)
            In nats.
        """
        return self.score_layers(X).sum(1)

    def score_layers(self, X: Any) -> np.ndarray:
        """Return the log-density of every layer's activity given that of the layers below it.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activity of the layers.

        Returns
        -------
        log_density : array of shape (n, L)
            In nats; rows sum to :meth:`score_samples`.
        """
        (evidence,) = self._ask(X, lambda *model: (log_evidence(forward(*model)),))
        return np.diff(evidence, axis=1, prepend=0)

    def posteriors(self, X: Any) -> dict[str, np.ndarray]:
        """Return the posterior of every word, by the forward-backward recursions.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activity of the layers.

        Returns
        -------
        posteriors : dict of str to array of shape (n, K)
            By layer; each row sums to one.
        """
        check_is_fitted(self)
        return self._posteriors(self._check(X, None, reset=False))

    def decode(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the likeliest path of every example, by the Viterbi recursion.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activity of the layers.

        Returns
        -------
        log_proba : array of shape (n,)
            Joint log-density of path and activity, in nats.
        paths : int array of shape (n, L)
            One word per layer.
        """
        log_proba, paths = self._ask(X, viterbi)
        return log_proba, paths

    def predict(self, X: Any) -> np.ndarray:
        """Return the decision that the chain expects.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activity of the layers.

        Returns
        -------
        decisions : array of shape (n,)
            Output numbers, or for plain arrays values of y.
        """
        found = self.predict_proba(X).argmax(1)
        return self._classes()[found]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of every decision, given the activity of the layers.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activity of the layers.

        Returns
        -------
        probabilities : array of shape (n, n_classes)
            Columns in the order of `classes_`; each row sums to one.
        """
        self._classes()
        return self.posteriors(X)[self.layers_[-1]] @ self.decisionprob_

    def paths(self, X: Any) -> InferencePaths:
        """Return the likeliest path of every example with its probabilities.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activity of the layers.

        Returns
        -------
        paths : InferencePaths
            As from :meth:`decode`, told from activations alone.
        """
        check_is_fitted(self)
        return self._paths(self._check(X, None, reset=False), None)

    def paths_given(self, X: Any, y: Any) -> InferencePaths:
        """Return the likeliest path of every example if its decision were y.

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activity of the layers.
        y : array-like of shape (n,)
            Decisions to condition on: output numbers or class names, or for plain arrays values of y.

        Returns
        -------
        paths : InferencePaths
            Paths that end in y, with probabilities given both.
        """
        classes = self._classes()
        maps = self._check(X, None, reset=False)
        of_network = isinstance(X, FeatureMaps)
        targets = maps.spec.encode(y, len(maps)) if of_network else _encoded(column_or_1d(y), classes)
        return self._paths(maps, targets)

    def transition_counts(self, X: Any) -> dict[tuple[str, str], np.ndarray]:
        """Return how often words are expected to follow each other, over all paths of every example.

        Soft counts, next to those of the likeliest paths alone (:meth:`InferencePaths.transition_counts`).

        Parameters
        ----------
        X : FeatureMaps, list of array-like of shape (n, d_l), or array-like of shape (n, sum of d)
            Activity of the layers.

        Returns
        -------
        counts : dict of (upper, lower) to array of shape (K_upper, K_lower)
            For successive layers, and for ``("decision", layers_[-1])`` where X has decisions.
        """
        check_is_fitted(self)
        maps = self._check(X, None, reset=False)
        total = [np.zeros(table.shape) for table in self.transmats_]
        decided = np.zeros((maps.spec.n_outputs, self.vocabulary_.n_words[self.layers_[-1]]))
        for model, decisions in self._scored(maps):
            found = forward_backward(*model)
            total = [mine + counts.numpy(force=True) for mine, counts in zip(total, found.pairs, strict=True)]
            if maps.spec.n_outputs:
                np.add.at(decided, decisions, found.states[-1].numpy(force=True))
        pairs = zip(self.layers_[1:], self.layers_[:-1], strict=True)
        counts_of = {pair: part.T for pair, part in zip(pairs, total, strict=True)}
        return counts_of | ({("decision", self.layers_[-1]): decided} if maps.spec.n_outputs else {})

    def sample(self, n_samples: int = 1) -> tuple[list[np.ndarray], np.ndarray]:
        """Draw whole chains.

        Parameters
        ----------
        n_samples : int, default=1
            How many.

        Returns
        -------
        X : list of array of shape (n_samples, d_l)
            Activity of each layer; exact zeros where a rectified density draws a negative value.
        words : int array of shape (n_samples, L)
            The words that it was drawn from.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or isinstance(n_samples, bool) or n_samples < 1:
            raise ValueError(f"n_samples must be an integer of at least 1; got {n_samples!r}.")
        generator = torch.Generator().manual_seed(int(check_random_state(self.random_state).randint(2**31)))
        words = [torch.multinomial(self._chain.start, n_samples, replacement=True, generator=generator)]
        for table in self._chain.tables:
            words.append(torch.multinomial(table[words[-1]], 1, generator=generator).squeeze(1))
        rows = [
            mixture.emit(word, generator).numpy() for mixture, word in zip(self._chain.mixtures, words, strict=True)
        ]
        return rows, torch.stack(words, 1).numpy()

    def _as_maps(self, X: Any, *, reset: bool) -> FeatureMaps:
        if isinstance(X, (list, tuple)) and len(X) and all(np.ndim(part) == 2 for part in X):
            arrays = [check_array(part, dtype=[np.float64, np.float32], input_name="X") for part in X]
            check_consistent_length(*arrays)
            if reset:
                self.n_features_in_ = sum(array.shape[1] for array in arrays)
        else:
            if getattr(X, "ndim", 2) > 2:
                raise ValueError(
                    f"LayerHMM reads FeatureMaps, a list of 2-D arrays, or a 2-D array; X has {X.ndim} dimensions. "
                    "Images go through a FeatureExtractor first."
                )
            whole = validate_data(self, X, dtype=[np.float64, np.float32], reset=reset)
            arrays = np.split(whole, np.cumsum(self._sizes(whole.shape[1]))[:-1], axis=1)
        names = [f"dense{i}" for i in range(len(arrays))] if len(arrays) > 1 else ["dense"]
        if not reset and len(arrays) == len(self.layers_):
            names = list(self.layers_)
        return FeatureMaps.from_arrays(dict(zip(names, arrays, strict=True)))

    def _sizes(self, n_columns: int) -> list[int]:
        """Return how many of the columns of one array belong to each layer."""
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
                    f"LayerHMM models fully connected layers, of one location each; layer {layer!r} has a map of "
                    f"{height} x {width}. Use LayerDictionary for it, or name other layers."
                )
        return maps

    def _check_examples(
        self, X: Any, y: Any, *, reset: bool, classes: Any = None
    ) -> tuple[FeatureMaps, Any, np.ndarray | None]:
        """Return X as maps, the distinct decisions, and for plain arrays those of the examples as their numbers."""
        maps = self._check(X, y, reset=reset)
        check_shares(maps)
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
        return maps, classes, _encoded(y, classes)

    def _sample(self, maps: FeatureMaps, targets: np.ndarray | None) -> tuple[Examples, torch.Generator]:
        """Run the network once; return the examples to train on, and a source of randomness."""
        seed = gathered(int(check_random_state(self.random_state).randint(2**31, size=1)[0]))[0]
        n_channels = sum(shape[0] for shape in maps.shapes.values())
        reservoir = Reservoir(len(maps), (n_channels, 1, 1), self.max_samples, seed)
        decisions = []
        mine = my_share(len(maps))
        for batch in maps[mine].batches():
            decisions.append(batch.decisions)
            reservoir.add(mine.start + batch.start, joined(batch.activations, maps.layers))
        reservoir.merge()
        values, images = reservoir.sample()
        if maps.spec.n_outputs:
            targets = np.concatenate(gathered(np.concatenate(decisions)))
        chosen = None if targets is None else torch.from_numpy(targets[images])
        return Examples(values, chosen, shared=True), torch.Generator().manual_seed(seed)

    def _start(
        self, maps: FeatureMaps, examples: Examples, generator: torch.Generator, classes: np.ndarray | None
    ) -> tuple[Chain, dict[str, str]]:
        """Return the chain from which training starts, and the emissions that were chosen."""
        sizes = [maps.shapes[layer][0] for layer in maps.layers]
        rows = dict(zip(maps.layers, examples.values.split(sizes, 1), strict=True))
        emissions = {
            layer: choose_emission(layer, part, self.emission, self.covariance_type) for layer, part in rows.items()
        }
        n_words = [self._n_words(layer) for layer in maps.layers]
        start, tables, decision = uniform(n_words, 0 if classes is None else len(classes))
        if self.startprob_init is not None:
            start = _distributions("startprob_init", self.startprob_init, start)
        if self.transmats_init is not None:
            if len(self.transmats_init) != len(tables):
                raise ValueError(f"transmats_init must hold {len(tables)} tables; got {len(self.transmats_init)}.")
            given = zip(self.transmats_init, tables, strict=True)
            tables = [_distributions(f"transmats_init[{i}]", mine, table) for i, (mine, table) in enumerate(given)]
        mixtures = tuple(
            begin(
                layer,
                Sample(part, np.empty(0), generator),
                n,
                emissions[layer],
                covariance_type=self.covariance_type,
                reg_covar=self.reg_covar,
            )
            for (layer, part), n in zip(rows.items(), n_words, strict=True)
        )
        chain = Chain(start, tuple(tables), mixtures, decision, float(self.smoothing)).to(examples.values.device)
        return chain.with_tables(chain.start, chain.tables, chain.decision), emissions

    def _schedule(self) -> Schedule:
        return Schedule(self.learning_offset, self.learning_decay, self.burn_in)

    def _set_state(
        self, state: OnlineState[Chain], layers: tuple[str, ...], emissions: dict[str, str], classes: np.ndarray | None
    ) -> None:
        self._state = state.to("cpu")
        self._chain = chain = self._state.mixture
        self.layers_ = layers
        self.emissions_ = emissions
        self.classes_ = classes
        self.mixtures_ = dict(zip(layers, chain.mixtures, strict=True))
        self.startprob_ = chain.start.numpy()
        self.transmats_ = [table.numpy() for table in chain.tables]
        self.decisionprob_ = None if chain.decision is None else chain.decision.numpy()
        self.vocabulary_ = vocabulary_of(self.mixtures_, [self.startprob_, *self.transmats_])

    def _classes(self) -> np.ndarray:
        check_is_fitted(self)
        if self.classes_ is None:
            raise ValueError("The chain knows of no decisions: it was fitted on plain arrays without y.")
        return self.classes_

    def _labeller(self) -> ChainLabeller:
        return ChainLabeller(self._chain, self.layers_)

    def _scored(
        self, maps: FeatureMaps, targets: np.ndarray | None = None
    ) -> Iterator[tuple[tuple[Tensor, tuple[Tensor, ...], list[Tensor]], np.ndarray]]:
        """Yield what the recursions take for some examples at a time, and their decisions."""
        scorer: ChainScorer | None = None
        for batch in maps.batches():
            values = joined(batch.activations, self.layers_)
            scorer = scorer or ChainScorer(self._chain, values)
            start = 0
            for block in scorer.blocks(values):
                rows = slice(start, start + len(block[0][0]))
                given = None if targets is None else torch.from_numpy(targets[batch.start :][rows])
                with exact_float32(), one_thread():
                    emissions = scorer.emissions(block, given)
                yield (scorer.chain.start, scorer.chain.tables, emissions), batch.decisions[rows]
                start = rows.stop

    def _ask(self, X: Any, question: Callable[..., Sequence[Tensor]]) -> list[np.ndarray]:
        check_is_fitted(self)
        return self._asked(self._check(X, None, reset=False), question)

    def _asked(
        self, maps: FeatureMaps, question: Callable[..., Sequence[Tensor]], targets: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Return what `question` tells of all examples."""
        answers = [[part.numpy(force=True) for part in question(*model)] for model, _ in self._scored(maps, targets)]
        return [np.concatenate(parts) for parts in zip(*answers, strict=True)]

    def _posteriors(self, maps: FeatureMaps) -> dict[str, np.ndarray]:
        return dict(zip(self.layers_, self._asked(maps, lambda *model: state_posteriors(*model)[1]), strict=True))

    def _paths(self, maps: FeatureMaps, targets: np.ndarray | None) -> InferencePaths:
        answers, decided = [], []
        for model, decisions in self._scored(maps, targets):
            answers.append([part.numpy(force=True) for part in likeliest_paths(*model)])
            decided.append(decisions)
        words, path_proba, posteriors, last = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        if maps.spec.n_outputs and targets is None:
            targets = np.concatenate(decided)
        elif self.decisionprob_ is not None and targets is None:
            targets = (last @ self.decisionprob_).argmax(1)
        class_tables = None
        if self.decisionprob_ is not None:
            class_tables = tuple(table.numpy() for table in self._chain.class_tables())
        with np.errstate(divide="ignore"):
            steps = [self.startprob_[words[:, 0]]]
            steps += [table[words[:, i], words[:, i + 1]] for i, table in enumerate(self.transmats_)]
            log_proba = np.log(np.stack(steps, axis=1))
        return InferencePaths(
            layers=self.layers_,
            n_words=tuple(self.vocabulary_.n_words.values()),
            words=words,
            log_proba=log_proba,
            posteriors=posteriors,
            path_proba=path_proba,
            decisions=targets,
            class_tables=class_tables,
        )


def _encoded(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the place of each value of y among `classes`."""
    places = np.searchsorted(classes, y).clip(0, len(classes) - 1)
    wrong = np.flatnonzero(classes[places] != y)
    if len(wrong):
        raise ValueError(f"y holds {y[wrong[0]]!r}, which is none of the classes {classes.tolist()[:10]}.")
    return places


def _distributions(name: str, given: Any, like: Tensor) -> Tensor:
    """Return `given` as a tensor of distributions of the shape of `like`."""
    array = np.asarray(given, dtype=np.float64)
    if array.shape != tuple(like.shape) or not (array >= 0).all() or not np.allclose(array.sum(-1), 1):
        raise ValueError(
            f"{name} must be of shape {tuple(like.shape)}, with rows of probabilities that sum to one; got shape "
            f"{array.shape}."
        )
    return torch.from_numpy(array / array.sum(-1, keepdims=True))
