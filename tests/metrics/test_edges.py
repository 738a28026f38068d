from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.pipeline import make_pipeline
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary, LayerHMM
from skgmmcnn.metrics import edge_effects
from skgmmcnn.metrics._edges import EdgeEffects, PairEffects
from tests.metrics.naive import maps_of, run_with


def log_odds(outputs, target):
    others = [c for c in range(outputs.shape[1]) if c != target]
    return (outputs[:, target] - outputs[:, others].logsumexp(1)).item()


def mean_of(pipe, layer):
    mixture = pipe[1].mixtures_[layer]
    return torch.from_numpy(mixture.weights_ @ mixture.emitted_means_).float()


def naive_effect(pipe, image, words, upper, lower, s, t):
    """Path patching location by location, in the whole network with hooks."""
    network = pipe[0].network_
    clean = run_with(network, image, {}).double()
    below = maps_of(network, image, lower)
    for row, column in np.argwhere(words[lower] == t):
        below[0, :, row, column] = mean_of(pipe, lower)
    if upper == "decision":
        changed = {lower: below}
    else:
        above, patch = maps_of(network, image, upper), maps_of(network, image, upper, {lower: below})
        for row, column in np.argwhere(words[upper] == s):
            above[0, :, row, column] = patch[0, :, row, column]
        changed = {upper: above}
    target = clean.argmax().item()
    return log_odds(clean, target) - log_odds(run_with(network, image, changed).double(), target)


def test_effects_equal_path_patching_with_hooks(either, test_images):
    """Of all pairs of words kept; the evidence is what the graphs' edges have."""
    result = edge_effects(either, test_images[:8], random_state=0)
    words = either[:-1].transform(test_images[:8])
    graphs = either[2].explain(words)
    weight = "flow" if either[2].evidence_ == "influence" else "contribution"
    assert list(result.pairs) == [("decision", "conv3"), ("conv3", "conv2")]
    for (upper, lower), pair in result.pairs.items():
        kept = [
            {layer: [node["word"] for node in graph.nodes.values() if node["layer"] == layer] for layer in graph_layers}
            for graph, graph_layers in zip(graphs, [(upper, lower)] * 8, strict=True)
        ]
        every = {(i, s, t) for i in range(8) for s in kept[i][upper] for t in kept[i][lower]}
        assert set(zip(pair.images, pair.upper_words, pair.lower_words, strict=True)) == every
        assert len(pair.images) == len(every) > 20
        for number, (i, s, t) in enumerate(zip(pair.images, pair.upper_words, pair.lower_words, strict=True)):
            of_image = {layer: words.words[layer][i] for layer in ("conv2", "conv3")}
            image = torch.from_numpy(test_images[i])[None, None]
            expected = naive_effect(either, image, of_image, upper, lower, s, t)
            assert pair.effects[number] == pytest.approx(expected, rel=1e-3, abs=1e-4)
            key = words.vocabulary.key
            edge = graphs[i].get_edge_data(key(lower, t), f"decision_{s}" if upper == "decision" else key(upper, s))
            assert pair.has_edge[number] == (edge is not None)
            if edge is not None:
                assert pair.evidence[number] == pytest.approx(edge[weight], rel=1e-4, abs=1e-5)
                assert edge.get("effect", expected) == pytest.approx(expected, rel=1e-3, abs=1e-4)
            elif weight == "contribution":
                assert pair.evidence[number] <= 1e-9


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


@pytest.mark.parametrize("evidence", ["influence", "counts"])
def test_a_cause_is_told_from_a_companion(copying, evidence):
    """Both have the same counts; to influence the companion is nothing, so that it is not even kept."""
    pipe, images = copying
    graph = InferenceGraph({"low": 3, "high": 1}, evidence=evidence, fields="whole")
    pipe = make_pipeline(pipe[0], pipe[1], graph.fit(pipe[:-1].transform(images)))
    pair = edge_effects(pipe, images[1::2], random_state=0).pairs["high", "low"]
    words = pipe[:-1].transform(images[1::2])
    of_channel = [words.words["low"][images[1::2, channel].bool().numpy()][0] for channel in range(2)]
    on = words.words["high"][0][images[1, 0].unfold(0, 3, 3).unfold(1, 3, 3).amax((2, 3)).bool().numpy()][0]
    cause, companion = ((pair.lower_words == word) & (pair.upper_words == on) for word in of_channel)
    assert cause.sum() > 20
    assert pair.effects[cause].min() > 1
    assert pair.has_edge[cause].all()
    np.testing.assert_allclose(pair.effects[companion], 0, atol=1e-5)
    if evidence == "influence":
        assert not pair.has_edge[companion].any()
    else:
        assert companion.sum() > 20
        np.testing.assert_allclose(pair.evidence[cause][0], pair.evidence[companion][0], rtol=1e-5)


def test_summaries():
    random = np.random.RandomState(0)
    images, evidence = np.repeat(np.arange(20), 6), random.randn(120)
    effects = evidence + random.randn(120)
    effects[:6] = 0
    pair = PairEffects(
        "b", "a", images, images, images, evidence > 0, evidence, effects, quantity="flow", random_state=0
    )
    rho, low, high = pair.correlation
    assert rho == pytest.approx(spearmanr(evidence, effects).statistic)
    assert low < rho < high
    assert pair.same_sign == np.mean([e * f > 0 for e, f in zip(evidence[6:], effects[6:], strict=True)])
    assert pair.edge_share == pytest.approx(abs(effects)[evidence > 0].sum() / abs(effects).sum())
    assert [row.where for row in pair.measurements()] == ["b > a"] * 3
    assert f"rank correlation {pair.correlation:.2f}, 1 is best" in str(EdgeEffects({("b", "a"): pair}))
    nothing = replace(pair, effects=np.zeros(120))
    assert np.isnan([nothing.correlation[0], nothing.same_sign, nothing.edge_share]).all()


def test_a_chain_has_edges_too(rng):
    """Layers of one location: a word above, a word below."""
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    examples = rng.normal(size=(40, 4)).astype("float32")
    extractor = FeatureExtractor(network, ["0", "1"], preprocess=None)
    pipe = make_pipeline(extractor, LayerHMM(3, random_state=0, max_iter=5, tol=10.0), InferenceGraph()).fit(examples)
    for pair in edge_effects(pipe, examples, random_state=0).pairs.values():
        assert np.isfinite(pair.effects).all()
        assert len(np.unique(pair.images)) == len(pair.images)
