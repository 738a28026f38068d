"""Locations get their likeliest words."""

import numpy as np
import pytest

from skgmmcnn import FeatureMaps, LayerDictionary
from skgmmcnn.dictionary._labelling import as_rows


@pytest.mark.parametrize("family", ["tied_diag", "diag", "spherical"])
def test_words_are_the_likeliest_components(maps, family):
    dictionary = LayerDictionary({"conv1": 8, "conv2": 12, "conv3": 16}, covariance_type=family, random_state=0)
    dictionary.set_params(emission="gaussian")
    words = dictionary.fit_transform(maps)
    for batch in maps.batches():
        for layer, values in batch.activations.items():
            rows = as_rows(values).double().numpy()
            mixture = dictionary.mixtures_[layer]
            covariances = mixture.covariances_[:, None] if family == "spherical" else mixture.covariances_
            covariances = np.broadcast_to(covariances, mixture.means_.shape)
            joint = np.log(mixture.weights_) - 0.5 * (
                ((rows[:, None] - mixture.means_) ** 2 / covariances).sum(2) + np.log(2 * np.pi * covariances).sum(1)
            )
            labels = words.words[layer][batch.rows].ravel()
            best = joint.max(1)
            assert (joint[np.arange(len(labels)), labels] > best - 1e-2).all()
            assert (joint.argmax(1) == labels).mean() > 0.999


def test_keep_proba(maps):
    words = LayerDictionary(4, keep_proba=True, random_state=0).fit_transform(maps)
    assert words.proba["conv3"].shape == words.log_density["conv3"].shape == (300, 4, 4)
    assert words[:2].proba["conv3"].dtype == np.float16
    assert (words.proba["conv1"] >= 0.25).all()


def test_the_network_runs_once_to_train_and_once_to_label(maps):
    source = CountedSource(maps._source, [])
    dictionary = LayerDictionary(5, random_state=0)
    words = dictionary.fit_transform(FeatureMaps(source))
    assert sum(source.counts) == 2 * len(maps)
    np.testing.assert_array_equal(words.words["conv2"], dictionary.transform(maps).words["conv2"])


class CountedSource:
    """Counts the images that a source yields, also for some of its images."""

    def __init__(self, source, counts):
        self.source, self.counts, self.spec, self.network = source, counts, source.spec, source.network

    def __len__(self):
        return len(self.source)

    def __getitem__(self, rows):
        return CountedSource(self.source[rows], self.counts)

    def batches(self):
        for batch in self.source.batches():
            self.counts.append(len(batch.decisions))
            yield batch
