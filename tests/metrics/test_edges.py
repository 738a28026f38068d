import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.pipeline import make_pipeline
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary, LayerHMM
from skgmmcnn.metrics import edge_effects
from skgmmcnn.metrics._correlation import rank_correlation, weighted_spearman
from skgmmcnn.metrics._edges import _edges, _matches, _trial
from tests.metrics.naive import maps_of, run_with
from tests.metrics.test_faithfulness import run_with_and_see


@pytest.fixture(scope="module")
def effects(pipe, shown):
    return edge_effects(pipe, shown, n_random=2, random_state=0)


def log_posteriors(mixture, rows):
    """Of a mixture of normals, some with a rectified mean, by the estimator's own responsibilities."""
    from skgmmcnn.mixture._em import Scorer

    return Scorer(mixture, rows).predict_proba(rows).double().log()


@pytest.mark.parametrize("by", ["image", "class"])
def test_effects_equal_a_loop_with_hooks(pipe, shown, by):
    images, n_random = shown[:10], 2
    found = edge_effects(pipe, images, by=by, n_random=n_random, random_state=5)
    network, words = pipe[0].network_, pipe[:-1].transform(images)
    random, upper_field = np.random.RandomState(5), words.spec.effective_fields["conv3", "conv2"]
    edges, fields = list(_edges(pipe[2], words, by)), pipe[2]._structure(words).fields
    expected = set()
    for i in range(10):
        graph = pipe[2].explain_class(words, int(words.decisions[i])) if by == "class" else pipe[2].explain(words)[i]
        expected |= {(i, head, tail) for tail, head in graph.edges}
    key = words.vocabulary.key
    got = {
        (e.image, f"decision_{e.s}" if e.upper == "decision" else key(e.upper, e.s), key(e.lower, e.t)) for e in edges
    }
    assert got == expected
    numbers = {("decision", "conv3"): 0, ("conv3", "conv2"): 0}
    for edge in edges:
        trial = _trial(words, edge, fields[edge.upper, edge.lower], n_random, random)
        image, pair = torch.from_numpy(images[edge.image : edge.image + 1])[None], found.pairs[edge.upper, edge.lower]
        shown_below = words.words[edge.lower][edge.image] == edge.t
        places = []
        if edge.upper == "decision":
            field = np.ones_like(shown_below)
            assert trial.locations.any() == shown_below.any()
            if not shown_below.any():
                continue
        else:
            field = np.zeros_like(shown_below)
            for place in np.argwhere(words.words["conv3"][edge.image] == edge.s):
                window = upper_field.window(*place)
                if shown_below[window].any():
                    places.append(tuple(place))
                    field[window] = True
            assert sorted(places) == sorted(map(tuple, np.argwhere(trial.locations)))
            if not places:
                continue
        number = numbers[edge.upper, edge.lower]
        numbers[edge.upper, edge.lower] += 1
        k, (own, others) = pair.n_columns[number], ((field & shown_below).sum(), (field & ~shown_below).sum())
        assert k == min(own, others) if edge.upper == "decision" else k <= min(own, others)
        assert k == trial.taken[0].sum() == trial.taken[1].sum() == trial.taken[2].sum()
        assert not (trial.taken[0] & ~(field & shown_below)).any()
        assert not (trial.taken[1:] & ~(field & ~shown_below)).any()
        changed, loss = zip(
            *(naive_effect(pipe, network, image, edge, places, columns) for columns in trial.taken), strict=True
        )
        close = {"rel": 2e-3, "abs": 2e-3, "nan_ok": True}
        assert pair.log_ratios[number] == edge.log_ratio
        assert pair.n_locations[number] == max(1, len(places))
        if not k:
            assert np.isnan([pair.changed[number], pair.loss_random[number]]).all()
            continue
        assert pair.changed[number] == pytest.approx(changed[0], **close)
        assert pair.changed_random[number] == pytest.approx(np.mean(changed[1:]), **close)
        assert pair.loss[number] == pytest.approx(loss[0], **close)
        assert pair.loss_random[number] == pytest.approx(np.mean(loss[1:]), **close)
    assert numbers == {pair: len(effects.images) for pair, effects in found.pairs.items()}


