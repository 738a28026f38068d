import itertools
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary, LayerHMM, to_text
from skgmmcnn.chain._chain import Chain, joined, uniform
from skgmmcnn.mixture import Rows, Scorer
from skgmmcnn.mixture._solvers import Training, fit_em

LAYERS = ["2", "4", "6"]


@pytest.fixture(scope="module")
def network(digits):
    """A perceptron on digits, with three hidden layers behind ReLUs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = [64, 32, 24, 16]
        hidden = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        model = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(16, 10))
        images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
        optimizer = torch.optim.Adam(model.parameters(), 0.005)
        for _ in range(30):
            for rows in torch.randperm(len(images)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def extractor(network, digits):
    return FeatureExtractor(network, LAYERS, class_names=digits.class_names).fit(digits.images)


@pytest.fixture(scope="module")
def maps(extractor, digits):
    return extractor.transform(digits.images).compute()


@pytest.fixture(scope="module")
def test_maps(extractor, digits):
    return extractor.transform(digits.test_images).compute()


@pytest.fixture(scope="module")
def hmm(maps):
    return LayerHMM(20, random_state=0).fit(maps)


@pytest.fixture
def layers(rng):
    """Two layers of 300 examples, whose clusters go together, and the cluster of each."""
    y = rng.integers(0, 3, 300)
    return [rng.normal(8 * np.eye(3)[y], 1), rng.normal(8 * np.eye(3)[y][:, :2], 1)], y


def test_one_layer_equals_the_mixture(rng):
    X = np.concatenate([rng.normal(mean, 1, (100, 3)) for mean in (-6, 0, 6)])
    settings = {"n_components": 5, "solver": "em", "random_state": 0, "tol": 1e-6}
    dictionary = LayerDictionary(**settings, covariance_type="diag", reg_covar=0.1).fit(X)
    chain = LayerHMM(**settings, smoothing=0, max_iter=1000).fit(X)
    assert chain.score(X) == pytest.approx(dictionary.score(X), abs=0.02)
    scorer = Scorer(chain.mixtures_["dense"], torch.empty(0, dtype=torch.float64))
    joint = scorer.log_density(scorer.features(torch.from_numpy(X))) + torch.from_numpy(chain.startprob_).log()
    np.testing.assert_allclose(chain.score_samples(X), joint.logsumexp(1))
    np.testing.assert_allclose(chain.transform(X), joint.softmax(1), atol=1e-12)
    np.testing.assert_allclose(chain.mixtures_["dense"].weights_, chain.startprob_)
    np.testing.assert_array_equal(chain.decode(X)[1][:, 0], joint.argmax(1))


def test_lists_and_one_array_are_the_same(layers):
    parts, y = layers
    settings = {"n_components": 6, "solver": "em", "random_state": 0}
    from_list = LayerHMM(**settings).fit(parts, y)
    whole = np.concatenate(parts, axis=1)
    joined = LayerHMM(**settings, layer_sizes=[3, -1]).fit(whole, y)
    assert from_list.layers_ == joined.layers_ == ("dense0", "dense1")
    np.testing.assert_allclose(from_list.transform(parts), joined.transform(whole))
    assert list(joined.get_feature_names_out()) == [f"dense{i}_w{k:03d}" for i in range(2) for k in range(6)]
    np.testing.assert_allclose(from_list.score_samples(parts), joined.score_samples(whole))
    frame = joined.set_output(transform="pandas").transform(whole)
    assert frame.shape == (300, 12)
    assert (from_list.predict(parts) == y).mean() > 0.99
    assert from_list.n_features_in_ == 5


def test_classes_may_be_any_values(layers):
    parts, y = layers
    names = np.array(["ant", "bee", "cat"])[y]
    hmm = LayerHMM(6, solver="em", random_state=0).fit(parts, names)
    assert (hmm.predict(parts) == names).mean() > 0.99
    np.testing.assert_allclose(hmm.predict_proba(parts).sum(1), 1)
    paths = hmm.paths(parts, np.full(300, "bee"))
    assert (paths.decisions == 1).all()
    with pytest.raises(ValueError, match="unseen labels"):
        hmm.paths(parts, np.full(300, "dog"))


def test_decisions_are_seen_in_fit_and_never_afterwards(layers, rng):
    """The second cluster looks like the first, so only y tells their words apart; nothing leaks into predictions."""
    same = rng.normal(size=(400, 2))
    y = rng.integers(0, 2, 400)
    hmm = LayerHMM(2, solver="em", random_state=0).fit([same, same[:, :1]], y)
    assert (hmm.predict([same, same[:, :1]]) == y).mean() < 0.65
    alone = LayerHMM(2, solver="em", random_state=0).fit([same, same[:, :1]])
    assert alone.decisionprob_ is None
    with pytest.raises(ValueError, match="fitted on plain arrays without y"):
        alone.predict([same, same[:, :1]])
    parts, labels = layers
    chain = LayerHMM(3, solver="em", random_state=0).fit(parts, labels)
    before = chain.paths(parts)
    given = chain.paths(parts, (labels + 1) % 3)
    assert (given.words[:, 1] == before.words[:, 1]).mean() > 0.9  # the activity is too clear to be overruled
    assert given.path_proba.mean() < 1 + 1e-9


def test_the_road_from_images_to_graphs(hmm, maps, test_maps, digits):
    words = hmm.transform(test_maps)
    assert words.words["4"].shape == (450, 1, 1)
    assert words.words["4"].dtype == np.uint8
    np.testing.assert_array_equal(words.decisions, test_maps.outputs.argmax(1))
    for layer, posterior in hmm.posteriors(test_maps).items():
        np.testing.assert_array_equal(words.words[layer].ravel(), posterior.argmax(1))
    graph = InferenceGraph(n_nodes=2).fit(hmm.transform(maps))
    assert graph.score(words) > 0.8  # 0.93 to 0.97 with 20 other networks
    assert digits.class_names[words.decisions[0]] in to_text(graph.explain(words[:1])[0])
    representatives = words.vocabulary.representatives["4"]
    assert representatives.patches.shape == (20, 9, 8, 8, 3)
    assert representatives.whole
    share = words.vocabulary.statistics["6"]
    assert share.counts.sum() == len(maps)


def test_pipeline(network, digits):
    pipe = make_pipeline(FeatureExtractor(network, LAYERS), LayerHMM(15, random_state=0), InferenceGraph())
    assert pipe.fit(digits.images[:500], digits.labels[:500]).score(digits.test_images) > 0.75  # 0.91 to 0.97


def test_the_chain_predicts_the_network(hmm, test_maps):
    decisions = test_maps.outputs.argmax(1)
    assert (hmm.predict(test_maps) == decisions).mean() > 0.85  # 0.93 to 0.97 with 20 other networks
    np.testing.assert_array_equal(hmm.classes_, np.arange(10))


def test_answers_do_not_depend_on_batches(hmm, network, digits):
    small = FeatureExtractor(network, LAYERS, batch_size=7).fit_transform(digits.test_images[:50])
    whole = FeatureExtractor(network, LAYERS, batch_size=50).fit_transform(digits.test_images[:50])
    np.testing.assert_allclose(hmm.score_samples(small), hmm.score_samples(whole), rtol=1e-4)
    np.testing.assert_array_equal(hmm.decode(small)[1], hmm.decode(whole)[1])
    given = hmm.paths(small, np.arange(50) % 10)
    np.testing.assert_allclose(given.path_proba, hmm.paths(whole, np.arange(50) % 10).path_proba, atol=1e-3)


def test_transitions_describe_held_out_examples_better_and_joint_training_does_no_harm(maps, test_maps):
    """Independent mixtures with counts of their words are a chain; EM of the whole goes on from there.

    With 20 other networks transitions were worth 4.5 to 4.8 nats; EM another 0.13 to 0.59 where it learnt, and -0.04 to
    0.55 on what it did not see.
    """
    dictionary = LayerDictionary(20, tol=1e-4, random_state=0)
    counted = counted_chain(dictionary, dictionary.fit_transform(maps))
    examples, held_out = (Rows(side_by_side(part)) for part in (maps, test_maps))
    joint = fit_em(examples, counted, Training(100, 1e-3, momentum=0)).mixture
    seen, unseen = (
        [part.expect(chain).log_likelihood.item() / len(part) for chain in (counted, joint)]
        for part in (examples, held_out)
    )
    assert unseen[0] > dictionary.score(test_maps) + 3
    assert seen[1] > seen[0] + 0.02
    assert unseen[1] > unseen[0] - 0.3


def counted_chain(dictionary, words):
    """The chain that mixtures and the counts of their words make."""
    flat = [words.words[layer].ravel().astype(int) for layer in words.layers]
    sizes = list(words.vocabulary.n_words.values())
    tables = uniform(sizes, 0)
    for table, lower, upper in zip(tables, [np.zeros_like(flat[0]), *flat], flat, strict=False):
        np.add.at(table.numpy(), (lower, upper), 1)
    mixtures = tuple(dictionary.mixtures_[layer] for layer in words.layers)
    return Chain((), mixtures, 1.0).with_tables([table / table.sum(1, keepdim=True) for table in tables])


def side_by_side(maps):
    return torch.cat([joined(batch.activations, maps.layers) for batch in maps.batches()])


def test_steps_climb_and_collect_no_representatives(maps):
    hmm = LayerHMM(15, random_state=0, batch_size=200)
    scores = []
    for _ in range(3):
        for rows in np.array_split(np.arange(len(maps)), 3):
            hmm.partial_fit(maps[rows])
        scores.append(hmm.score(maps))
    assert scores[0] < scores[1] < scores[2]
    assert hmm.n_iter_ == 3 * 3 * 3
    assert hmm.transform(maps).vocabulary.representatives == {}
    hmm.collect_representatives(maps)
    assert hmm.transform(maps).vocabulary.representatives["6"].patches is not None


@pytest.fixture
def stepwise(layers):
    """A chain after one step on the examples of two of three classes."""
    parts, y = layers
    return LayerHMM(3, random_state=0).partial_fit([part[y < 2] for part in parts], y[y < 2], classes=[0, 1, 2])


def test_steps_learn_a_class_that_comes_later(stepwise, layers):
    parts, y = layers
    for _ in range(15):
        stepwise.partial_fit(parts, y)
    assert (stepwise.predict(parts) == y).mean() > 0.95


def test_steps_need_the_same_classes(stepwise, layers):
    parts, y = layers
    with pytest.raises(ValueError, match="y must be given in all calls of partial_fit, or in none"):
        stepwise.partial_fit(parts)
    with pytest.raises(ValueError, match="unseen labels"):
        stepwise.partial_fit(parts, y + 1)


def test_a_class_that_was_never_seen_tells_nothing(layers):
    """Without smoothing, no word knows of it: it must not make examples impossible."""
    parts, y = layers
    hmm = LayerHMM(3, smoothing=0, random_state=0).partial_fit([p[y < 2] for p in parts], y[y < 2], classes=[0, 1, 2])
    assert np.isfinite(hmm.partial_fit(parts, y).score(parts))
    assert np.isfinite(hmm.lower_bound_)


def test_samples_follow_the_chain(hmm, maps):
    rows, words = hmm.sample(4000)
    assert [part.shape for part in rows] == [(4000, 32), (4000, 24), (4000, 16)]
    assert words.shape == (4000, 3)
    for part in rows:
        assert (part >= 0).all()
        assert (part == 0).mean() > 0.05  # exact zeros: 0.2 to 0.4
    np.testing.assert_allclose(np.bincount(words[:, 0], minlength=20) / 4000, hmm.startprob_, atol=0.03)
    pairs = np.zeros((20, 20))
    np.add.at(pairs, (words[:, 1], words[:, 2]), 1 / 4000)
    marginal = hmm.startprob_ @ hmm.transmats_[0]
    np.testing.assert_allclose(pairs, marginal[:, None] * hmm.transmats_[1], atol=0.02)
    assert abs(hmm.score(rows) - hmm.score(maps)) < 5  # drawn ones are as likely as those it learnt from, but for 1.5
    again, _ = hmm.sample(4000)
    np.testing.assert_array_equal(rows[0], again[0])
    with pytest.raises(ValueError, match="n_samples must be an integer of at least 1"):
        hmm.sample(0)


class TestPaths:
    def test_probabilities(self, hmm, test_maps):
        paths = hmm.paths(test_maps)
        log_proba, words = hmm.decode(test_maps)
        np.testing.assert_array_equal(paths.words, words)
        np.testing.assert_allclose(paths.path_proba, np.exp(log_proba - hmm.score_samples(test_maps)))
        np.testing.assert_allclose(paths.log_proba[:, 0], np.log(hmm.startprob_[words[:, 0]]))
        np.testing.assert_allclose(paths.log_proba[:, 2], np.log(hmm.transmats_[1][words[:, 1], words[:, 2]]))
        for i, posterior in enumerate(hmm.posteriors(test_maps).values()):
            np.testing.assert_allclose(paths.posteriors[:, i], posterior[np.arange(450), words[:, i]])
        np.testing.assert_array_equal(paths.decisions, test_maps.outputs.argmax(1))
        assert len(paths[[3, 4]]) == 2
        assert "n=450" in repr(paths)

    def test_table(self, hmm, test_maps):
        paths = hmm.paths(test_maps)
        table = paths.path_table()
        assert table.counts.sum() == 450
        assert (np.diff(table.counts) <= 0).all()
        np.testing.assert_allclose(table.shares.sum(), 1)
        for path, count in zip(table.paths, table.counts, strict=True):
            assert (paths.words == path).all(1).sum() == count
        few = paths.path_table(3, n_paths=2)
        assert len(few.paths) == 2
        threes = paths.words[paths.decisions == 3]
        assert few.counts[0] == (threes == few.paths[0]).all(1).sum()
        assert few.shares[0] == few.counts[0] / len(threes)
        np.testing.assert_allclose(
            few.log_proba[0],
            np.log(hmm.startprob_[few.paths[0, 0]])
            + sum(np.log(hmm.transmats_[i][few.paths[0, i], few.paths[0, i + 1]]) for i in range(2)),
        )

    def test_class_probabilities_and_where_paths_leave(self, hmm, test_maps, digits):
        paths = hmm.paths(test_maps)
        np.testing.assert_allclose(paths.class_tables[1], hmm.transmats_[1] @ hmm.decisionprob_)
        left = paths.departures(digits.test_labels)
        for i, label in enumerate(digits.test_labels):
            expected = 3
            for layer in (2, 1, 0):
                proba = paths.class_tables[layer][paths.words[i, layer]]
                if proba[label] == proba.max():
                    break
                expected = layer
            assert left[i] == expected
        right = paths.decisions == digits.test_labels
        assert (left[right] == 3).mean() > 0.85  # 0.94 to 0.99 with 20 other networks
        assert (left[~right] < 3).mean() > 0.25  # 0.48 to 0.86

    def test_without_decisions(self, layers):
        parts, _ = layers
        paths = LayerHMM(3, solver="em", random_state=0).fit(parts).paths(parts)
        with pytest.raises(ValueError, match="lead to no decision"):
            paths.departures(np.zeros(300, int))
        with pytest.raises(ValueError, match="lead to no decision"):
            paths.path_table(1)

    def test_nobody_has_the_decision(self, hmm, test_maps):
        paths = hmm.paths(test_maps[np.flatnonzero(test_maps.outputs.argmax(1) == 2)])
        with pytest.raises(ValueError, match=r"None of .* examples has the decision 5"):
            paths.path_table(5)


class TestDegenerate:
    def fitted(self, parts, **settings):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            hmm = LayerHMM(**{"n_components": 4, "random_state": 0, "max_iter": 10} | settings).fit(parts)
        assert np.isfinite(hmm.score_samples(parts)).all()
        assert np.isfinite(hmm.lower_bounds_).all()
        np.testing.assert_allclose(hmm.transform(parts).sum(1), len(parts), rtol=1e-6)
        return hmm

    @pytest.mark.parametrize("solver", ["em", "online"])
    def test_dead_units_and_a_constant_layer(self, rng, solver):
        """In float32, as networks give them."""
        alive = np.maximum(rng.normal(size=(200, 6)), 0).astype(np.float32)
        alive[:, 2] = 0
        constant = np.full((200, 3), 2.5, np.float32)
        zero = np.zeros((200, 3), np.float32)
        for parts in ([alive, constant, alive], [constant, alive], [zero, alive], [alive, zero]):
            hmm = self.fitted(parts, solver=solver)
            assert hmm.emissions_[hmm.layers_[0]] == ("gaussian" if parts[0] is constant else "rectified")

    def test_words_that_no_example_visits(self, rng):
        """Three kinds of rows cannot fill eight words."""
        rows = np.repeat(rng.normal(size=(3, 4)), 30, axis=0)
        hmm = self.fitted([rows, rows[::-1].copy()], n_components=8, solver="em")
        assert (hmm.transform([rows, rows[::-1]]) > 0.5).any(0).sum() <= 16
        words = hmm.decode([rows, rows[::-1]])[1]
        assert len(np.unique(words[:, 0])) <= 8

    def test_words_per_layer_may_differ(self, layers):
        parts, y = layers
        hmm = LayerHMM({"dense0": 5, "dense1": 2}, solver="em", random_state=0).fit(parts, y)
        assert hmm.transmats_[0].shape == (5, 2)
        assert hmm.decisionprob_.shape == (2, 3)
        assert hmm.transform(parts).shape == (300, 7)


BAD_INPUT = {
    "too few examples": (lambda parts: parts, {"n_components": 400}, "too few for 400 words"),
    "sizes of layers": (np.hstack, {"layer_sizes": [2, 2]}, r"\[2, 2\] does not divide the 5 feature"),
    "layers of different length": (lambda parts: [parts[0], parts[1][:-1]], {}, "inconsistent numbers of samples"),
    "images": (lambda parts: np.zeros((3, 4, 5)), {}, "X has 3 dimensions"),
    "a layer without a number of words": (lambda parts: parts, {"n_components": {"dense0": 3}}, "names layers"),
    "negative values": (lambda parts: parts, {"emission": "rectified"}, "models the output of a ReLU"),
    "NaN": (lambda parts: [parts[0] * np.nan, parts[1]], {}, "NaN"),
}


@pytest.mark.parametrize(("bad", "settings", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_named(layers, bad, settings, message):
    with pytest.raises(ValueError, match=message):
        LayerHMM(**{"n_components": 2} | settings).fit(bad(layers[0]))


def test_bad_labels_are_named(maps, layers):
    parts, y = layers
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LayerHMM(2).fit(parts, y[:-1])
    with pytest.raises(ValueError, match="no class 'ten'"):
        LayerHMM(2).fit(maps, ["ten"] * len(maps))


def test_maps_of_many_locations_are_refused(digits):
    convolutional = FeatureExtractor(digits.network, ["conv2", "conv3"]).fit_transform(digits.images[:20])
    with pytest.raises(ValueError, match=r"layer 'conv2' has a map of 8 x 8. Use LayerDictionary"):
        LayerHMM(2).fit(convolutional)


def test_a_fit_that_fails_leaves_the_chain_as_it_was(layers):
    parts, _ = layers
    hmm = LayerHMM(3, solver="em", random_state=0)
    with pytest.raises(NotFittedError):
        hmm.paths(parts)
    score = hmm.fit(parts).score(parts)
    with pytest.raises(ValueError, match="fitted on layers with channels"):
        hmm.score(parts[::-1])
    with pytest.raises(ValueError, match="NaN"):
        hmm.fit([parts[0] * np.nan, parts[1]])
    assert hmm.score(parts) == score


def test_slow_convergence_gets_a_warning_at_the_call(layers):
    with pytest.warns(ConvergenceWarning, match="did not converge in 1 passes") as caught:
        LayerHMM(3, max_iter=1, random_state=0).fit(layers[0])
    assert caught[0].filename == __file__
