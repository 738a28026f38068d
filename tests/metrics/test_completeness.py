import re

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from torch import nn

from skgmmcnn import FeatureExtractor, LayerDictionary, LayerHMM
from skgmmcnn.metrics import completeness, completeness_score
from tests.metrics.naive import maps_of, run_with


@pytest.mark.parametrize("layer", ["conv2", "conv3"])
def test_completeness_equals_a_loop_with_hooks(pipe, test_images, layer):
    result = completeness(pipe, test_images, layers=[layer])
    network, images = pipe[0].network_, torch.from_numpy(test_images)[:, None]
    values = maps_of(network, images, layer).double().numpy()
    mixture, dictionary = pipe[1].mixtures_[layer], pipe[1]
    words = dictionary.transform(pipe[0].transform(test_images)).words[layer]
    rebuilt, mean = np.empty_like(values), mixture.weights_ @ mixture.emitted_means_
    for n, row, column in np.ndindex(words.shape):
        rebuilt[n, :, row, column] = mixture.emitted_means_[words[n, row, column]]
    full = run_with(network, images, {}).double()
    kept = run_with(network, images, {layer: torch.from_numpy(rebuilt).float()}).double()
    null = run_with(network, images, {layer: torch.from_numpy(mean[None, :, None, None] + 0 * values).float()})
    right = (kept.argmax(1) == full.argmax(1)).numpy()
    right_null = (null.argmax(1) == full.argmax(1)).numpy()
    np.testing.assert_array_equal(result.right[0], right)
    np.testing.assert_array_equal(result.right_null[0], right_null)
    assert result.completeness[0] == pytest.approx((right.mean() - right_null.mean()) / (1 - right_null.mean()))
    residual = ((values - rebuilt) ** 2).sum(1)
    spread = ((values - mean[None, :, None, None]) ** 2).sum(1)
    assert result.r2[0] == pytest.approx(1 - residual.sum() / spread.sum(), abs=1e-4)


def test_words_that_hold_everything_are_complete(one_channel):
    pipe, images = one_channel
    result = completeness(pipe, images)
    assert result.completeness.tolist() == [1]
    assert result.r2[0] == pytest.approx(1, abs=1e-3)
    assert re.search(r"completeness +look +1\.00", str(result))
    wrong = np.arange(60) % 2  # the opposite of what the network decides
    assert completeness(pipe, images, wrong).accuracy[0] == 0


def test_a_layer_that_does_not_matter_has_no_completeness():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.look = nn.Conv2d(1, 2, 1)

        def forward(self, x):
            return torch.stack([0 * self.look(x).sum((1, 2, 3)), x.mean((1, 2, 3))], 1)

    images = np.random.default_rng(0).normal(size=(10, 1, 4, 4)).astype("float32")
    pipe = make_pipeline(FeatureExtractor(Constant(), ["look"], preprocess=None), LayerDictionary(2, random_state=0))
    pipe.fit(images)
    assert np.isnan(completeness(pipe, images).completeness).all()
    assert np.isnan(completeness_score(pipe, images))


def test_words_of_a_chain_are_those_of_the_chain():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    rows = np.random.default_rng(0).normal(size=(80, 4)).astype("float32")
    extractor = FeatureExtractor(network, ["1", "3"], preprocess=None, device="cpu")
    pipe = make_pipeline(extractor, LayerHMM(4, random_state=0)).fit(rows)
    result = completeness(pipe, rows)
    words = pipe.transform(rows).words["1"][:, 0, 0]
    means = torch.from_numpy(pipe[1].mixtures_["1"].emitted_means_[words]).float()
    expected = run_with(network, torch.from_numpy(rows), {"1": means}).argmax(1)
    np.testing.assert_array_equal(result.right[0], (expected == network(torch.from_numpy(rows)).argmax(1)).numpy())