def naive_effect(pipe, network, image, edge, places, columns):
    """Replace the columns one by one, run the whole network with hooks, and look at each location."""
    values, mixture = maps_of(network, image, edge.lower), pipe[1].mixtures_[edge.lower]
    mean = torch.from_numpy(mixture.weights_ @ mixture.emitted_means_).float()
    changed = values.clone()
    for row, column in np.argwhere(columns):
        changed[0, :, row, column] = mean
    if edge.upper == "decision":
        was, now = (
            run_with(network, image, {edge.lower: maps}).double().log_softmax(1)[0] for maps in (values, changed)
        )
        return float(now.argmax() != edge.s), float(was[edge.s] - now[edge.s])
    results = []
    for row, column in places:
        was, now = (
            log_posteriors(
                pipe[1].mixtures_[edge.upper],
                run_with_and_see(network, image, {edge.lower: maps}, edge.upper)[:, :, row, column],
            )[0]
            for maps in (values, changed)
        )
        results.append((float(now.argmax() != edge.s), float(was[edge.s] - now[edge.s])))
    return np.mean(results, axis=0)


class Copying(nn.Module):
    """Of what is below, the upper layer reads channel 0 alone."""

    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Identity(), nn.MaxPool2d(3, 3)

    def forward(self, x):
        y = self.high(self.low(x) * torch.tensor([1.0, 0.0, 0.0])[:, None, None])
        return torch.stack([y[:, 0].mean((1, 2)) - 0.5, 0.5 - y[:, 0].mean((1, 2))], 1) * 20


@pytest.fixture(scope="module")
def copying():
    """Blocks of 3 x 3: a cause (channel 0) and a companion (1) side by side in half of them, else channel 2."""
    generator = torch.Generator().manual_seed(0)
    words = torch.full((60, 12, 12), 2)
    for image in range(60):
        for row in range(0, 12, 3):
            for column in range(0, 12, 3):
                if torch.rand(1, generator=generator) < (0.7 if image % 2 else 0.3):
                    words[image, row + 1, column + 1] = 0
                    words[image, row + 1, column] = 1
    images = nn.functional.one_hot(words, 3).permute(0, 3, 1, 2).float()
    extractor = FeatureExtractor(Copying(), ["low", "high"], preprocess=None, batch_size=16, device="cpu")
    dictionary = LayerDictionary({"low": 3, "high": 2}, random_state=0, keep_patches=False)
    return make_pipeline(extractor, dictionary, InferenceGraph({"low": 3, "high": 1}, fields="whole")).fit(
        images
    ), images


def test_a_cause_is_told_from_a_companion(copying):
    pipe, images = copying
    found = edge_effects(pipe, images[1::2], fill="zero", random_state=0)
    pair = found.pairs["high", "low"]
    words = pipe[:-1].transform(images[1::2])
    of_channel = [words.words["low"][images[1::2, channel].bool().numpy()][0] for channel in range(2)]
    on = words.words["high"][0][images[1, 0].unfold(0, 3, 3).unfold(1, 3, 3).amax((2, 3)).bool().numpy()][0]
    cause, companion = (
        (pair.lower_words == word) & (pair.upper_words == on) & (pair.n_columns > 0) for word in of_channel
    )
    assert cause.sum() > 20
    assert companion.sum() > 20
    assert (pair.log_ratios[cause] > 0.3).all()
    np.testing.assert_allclose(pair.log_ratios[cause][0], pair.log_ratios[companion][0], atol=1e-6)
    np.testing.assert_allclose(pair.changed[cause], 1)
    np.testing.assert_allclose(pair.changed[companion], 0)
    assert pair.changed_random[cause].max() == 0  # others are not read
    # What stands beside the companion holds the cause: random columns do more than it.
    assert pair.changed_random[companion].mean() > 0.05
    np.testing.assert_allclose(pair.doses, pair.doses_random)
    assert pair.excess("loss")[cause].min() > 1


numbers_of_locations = st.lists(st.integers(1, 40), max_size=7)


@settings(max_examples=100, deadline=None)
@given(own=numbers_of_locations, others=numbers_of_locations, seed=st.integers(0, 9))
def test_matches_are_distinct_and_near(own, others, seed):
    own, others = np.array(own, dtype=np.float32), np.array(others, dtype=np.float32)
    found = _matches(own, others)
    assert len(set(found.values())) == len(found) <= min(len(own), len(others))
    for mine, other in found.items():
        assert abs(own[mine] - others[other]) <= 0.1 * own[mine] + 1e-6
    if len(others) >= len(own):
        for mine in set(range(len(own))) - set(found):
            left = np.delete(others, list(found.values()))
            assert not (np.abs(left - own[mine]) <= 0.1 * own[mine]).any()
    shuffled = np.random.RandomState(seed).permutation(others)
    assert list(_matches(own, shuffled)) == list(found)
    assert [own[i] for i in _matches(own, own)] == sorted(own, reverse=True)


@pytest.mark.parametrize("others", [[14, 16], [16, 14]])
def test_the_larger_of_two_as_near_is_taken_in_any_order(others):
    found = _matches(np.array([15.0]), np.array(others, dtype=float))
    assert others[found[0]] == 16


