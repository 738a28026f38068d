"""DiagonalGaussianMixture: the mixtures of this package as an estimator on rows of numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from .._compat import Interval, StrOptions, fit_context
from .._device import exact_float32, resolve_device
from .._threads import one_thread
from ._em import Mixture, Scorer
from ._emissions import Emission
from ._families import EMISSIONS
from ._sampling import sampling
from ._solvers import OnlineState, Rows, Training, in_blocks, online_pass, train
from ._starts import STARTS, check_scale, moments, start

_BLOCK_ROWS = 2**16


class DiagonalGaussianMixture(DensityMixin, BaseEstimator):
    """Gaussian mixture that reads its rows block by block.

    Names and attributes are those of :class:`sklearn.mixture.GaussianMixture`.  No array of rows times components is
    ever made, products run in the rows' own precision with sums in float64, and a GPU is used where there is one.

    Parameters
    ----------
    n_components : int, default=1
        Number of components, K.
    covariance_type : {"diag", "spherical", "tied_diag"}, default="diag"
        A variance for every component and channel; for every component; or for every channel.
    emission : {"gaussian", "rectified"}, default="gaussian"
        "rectified" models what stands behind a ReLU, x = max(0, y) with Gaussian y; it needs non-negative rows and
        `covariance_type="diag"`.
    solver : {"em", "online", "sgd"}, default="em"
        "em" passes over all rows before each M-step.  "online" takes a step of stepwise EM [1]_ after each block of
        `batch_size` rows; "sgd" a step of Adam on the negative log-likelihood, as [2]_.  "em" ends highest where the
        rows can be passed several times; "online" learns most from the first pass.
    tol : float, default=1e-3
        Training stops when a pass gains less than this, in nats per row.  With "em" the gain is that of a plain step
        in the bound on all rows; with the other solvers, that in the mean over the pass, of which each block is scored
        before it is learnt from.
    reg_covar : float or array-like of shape (d,), default=1e-6
        Smallest variance.  It is a floor: scikit-learn's parameter of this name is added instead.
    max_iter : int, default=100
        Most passes over the rows.
    n_init : int, default=1
        Number of starts, of which the one with the highest bound is kept.
    init_params : {"k-means++", "random_from_data"}, default="k-means++"
        Means to start from: rows far from each other, which finds clusters that lie apart; or random rows, which ended
        higher with hundreds of components on activations.  All components start with the variance of all rows.
    weights_init : array-like of shape (K,), default=None
        Weights to start from.
    means_init : array-like of shape (K, d), default=None
        Means to start from.
    precisions_init : array-like, default=None
        Inverse variances to start from: (K, d) for "diag", (K,) for "spherical", (d,) for "tied_diag".
    momentum : float in [0, 1), default=0.9
        Share of the last step by which "em" goes beyond each M-step, where that raises the likelihood.  0 is
        textbook EM, which takes several times the passes on activations.
    batch_size : int, default=1024
        Rows per step of the solvers "online" and "sgd" and of :meth:`partial_fit`.
    warm_start : bool, default=False
        Whether `fit` starts from the last solution.
    device : str or torch.device, default="auto"
        Where to compute; "auto" takes a GPU when there is one.
    dtype : {"float32", "float64"} or None, default=None
        Precision of the products; None takes that of the rows.
    verbose : int, default=0
        Print the bound after every so many passes.
    random_state : int, RandomState instance or None, default=None
        Chooses starting means, the order of blocks, and samples.

    Attributes
    ----------
    weights_ : array of shape (K,)
        Shares of the components.
    means_ : array of shape (K, d)
        Means; of the values before the ReLU where those are modelled.
    covariances_ : array
        Variances: (K, d) for "diag", (K,) for "spherical", (d,) for "tied_diag".
    precisions_ : array
        Inverses of `covariances_`.
    precisions_cholesky_ : array
        Square roots of `precisions_`.
    mixture_ : Mixture
        All of these as tensors.
    converged_ : bool
        Whether `fit` converged.
    n_iter_ : int
        Passes over the rows; steps after :meth:`partial_fit`.
    lower_bound_ : float
        Mean log-density of a row in nats, before the last M-step.
    lower_bounds_ : list of float
        The same after every pass; under "em" the best so far.
    n_features_in_ : int
        Number of columns, d.

    See Also
    --------
    LayerDictionary : One such mixture for every layer of a network.

    Notes
    -----
    X may be a NumPy array, also a read-only or memory-mapped one, or a tensor; it is not copied, only its blocks
    are.  Results are NumPy arrays.

    References
    ----------
    .. [1] Cappe and Moulines, "On-line expectation-maximization algorithm for latent data models", JRSS B 71(3), 2009.
    .. [2] Konforti, Shpigler, Lerner and Bar-Hillel, "Inference Graphs for CNN Interpretation", ECCV 2020.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from skgmmcnn import DiagonalGaussianMixture
    >>> X, _ = make_blobs(300, centers=[[0, 0], [9, 0], [0, 9]], random_state=0)
    >>> mixture = DiagonalGaussianMixture(3, random_state=0).fit(X)
    >>> mixture.weights_.round(2)
    array([0.33, 0.33, 0.33])
    """

    _parameter_constraints: ClassVar[dict] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"diag", "spherical", "tied_diag"})],
        "emission": [StrOptions({"gaussian", "rectified"})],
        "solver": [StrOptions({"em", "online", "sgd"})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "reg_covar": [Interval(Real, 0, None, closed="left"), "array-like"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions({"k-means++", "random_from_data"})],
        "weights_init": ["array-like", None],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "dtype": [StrOptions({"float32", "float64"}), None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "diag",
        emission: str = "gaussian",
        solver: str = "em",
        tol: float = 1e-3,
        reg_covar: Any = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "k-means++",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        momentum: float = 0.9,
        batch_size: int = 1024,
        warm_start: bool = False,
        device: str | torch.device = "auto",
        dtype: str | None = None,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.emission = emission
        self.solver = solver
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.momentum = momentum
        self.batch_size = batch_size
        self.warm_start = warm_start
        self.device = device
        self.dtype = dtype
        self.verbose = verbose
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> DiagonalGaussianMixture:
        """Train the mixture.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            The rows.
        y : object
            Ignored.
        sample_weight : array-like of shape (n,), default=None
            How often each row counts; equal weights if None.

        Returns
        -------
        self : DiagonalGaussianMixture
            The fitted mixture.
        """
        going_on = self.warm_start and hasattr(self, "_state")
        rows = self._check(X, sample_weight, reset=not going_on)
        generator = self._generator()
        with exact_float32(), one_thread():
            if going_on:
                mixtures = iter([self._state.mixture.to(rows.like.device)])
            else:
                mixtures = (self._start(rows, generator) for _ in range(self.n_init))
            training = Training(self.max_iter, self.tol, self.momentum, self.batch_size, generator, self._report)
            runs = [train(self.solver, rows, mixture, training) for mixture in mixtures]
            fitted = max(runs, key=lambda run: run.lower_bounds[-1])
        self._set_state(fitted.state)
        self.lower_bounds_ = fitted.lower_bounds
        self.lower_bound_ = fitted.lower_bounds[-1]
        self.n_iter_ = fitted.n_iter
        self.converged_ = fitted.converged
        if not fitted.converged:
            warnings.warn(
                f"The mixture did not converge in {self.max_iter} passes; raise max_iter or tol.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> DiagonalGaussianMixture:
        """Take one step of stepwise EM for each `batch_size` rows of X, which are not kept.

        A first call chooses the start from its rows, and needs at least `n_components` of them; after :meth:`fit`,
        steps go on from there.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            The rows.
        y : object
            Ignored.
        sample_weight : array-like of shape (n,), default=None
            How often each row counts within its block; equal weights if None.

        Returns
        -------
        self : DiagonalGaussianMixture
            The mixture after the steps.
        """
        state: OnlineState | None = getattr(self, "_state", None)
        rows = self._check(X, sample_weight, reset=state is None)
        with exact_float32(), one_thread():
            mixture = self._start(rows, self._generator()) if state is None else state.mixture
            bound, state = online_pass(in_blocks(rows, self.batch_size), mixture, state)
        self._set_state(state)
        self.lower_bound_ = bound
        self.lower_bounds_ = [*getattr(self, "lower_bounds_", []), bound]
        self.n_iter_ = state.n_steps
        self.converged_ = False
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Train the mixture and return the likeliest component of every row.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            The rows.
        y : object
            Ignored.
        sample_weight : array-like of shape (n,), default=None
            How often each row counts; equal weights if None.

        Returns
        -------
        components : int array of shape (n,)
            As from :meth:`predict`.
        """
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest component of every row.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            The rows.

        Returns
        -------
        components : int array of shape (n,)
            Numbers from 0 to K - 1.
        """
        return self._ask("predict", X)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the posterior of every component for every row.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            The rows.

        Returns
        -------
        posteriors : array of shape (n, K)
            Each row sums to one.
        """
        return self._ask("predict_proba", X)

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log-density of every row.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            The rows.

        Returns
        -------
        log_density : array of shape (n,)
            In nats.  Rectified ones count an exact zero by its probability, and compare with none but their like.
        """
        return self._ask("evidence", X)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-density of the rows.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            The rows.
        y : object
            Ignored.

        Returns
        -------
        score : float
            In nats per row.
        """
        return float(self.score_samples(X).mean(dtype=np.float64))

    def bic(self, X: Any) -> float:
        """Return the Bayesian information criterion.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            The rows.

        Returns
        -------
        bic : float
            The lower, the better.
        """
        scores = self.score_samples(X)
        return float(-2 * scores.sum(dtype=np.float64) + self._n_parameters() * np.log(len(scores)))

    def aic(self, X: Any) -> float:
        """Return the Akaike information criterion.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            The rows.

        Returns
        -------
        aic : float
            The lower, the better.
        """
        return float(-2 * self.score_samples(X).sum(dtype=np.float64) + 2 * self._n_parameters())

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows from the mixture.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.

        Returns
        -------
        X : array of shape (n_samples, d)
            The rows, ordered by component.  Rectified mixtures draw exact zeros.
        components : int array of shape (n_samples,)
            The component that each row was drawn from.
        """
        check_is_fitted(self)
        with sampling(n_samples, self.means_.shape[1]):
            rows, components = self.mixture_.sample(int(n_samples), self._generator())
        return rows.numpy(), components.numpy()

    def _n_parameters(self) -> int:
        return self.means_.size + self.covariances_.size + len(self.weights_) - 1

    def _ask(self, question: str, X: Any) -> np.ndarray:
        check_is_fitted(self)
        rows = self._check(X, None, reset=False)
        with exact_float32(), one_thread():
            return getattr(Scorer(self.mixture_, rows.like), question)(rows.values).numpy(force=True)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(int(check_random_state(self.random_state).randint(2**31)))

    def _check(self, X: Any, sample_weight: Any, *, reset: bool) -> Rows:
        """Return X as rows that this mixture can read."""
        values = self._as_tensor(X, reset=reset)
        dtype = values.dtype if self.dtype is None else getattr(torch, self.dtype)
        if dtype not in (torch.float32, torch.float64):
            dtype = torch.float32
        like = torch.empty(0, dtype=dtype, device=resolve_device(self.device))
        if self.emission == "rectified":
            _refuse(values, lambda block: block < 0, 'negative, but emission="rectified" describes x = max(0, y)')
        weights = None
        if sample_weight is not None:
            weights = torch.from_numpy(
                _check_sample_weight(
                    sample_weight, values.numpy(force=True), dtype=np.float64, ensure_non_negative=True
                )
            )
        return Rows(_resident(values, like), weights, like)

    def _as_tensor(self, X: Any, *, reset: bool) -> Tensor:
        if np.ma.is_masked(X):
            raise TypeError("X is a masked array; fill what is masked: X.filled(value).")
        if isinstance(X, Tensor):
            if X.is_complex():
                raise ValueError("Complex data not supported: X must hold real numbers.")
            values = X.detach() if X.is_floating_point() else X.detach().double()
            # scikit-learn looks at one row: it checks and notes the width.
            validate_data(self, np.zeros((min(len(X), 1), *X.shape[1:])), reset=reset)
        else:
            array = validate_data(self, X, dtype=[np.float64, np.float32], ensure_all_finite=False, reset=reset)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # we only read
                values = torch.from_numpy(array)
        _refuse(values, lambda block: ~block.isfinite(), "NaN or infinity (inf)")
        return values

    def _emission(self, n_channels: int) -> Emission:
        if (self.emission, self.covariance_type) not in EMISSIONS:
            raise ValueError(f"emission={self.emission!r} needs covariance_type='diag'; got {self.covariance_type!r}.")
        floor = np.asarray(self.reg_covar, dtype=np.float64)
        if floor.shape not in ((), (n_channels,)) or not (floor >= 0).all():
            raise ValueError(f"reg_covar must be one number or {n_channels}, all at least 0; got {self.reg_covar!r}.")
        return EMISSIONS[self.emission, self.covariance_type](torch.from_numpy(np.full(n_channels, floor)))

    def _start(self, rows: Rows, generator: torch.Generator) -> Mixture:
        n_rows, n_channels = rows.values.shape
        if n_rows < self.n_components:
            raise ValueError(f"n_components={self.n_components} needs at least as many rows; got n_samples = {n_rows}.")
        emission = self._emission(n_channels)
        if self.means_init is not None:
            means = self._given("means_init", (self.n_components, n_channels))
        else:
            values = rows.values if rows.weights is None else rows.values[rows.weights > 0]
            means = STARTS[self.init_params](values, self.n_components, generator)
        mean, variance = moments(rows.values, rows.weights)
        if rows.like.dtype == torch.float32:
            check_scale("X", variance)
        if self.precisions_init is not None:
            variance = self._given_variance(n_channels)
        weights = None
        if self.weights_init is not None:
            weights = self._given("weights_init", (self.n_components,))
            weights = weights / weights.sum()
        return start(means, emission, mean, variance, rows.like, weights)

    def _given_variance(self, n_channels: int) -> Tensor:
        """Return the inverse of `precisions_init` in the form that spreads over (K, d)."""
        full = (self.n_components, n_channels)
        own, wide = {
            "diag": (full, full),
            "spherical": ((self.n_components,), (self.n_components, 1)),
            "tied_diag": ((n_channels,), (1, n_channels)),
        }[self.covariance_type]
        return 1 / self._given("precisions_init", own).reshape(wide)

    def _given(self, name: str, shape: tuple[int, ...]) -> Tensor:
        array = np.asarray(getattr(self, name), dtype=np.float64)
        if array.shape != shape or not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite and of shape {shape}; got shape {array.shape}.")
        if name != "means_init" and not (array > 0).all():
            raise ValueError(f"{name} must be positive.")
        return torch.from_numpy(array)

    def _report(self, n_iter: int, bound: float) -> None:
        if self.verbose and n_iter % int(self.verbose) == 0:
            print(f"[DiagonalGaussianMixture] pass {n_iter}: {bound:.4f} nats per row")

    def _set_state(self, state: OnlineState) -> None:
        if not bool((state.mixture.parameters.variance > 0).all()):
            raise ValueError("A component collapsed onto one value; raise reg_covar.")
        self._state = state.to("cpu")
        self.mixture_ = mixture = self._state.mixture
        self.weights_, self.means_, self.covariances_ = mixture.weights_, mixture.means_, mixture.covariances_
        self.precisions_ = 1 / self.covariances_
        self.precisions_cholesky_ = np.sqrt(self.precisions_)


def _refuse(rows: Tensor, bad: Callable[[Tensor], Tensor], what: str) -> None:
    """Raise ValueError for the first row with a bad value."""
    for start_row in range(0, len(rows), _BLOCK_ROWS):
        found = bad(rows[start_row : start_row + _BLOCK_ROWS])
        if found.any():
            row, column = found.nonzero()[0].tolist()
            raise ValueError(f"Row {start_row + row} of X, column {column}, is {what}.")


def _resident(values: Tensor, like: Tensor) -> Tensor:
    """Return the rows on the device where they are read, if they fit there beside all else; or else where they are."""
    if values.device == like.device or like.device.type != "cuda":
        return values
    free, _ = torch.cuda.mem_get_info(like.device)
    return values.to(like.device) if values.nbytes < free / 2 else values
