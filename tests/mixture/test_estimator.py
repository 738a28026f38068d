"""DiagonalGaussianMixture as an estimator."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV

from skgmmcnn import DiagonalGaussianMixture

CENTRES = [[0, 0, 5], [9, 0, 5], [0, 9, 5]]


@pytest.fixture
def X(seed):
    return make_blobs(400, centers=CENTRES, random_state=seed)[0]


def fitted(X, n_components=3, **settings):
    return DiagonalGaussianMixture(n_components, **{"random_state": 0, "device": "cpu", **settings}).fit(X)


def test_names_are_those_of_scikit_learn(X):
    ours, peer = fitted(X), GaussianMixture(3, covariance_type="diag", random_state=0).fit(X)
    public = {name for name in dir(peer) if not name.startswith("_")}
    not_ours = {"set_fit_request", "set_partial_fit_request", "warm_start"}
    assert public - not_ours <= set(dir(ours)) | {"verbose_interval"}
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        assert getattr(ours, name).shape == getattr(peer, name).shape, name
    order, order_of_peer = (np.lexsort(m.means_.round().T) for m in (ours, peer))
    np.testing.assert_allclose(ours.means_[order], peer.means_[order_of_peer], atol=1e-3)
    np.testing.assert_allclose(ours.bic(X), peer.bic(X), rtol=1e-4)
    np.testing.assert_allclose(ours.aic(X), peer.aic(X), rtol=1e-4)
    np.testing.assert_allclose(ours.score(X), peer.score(X), atol=1e-4)


def test_bic_counts_the_parameters(X):
    for kind, size in [("diag", 9), ("spherical", 3), ("tied_diag", 3)]:
        mixture = fitted(X, covariance_type=kind)
        assert mixture.covariances_.size == size
        likelihood = -2 * mixture.score_samples(X).sum()
        np.testing.assert_allclose(mixture.bic(X) - likelihood, (9 + size + 2) * np.log(400))
        np.testing.assert_allclose(mixture.precisions_cholesky_**2 * mixture.covariances_, 1)


@pytest.mark.parametrize("solver", ["em", "online", "sgd"])
@pytest.mark.parametrize("init_params", ["k-means++", "random_from_data"])
def test_solvers_find_clusters(X, solver, init_params):
    mixture = fitted(X, solver=solver, init_params=init_params, max_iter=300, batch_size=64, tol=1e-4, n_init=8)
    assert mixture.converged_
    np.testing.assert_allclose(mixture.weights_, 1 / 3, atol=0.01)
    assert sorted(map(tuple, mixture.means_.round().astype(int))) == [(0, 0, 5), (0, 9, 5), (9, 0, 5)]


def test_weights_stand_for_repeated_rows_exactly(X, rng):
    """With given means and batch EM, whatever the weights."""
    counts = rng.integers(0, 4, len(X))
    for kind in ("diag", "spherical", "tied_diag"):
        settings = dict(covariance_type=kind, means_init=X[:3], tol=1e-7, max_iter=30)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            ours = DiagonalGaussianMixture(3, **settings).fit(X, sample_weight=counts)
            repeated = DiagonalGaussianMixture(3, **settings).fit(np.repeat(X, counts, axis=0))
        np.testing.assert_allclose(ours.means_, repeated.means_, rtol=1e-8)
        np.testing.assert_allclose(ours.covariances_, repeated.covariances_, rtol=1e-7)
        np.testing.assert_allclose(ours.lower_bound_, repeated.lower_bound_, rtol=1e-9)


def test_rows_of_weight_zero_are_never_starts(X):
    weights = np.r_[np.ones(300), np.zeros(100)]
    far = np.r_[X[:300], np.full((100, 3), 1e3)]
    for init_params in ("k-means++", "random_from_data"):
        mixture = fitted(far, init_params=init_params)
        assert mixture.means_.max() > 900
        mixture = DiagonalGaussianMixture(3, init_params=init_params, random_state=0).fit(far, sample_weight=weights)
        assert mixture.means_.max() < 20


def test_partial_fit_in_chunks_equals_one_pass(X):
    """Chunks that are multiples of the block; and one chunk of one block is one step."""
    settings = dict(batch_size=50, means_init=X[:3], random_state=0)
    whole = DiagonalGaussianMixture(3, **settings).partial_fit(X)
    assert whole.n_iter_ == 8
    chunks = DiagonalGaussianMixture(3, **settings)
    # The start takes its variance from the first chunk, so that one is the same for both.
    chunks.precisions_init = 1 / np.tile(X.var(0), (3, 1))
    whole = clone(chunks).partial_fit(X)
    for start in range(0, 400, 100):
        chunks.partial_fit(X[start : start + 100])
    np.testing.assert_allclose(chunks.means_, whole.means_, rtol=1e-9)
    np.testing.assert_allclose(chunks.covariances_, whole.covariances_, rtol=1e-7)
    assert clone(chunks).partial_fit(X[:50]).n_iter_ == 1


def test_partial_fit_goes_on_after_fit(X):
    mixture = fitted(X)
    before, steps = mixture.score(X), mixture._state.n_steps
    mixture.partial_fit(X)
    assert mixture.n_iter_ == steps + 1
    assert mixture.score(X) > before - 0.05


def test_warm_start(X):
    mixture = DiagonalGaussianMixture(3, warm_start=True, random_state=0, max_iter=2, tol=1e-6)
    with pytest.warns(ConvergenceWarning, match="did not converge in 2 passes"):
        mixture.fit(X)
    first = mixture.lower_bound_
    mixture.set_params(max_iter=100).fit(X)
    assert mixture.lower_bound_ > first
    assert mixture.fit(X).n_iter_ <= 3
    assert clone(mixture).fit(X).n_iter_ > 3


def test_any_kind_of_rows_gives_the_same(X, tmp_path):
    expected = fitted(X)
    np.save(tmp_path / "rows.npy", X)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    frozen = X.copy()
    frozen.flags.writeable = False
    for rows in (torch.from_numpy(X), mapped, frozen, X.tolist(), np.asfortranarray(X)):
        mixture = fitted(rows)
        np.testing.assert_allclose(mixture.means_, expected.means_, rtol=1e-9)
        np.testing.assert_allclose(mixture.predict_proba(rows), expected.predict_proba(X), atol=1e-9)
        assert isinstance(mixture.score_samples(rows), np.ndarray)
    # A start drawn from rounded rows may lead elsewhere: here both begin between the clusters, which lie far apart.
    single, double = (fitted(rows, means_init=CENTRES) for rows in (X.astype(np.float32), X))
    np.testing.assert_allclose(single.means_, double.means_, rtol=1e-4, atol=1e-4)  # 3e-6 apart at most with 31 seeds
    assert single.predict_proba(X.astype(np.float32)).dtype == np.float32
    assert fitted(X, dtype="float32").predict_proba(X).dtype == np.float32
    assert fitted(X.astype(np.float32), dtype="float64").predict_proba(X.astype(np.float32)).dtype == np.float64


MEMORY = """
import resource, sys, warnings
import numpy as np
from skgmmcnn import DiagonalGaussianMixture
warnings.simplefilter("ignore")
rows = np.load(sys.argv[1], mmap_mode="r")
mixture = DiagonalGaussianMixture(100, max_iter=2, device="cpu", random_state=0).fit(rows[:10_000])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mixture.fit(rows).predict(rows)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_no_array_of_rows_times_components_is_made(tmp_path):
    """It would take 400 MiB; the memory-mapped rows themselves take 16."""
    pytest.importorskip("resource")
    rows = np.random.default_rng(0).normal(size=(2**20, 4))
    np.save(tmp_path / "rows.npy", rows.astype(np.float32))
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "rows.npy")]
    assert float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) < 200  # 48 to 171