@settings(max_examples=60, deadline=None)
@given(data=st.data(), m=st.integers(3, 9))
def test_correlations_of_resamples_equal_those_of_scipy(data, m):
    few = st.lists(st.integers(-3, 3), min_size=m, max_size=m)
    x, y, times = (np.array(data.draw(few), float) for _ in range(3))
    times = np.abs(times)
    times[0] += 1
    a, b = np.repeat(x, times.astype(int)), np.repeat(y, times.astype(int))
    (found,) = weighted_spearman(x, y, times[None])
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(a, b).statistic)


def test_intervals_of_correlations_keep_images_together():
    random = np.random.RandomState(0)
    x = np.repeat(random.randn(12), 50)  # 600 numbers, but twelve images
    y = np.repeat(random.randn(12), 50)
    images = np.repeat(np.arange(12), 50)
    rho, (low, high) = rank_correlation(x, y, images, random)
    assert rho == pytest.approx(spearmanr(x, y).statistic)
    assert low < rho < high
    assert high - low > 0.6
    assert np.isnan(rank_correlation(x[:50], y[:50], images[:50], random)[1]).all()


def test_summaries(effects):
    pair = effects.pairs["conv3", "conv2"]
    known = pair.n_columns > 0
    by_image = [
        np.mean((pair.changed - pair.changed_random)[known & (pair.images == image)])
        for image in np.unique(pair.images[known])
    ]
    difference, (low, high) = pair.difference()
    assert difference == pytest.approx(np.mean(by_image))
    assert low < difference < high
    excess = pair.loss[known] - pair.loss_random[known]
    rho, (low, high) = pair.correlation()
    assert rho == pytest.approx(spearmanr(excess, pair.log_ratios[known]).statistic)
    assert low < rho < high
    assert pair.ratio() > 0
    text = str(effects)
    assert "conv2 to conv3:" in text
    assert "conv3 to decision:" in text
    assert [figure.where for figure in effects.figures()][::3] == ["decision > conv3", "conv3 > conv2"]
    np.testing.assert_allclose(pair.doses, pair.doses_random, rtol=0.1)
    assert (pair.n_columns > 0).mean() > 0.8


def test_top_words_hold_up_the_decision(effects):
    assert effects.pairs["decision", "conv3"].difference("loss")[0] > 0


def test_effects_repeat(pipe, shown):
    found = [edge_effects(pipe, shown[:8], n_random=1, fill="resample", random_state=1) for _ in range(2)]
    for pair in found[0].pairs:
        np.testing.assert_array_equal(found[0].pairs[pair].loss_random, found[1].pairs[pair].loss_random)


def test_fields_that_show_nothing_else_cannot_be_compared(copying):
    pipe, images = copying
    same = torch.zeros_like(images[:4])
    same[:, 0] = 1
    found = edge_effects(pipe, same, random_state=0)
    assert found.n_alone == sum(len(pair.images) for pair in found.pairs.values()) > 0
    for pair in found.pairs.values():
        assert np.isnan(pair.changed).all()
        assert np.isnan([pair.difference()[0], pair.ratio(), pair.correlation()[0]]).all()
    assert "no edge can be compared" in str(found)
    assert f"{found.n_alone} edges cannot be compared" in str(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "word"}, "by must be 'image' or 'class'"),
        ({"fill": "noise"}, "fill must be one of 'mean', 'zero', 'resample'"),
        ({"n_random": 0}, "n_random must be at least 1; got 0"),
    ],
)
def test_bad_input(pipe, shown, options, message):
    with pytest.raises(ValueError, match=message):
        edge_effects(pipe, shown[:5], **options)


def test_a_chain_has_no_other_columns(rng):
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    examples = rng.normal(size=(40, 4)).astype("float32")
    extractor = FeatureExtractor(network, ["0", "1"], preprocess=None)
    pipe = make_pipeline(extractor, LayerHMM(3, random_state=0, max_iter=5, tol=10.0), InferenceGraph()).fit(examples)
    with pytest.raises(TypeError, match=r"layers of a LayerHMM have one column\. Use a LayerDictionary"):
        edge_effects(pipe, examples)


def test_unknown_effects(effects):
    for ask in ("excess", "difference", "ratio", "correlation"):
        with pytest.raises(ValueError, match="of must be 'changed' or 'loss'; got 'bits'"):
            getattr(effects.pairs["conv3", "conv2"], ask)("bits")


def test_nothing_is_left_on_the_network_after_an_interrupt(pipe, shown, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("skgmmcnn.metrics._edges.replace", lambda *args: interrupted)
    with pytest.raises(KeyboardInterrupt):
        edge_effects(pipe, shown[:5])
    assert not any(module._forward_hooks for module in pipe[0].network_.modules())
