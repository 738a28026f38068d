import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.metrics import deletion
from skgmmcnn.metrics._deletion import ORDERS, first_words
from skgmmcnn.metrics._orders import ranks_of
from tests.metrics.naive import maps_of, run_with


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n_words=st.integers(1, 9), n_steps=st.integers(1, 7))
def test_steps_take_whole_words(data, n_words, n_steps):
    counts = np.array(data.draw(st.lists(st.integers(0, 9), min_size=n_words, max_size=n_words)))[None]
    counts[0, 0] += 1
    importance = np.array(data.draw(st.lists(st.integers(-3, 3), min_size=n_words, max_size=n_words)), float)[None]
    ranks = ranks_of(importance, counts)
    first = first_words(ranks, counts, n_steps)
    order = sorted((word for word in range(n_words) if counts[0, word]), key=lambda word: -importance[0, word])
    total, sums = counts.sum(), [0]
    for place, word in enumerate(order):
        assert ranks[0, word] == place
        sums.append(sums[-1] + counts[0, word])
    for step in range(n_steps + 1):
        nearest = min(range(len(sums)), key=lambda i: abs(sums[i] - step / n_steps * total))
        n_locations = counts[first[step]].sum()
        assert n_locations in sums
        assert abs(n_locations - step / n_steps * total) == pytest.approx(
            abs(sums[nearest] - step / n_steps * total), abs=1e-9
        )
    assert not first[0].any()
    assert first[-1][counts > 0].all()


def naive_curve(network, image, layer, words, importance, filling, n_steps, kind):
    """One image's curve: words are put into order and replaced one by one, in the whole network with hooks."""
    values = maps_of(network, image, layer)
    target = run_with(network, image, {}).argmax().item()
    present = sorted(set(words.ravel().tolist()))
    order = sorted(present, key=lambda word: -importance[word])
    sums = [0, *np.cumsum([(words == word).sum() for word in order])]
    shares, proba = [], []
    for step in range(n_steps + 1):
        end = min(range(len(sums)), key=lambda i: abs(sums[i] - step / n_steps * words.size))
        removed = np.isin(words, order[:end]) if kind == "deletion" else ~np.isin(words, order[:end])
        changed = values.clone()
        for row, column in zip(*np.nonzero(removed), strict=True):
            changed[0, :, row, column] = filling
        shares.append(sums[end] / words.size)
        proba.append(run_with(network, image, {layer: changed}).softmax(1)[0, target].item())
    return shares, proba


@pytest.mark.parametrize(("kind", "fill"), [("deletion", "mean"), ("deletion", "zero"), ("insertion", "mean")])
def test_curves_equal_a_loop_with_hooks(pipe, test_images, given_evidence, kind, fill):
    orders = ["graph", "per_location", "reverse", "frequency"]
    result = deletion(
        pipe, test_images[:12], "conv2", direction=kind, orders=orders, fill=fill, n_steps=5, random_state=0
    )
    network, mixture = pipe[0].network_, pipe[1].mixtures_["conv2"]
    words, evidence = pipe[:-1].transform(test_images[:12]), given_evidence(12)[:, :12]
    mean = torch.from_numpy(mixture.weights_ @ mixture.emitted_means_).float()
    filling = mean if fill == "mean" else torch.zeros(16)
    for i, image in enumerate(torch.from_numpy(test_images[:12])):
        one = words.words["conv2"][i]
        counts = np.bincount(one.ravel(), minlength=12)
        importance = {
            "graph": evidence[i] / np.sqrt(np.maximum(counts, 1)),
            "per_location": evidence[i] / np.maximum(counts, 1),
            "reverse": -evidence[i] / np.sqrt(np.maximum(counts, 1)),
            "frequency": counts,
        }
        for order in orders:
            shares, proba = naive_curve(network, image[None, None], "conv2", one, importance[order], filling, 5, kind)
            np.testing.assert_allclose(result.shares[order][i], shares)
            np.testing.assert_allclose(result.proba[order][i], proba, rtol=1e-3, atol=1e-5)
    shares, proba = result.shares["graph"][0], result.proba["graph"][0]
    trapezoids = [(shares[i + 1] - shares[i]) * (proba[i] + proba[i + 1]) / 2 for i in range(5)]
    assert result.areas["graph"][0] == pytest.approx(sum(trapezoids))