def test_sample(X):
    mixture = fitted(X)
    drawn, components = mixture.sample(3000)
    assert drawn.shape == (3000, 3)
    assert (np.diff(components) >= 0).all()
    np.testing.assert_allclose(fitted(drawn).score(X), mixture.score(X), atol=0.1)
    np.testing.assert_array_equal(mixture.sample(5)[0], mixture.sample(5)[0])
    with pytest.raises(ValueError, match="at least 1"):
        mixture.sample(0)
    rectified = fitted(X.clip(0), emission="rectified").sample(3000)[0]
    assert (rectified == 0).any()
    assert (rectified >= 0).all()


def test_given_starts_are_used(X):
    given = dict(weights_init=[0.2, 0.3, 0.5], means_init=X[:3], tol=1e9)
    for kind, shape in [("diag", (3, 3)), ("spherical", (3,)), ("tied_diag", (3,))]:
        precisions = np.linspace(0.5, 2, np.prod(shape)).reshape(shape)
        mixture = DiagonalGaussianMixture(3, covariance_type=kind, precisions_init=precisions, **given)
        start = mixture._start(mixture._check(X, None, reset=True), None)
        np.testing.assert_allclose(start.weights_, [0.2, 0.3, 0.5])
        np.testing.assert_allclose(start.means_, X[:3])
        np.testing.assert_allclose(start.covariances_, 1 / precisions)


