import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary


@pytest.fixture(scope="session")
def pipe(digits):
    """Extractor, words and graph of the digits network."""
    extractor = FeatureExtractor(
        digits.network, ["conv2", "conv3"], class_names=digits.class_names, batch_size=16, device="cpu"
    )
    return make_pipeline(extractor, LayerDictionary(12, random_state=0), InferenceGraph()).fit(digits.images[:300])


@pytest.fixture(scope="session")
def counts_pipe(pipe, digits):
    """The same with a graph of what goes together."""
    return make_pipeline(
        pipe[0], pipe[1], InferenceGraph(evidence="counts").fit(pipe[:-1].transform(digits.images[:300]))
    )


@pytest.fixture(params=["influence", "counts"])
def either(request, pipe, counts_pipe):
    """Both of these."""
    return pipe if request.param == "influence" else counts_pipe


@pytest.fixture(scope="session")
def test_images(digits):
    """Forty images that were not fitted."""
    return digits.test_images[:40]


@pytest.fixture
def given_evidence(monkeypatch):
    """Make the evidence of graphs integers, no two of one image alike, so that no rounding decides an order."""

    def evidence(n):
        return np.random.RandomState(0).random_sample((n, 24)).argsort(1) - 5.0

    monkeypatch.setattr(InferenceGraph, "transform", lambda graph, words: evidence(len(words)))
    return evidence


class OneChannel(nn.Module):
    """Decides by the first of three channels alone: whether it is anywhere."""

    def __init__(self):
        super().__init__()
        self.look = nn.Identity()

    def forward(self, x):
        x = self.look(x)
        present = x[:, 0].amax((1, 2))
        return torch.stack([5 - 10 * present, 10 * present - 5], 1)


@pytest.fixture(scope="session")
def one_channel():
    """A network that uses exactly one word, images of three words, and the fitted pipeline.

    Each location shows one of three channels; the second and the third mean nothing.
    """
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(1, 3, (60, 6, 6), generator=generator)
    words[::2, 1:3, 2:4] = 0
    images = nn.functional.one_hot(words, 3).permute(0, 3, 1, 2).float()
    extractor = FeatureExtractor(OneChannel(), ["look"], preprocess=None, batch_size=16, device="cpu")
    pipe = make_pipeline(extractor, LayerDictionary(3, random_state=0, keep_patches=False), InferenceGraph()).fit(
        images
    )
    return pipe, images