def test_resampling_what_is_never_there_changes_nothing(one_channel):
    pipe, images = one_channel
    never = images[1::2]  # none of these has the first channel
    curves = deletion(pipe, never, "look", orders=["random"], fill="resample", random_state=0)
    np.testing.assert_allclose(curves.proba["random"], curves.proba["random"][:, :1].repeat(11, 1))
    with pytest.raises(ValueError, match="takes columns from other images"):
        deletion(pipe, images[:1], "look", fill="resample")


def test_the_one_word_that_is_used_is_found(one_channel):
    pipe, images = one_channel
    curves = deletion(pipe, images[::2], "look", orders=["graph", "reverse", "random"], fill="zero", random_state=0)
    # Two of three words mean nothing: the decision falls with the first word, or not before the last.
    assert (curves.proba["graph"][:, 2:] < 0.01).all()
    assert (curves.proba["reverse"][:, :-2] > 0.99).all()
    ratio, low, high = curves.ratio()
    assert low <= ratio <= high < 0.7
    how = {"orders": ["graph", "random"], "fill": "zero", "random_state": 0}
    back = deletion(pipe, images[::2], "look", direction="insertion", **how)
    assert (back.proba["graph"][:, 2:] > 0.99).all()
    assert "insertion (zero), graph : random" in str(back)


def test_a_graph_without_evidence_is_no_better_than_random_order(digits):
    """Images of a class that was not fitted: all bits are 0."""
    extractor = FeatureExtractor(digits.network, ["conv3"], device="cpu").fit(digits.images[:50])
    decided = extractor.transform(digits.images).outputs.argmax(1)
    pipe = make_pipeline(extractor, LayerDictionary(12, random_state=0), InferenceGraph(evidence="counts"))
    pipe.fit(digits.images[np.flatnonzero(decided < 5)[:150]])
    unseen = digits.images[np.flatnonzero(decided == 7)[:40]]
    assert not pipe[2].transform(pipe[:-1].transform(unseen)).any()
    curves = [deletion(pipe, unseen, "conv3", orders=["graph"], random_state=seed).areas["graph"] for seed in range(2)]
    assert (curves[0] != curves[1]).any()


def test_random_orders_repeat(pipe, test_images):
    curves = [deletion(pipe, test_images, "conv3", orders=["random"], random_state=3).proba["random"] for _ in range(2)]
    np.testing.assert_array_equal(*curves)
    assert (deletion(pipe, test_images, "conv3", orders=["random"], random_state=4).proba["random"] != curves[0]).any()


def test_the_whole_map_gone_is_the_same_in_every_order(pipe, test_images):
    curves = deletion(pipe, test_images, "conv3", n_steps=4, random_state=0)
    assert tuple(curves.proba) == ORDERS
    for values in curves.proba.values():
        np.testing.assert_allclose(values[:, -1], curves.proba["graph"][:, -1], rtol=1e-5)
        np.testing.assert_allclose(values[:, 0], curves.proba["graph"][:, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"orders": ["best"]}, "orders must be among 'graph', .*got 'best'"),
        ({"orders": []}, "orders is empty"),
        ({"by": "word"}, "by must be 'image' or 'class'"),
        ({"fill": "noise"}, "fill must be one of 'mean', 'zero', 'resample'"),
        ({"n_steps": 0}, "n_steps must be at least 1; got 0"),
        ({"n_random": 0}, "n_random must be at least 1; got 0"),
    ],
)
def test_bad_input(pipe, test_images, options, message):
    with pytest.raises(ValueError, match=message):
        deletion(pipe, test_images, "conv3", **options)
