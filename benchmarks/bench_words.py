"""Comparison of mixtures, floors, starts and numbers of words, and of k-means.

Each dictionary is fitted with two seeds, which draw different locations and starts.  Columns, for test images:

- alike: mean Jaccard index of the sets of locations of matched words of the two, plain and weighted by locations
- ARI: adjusted Rand index of the two, over locations
- R2: fraction of the layer's variance that the means of words explain
- kept: fraction of decisions that are preserved when each location is replaced by the mean of its word
- nats: held-out log-density per location and channel; comparable between Gaussian mixtures of one layer
- deletion: area under the deletion curve in the order of influence per location, relative to a random order
- s: seconds of one fit as the sum over all processors, without the network

    SKGMMCNN_DATA=... python benchmarks/bench_words.py resnet20|squeezenet|tiny_darknet|efficientnet_lite0 \
        [--images 400] [--test-images 200] [--words 50 200 500 1000] [--mixtures "tied_diag (the default)" ...]
"""

import argparse
import time
import warnings
from dataclasses import replace

import numpy as np
import torch
import trust_tables
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.dictionary import align_words
from skgmmcnn.metrics import deletion
from skgmmcnn.mixture._emissions import SphericalGaussian
from skgmmcnn.mixture._starts import moments, start

SIZES = (50, 200, 500, 1000)
AT = 200  # words, where all mixtures are compared
AT_ALL_SIZES = ("tied_diag (the default)", "scikit-learn's k-means")


class Timed(LayerDictionary):
    """A dictionary that records the processor time of training each mixture."""

    def _train(self, layer, sample):
        begun = time.process_time()
        found = self._mixture(layer, sample)
        self.__dict__.setdefault("seconds", {})[layer] = time.process_time() - begun
        return found

    def _mixture(self, layer, sample):
        return super()._train(layer, sample)


class OfKMeans(Timed):
    """A dictionary of clusters by scikit-learn's k-means on the same rows."""

    def _mixture(self, layer, sample):
        found = KMeans(self.n_components, n_init=1, random_state=self.random_state).fit(sample.rows.numpy())
        mean, variance = moments(sample.rows)
        narrow = torch.full_like(variance, 1e-3 * variance.mean())
        centres = torch.from_numpy(found.cluster_centers_)
        mixture = start(centres, SphericalGaussian(narrow), mean, narrow, sample.rows)
        few = LayerDictionary(self.n_components, max_iter=1)._train(layer, sample)
        return few._replace(state=replace(few.state, mixture=mixture))


FAMILIES = {
    "tied_diag (the default)": (Timed, {}),
    "tied_diag, floor 0.1": (Timed, {"reg_covar": 0.1}),
    "tied_diag, k-means++": (Timed, {"init_params": "k-means++"}),
    "tied_diag, online": (Timed, {"solver": "online", "max_iter": 10}),
    "spherical": (Timed, {"covariance_type": "spherical"}),
    "diag": (Timed, {"covariance_type": "diag", "emission": "gaussian"}),
    "diag, rectified": (Timed, {"covariance_type": "diag"}),
    "scikit-learn's k-means": (OfKMeans, {}),
}


def maps_of(name, n_images, n_test):
    """Return maps of training images in memory, and of test images."""
    asked = trust_tables.ASKED[name]
    images, test_images = asked.images(), asked.test_images()
    extractor = FeatureExtractor(asked.network(), asked.layers, preprocess=asked.preprocess, batch_size=25)

    def some(images, n, seed):
        return [images[row] for row in np.sort(np.random.RandomState(seed).permutation(len(images))[:n])]

    maps = extractor.fit_transform(some(images, n_images, 0)).compute()
    return maps, extractor.transform(some(test_images, n_test, 1))


def measured(kind, options, n_words, maps, test_maps):
    """Return the columns of the table by layer."""
    both = [kind(n_words, keep_patches=False, random_state=seed, **options).fit(maps) for seed in (0, 1)]
    words = [dictionary.transform(test_maps) for dictionary in both]
    alike = align_words(*words)
    reports = [dictionary.report(test_maps, n_images=len(test_maps)) for dictionary in both]
    rows = {}
    for layer, similarity in alike.similarity.items():
        first = alike.pairs[layer][:, 0]
        counts = np.bincount(words[0].words[layer].ravel(), minlength=n_words)
        rand = adjusted_rand_score(*(each.words[layer].ravel() for each in words))
        gaussian = all(dictionary.emissions_[layer] == "gaussian" for dictionary in both) and kind is Timed
        rows[layer] = [
            similarity.sum() / n_words,
            similarity @ counts[first] / counts.sum(),
            rand,
            np.mean([report.layers[layer].r2 for report in reports]),
            np.mean([report.layers[layer].kept for report in reports]),
            np.nan if not gaussian else np.mean([nats(dictionary, test_maps, layer) for dictionary in both]),
            area(both[0], test_maps[:50], layer),
            np.mean([dictionary.seconds[layer] for dictionary in both]),
        ]
    return rows


def nats(dictionary, maps, layer):
    """Return the mean log-density per location and channel."""
    expectation = dictionary._expect(maps, dictionary.mixtures_)[layer]
    return expectation.mean_log_likelihood / maps.shapes[layer][0]


def area(dictionary, maps, layer):
    """Return the area of deletion by influence per location, relative to a random order."""
    graph = InferenceGraph(evidence="influence").fit(dictionary.transform(maps))
    orders = ["per_location", "random"]
    curves = deletion(make_pipeline(dictionary, graph), maps, layer, orders=orders, n_random=2, random_state=0)
    return curves.ratio("per_location")[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=trust_tables.ASKED)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--test-images", type=int, default=200)
    parser.add_argument("--words", type=int, nargs="+", default=SIZES)
    parser.add_argument("--mixtures", nargs="+", choices=FAMILIES, default=[*FAMILIES])
    asked = parser.parse_args()
    maps, test_maps = maps_of(asked.name, asked.images, asked.test_images)
    print(f"{asked.name}: {len(maps)} images, {len(test_maps)} test images", flush=True)
    columns = ["alike", "weighted", "ARI", "R2", "kept", "nats", "deletion", "seconds"]
    print(f"{'layer':14}{'words':>6} {'mixture':26}" + "".join(f"{column:>9}" for column in columns), flush=True)
    jobs = [(mixture, AT) for mixture in asked.mixtures if AT in asked.words]
    jobs += [(mixture, n) for n in asked.words if n != AT for mixture in asked.mixtures if mixture in AT_ALL_SIZES]
    for mixture, n_words in jobs:
        kind, options = FAMILIES[mixture]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = measured(kind, options, n_words, maps, test_maps)
        for layer, values in rows.items():
            cells = "".join(f"{value:9.2f}" for value in values)
            print(f"{layer:14}{n_words:6} {mixture:26}{cells}", flush=True)


if __name__ == "__main__":
    main()