def test_floor_by_channel(X):
    X = X * [1, 1, 1e-3]
    mixture = fitted(X, reg_covar=[2.0, 1e-9, 1e-9])
    assert mixture.covariances_[:, 0].min() == 2
    assert mixture.covariances_[:, 1].min() < 2


def test_verbose_prints_the_bound(X, capsys):
    fitted(X, verbose=1)
    assert "pass 1: -" in capsys.readouterr().out
    fitted(X)
    assert not capsys.readouterr().out


def test_pickle_and_grid_search(X):
    mixture = fitted(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(mixture)).predict(X), mixture.predict(X))
    search = GridSearchCV(DiagonalGaussianMixture(random_state=0), {"n_components": [1, 3]}).fit(X)
    assert search.best_params_ == {"n_components": 3}


class TestBadInput:
    def test_before_fit(self, X):
        for ask in ("predict", "predict_proba", "score_samples"):
            with pytest.raises(NotFittedError):
                getattr(DiagonalGaussianMixture(), ask)(X)
        with pytest.raises(NotFittedError):
            DiagonalGaussianMixture().sample()

    def test_fewer_rows_than_components(self, X):
        with pytest.raises(ValueError, match="n_components=5 needs at least as many rows; got n_samples = 4"):
            fitted(X[:4], 5)
        with pytest.raises(ValueError, match="n_components=5"):
            DiagonalGaussianMixture(5).partial_fit(X[:4])

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
    def test_not_finite(self, X, value, kind):
        X[123, 1] = value
        with pytest.raises(ValueError, match="Row 123 of X, column 1, is NaN or infinity"):
            fitted(kind(X))
        with pytest.raises(ValueError, match="Row 123"):
            DiagonalGaussianMixture(2).partial_fit(kind(X))

    def test_negative_values_behind_a_relu(self, X):
        X = X.clip(0)
        X[7, 2] = -1e-9
        with pytest.raises(ValueError, match=r"Row 7 of X, column 2, is negative, but emission=.rectified."):
            fitted(X, emission="rectified")

    def test_family_that_does_not_exist(self, X):
        with pytest.raises(ValueError, match="needs covariance_type='diag'"):
            fitted(X.clip(0), emission="rectified", covariance_type="spherical")

    @pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
    def test_wrong_width(self, X, kind):
        mixture = DiagonalGaussianMixture(2).partial_fit(X)
        for ask in (mixture.partial_fit, mixture.predict):
            with pytest.raises(ValueError, match="2 features"):
                ask(kind(X[:, :2].copy()))

    def test_wrong_starts(self, X):
        with pytest.raises(ValueError, match=r"means_init must be finite and of shape \(3, 3\)"):
            fitted(X, means_init=X[:2])
        with pytest.raises(ValueError, match="weights_init must be positive"):
            fitted(X, weights_init=[0.5, 0.5, 0])
        with pytest.raises(ValueError, match="reg_covar must be one number or 3"):
            fitted(X, reg_covar=[1, 2])

    def test_no_gpu(self, X):
        if not torch.cuda.is_available():
            with pytest.raises(ValueError, match="torch finds no GPU"):
                fitted(X, device="cuda")

    def test_constant_columns_one_row_one_component(self, X):
        X[:, 1] = 3
        mixture = fitted(X)
        assert np.isfinite(mixture.score(X))
        np.testing.assert_allclose(mixture.means_[:, 1], 3)
        single = fitted(X[:1], 1)
        np.testing.assert_allclose(single.means_, X[:1])
        assert single.predict(X).tolist() == [0] * len(X)
        alone = fitted(X, 1)
        np.testing.assert_allclose(alone.means_[0], X.mean(0))
        np.testing.assert_allclose(alone.covariances_[0], X.var(0).clip(1e-6))

    def test_few_distinct_rows(self, X):
        mixture = fitted(np.repeat(X[:3], 100, axis=0), 40)
        assert np.isfinite(mixture.means_).all()
        assert len(np.unique(mixture.predict(X[:3]))) == 3

    def test_collapse_without_a_floor(self, X):
        with pytest.raises(ValueError, match="increase reg_covar"):
            fitted(np.repeat(X[:3], 100, axis=0), 3, reg_covar=0)
