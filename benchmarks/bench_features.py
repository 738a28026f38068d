"""Passes over images, each as a ratio to a bare forward pass over the same images in the same batches.

Random weights, three layers, 200 words each: reading the feature maps, fitting the dictionary (a pass to train, one to
label), fitting it with activations stored on the first pass, and transforming.

    python benchmarks/bench_features.py [network ...]
"""

import sys
import tempfile

import numpy as np
import torch
import torchvision
from common import alone, timed

from skgmmcnn import FeatureExtractor, LayerDictionary

BATCH = 32
SETTINGS = {
    "squeezenet1_1": (["features.7", "features.9", "features.12"], 512),
    "resnet18": (["layer2", "layer3", "layer4"], 384),
    "resnet50": (["layer2", "layer3", "layer4"], 192),
    "vgg16": (["features.22", "features.29", "avgpool"], 96),
}


def images(n_images):
    return np.random.default_rng(0).normal(size=(n_images, 3, 224, 224)).astype(np.float32)


def bare(network, X):
    with torch.no_grad():
        for start in range(0, len(X), BATCH):
            network(torch.from_numpy(X[start : start + BATCH]))


def read(maps):
    for _ in maps.batches():
        pass


def ratios(name):
    layers, n_images = SETTINGS[name]
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).eval()
    X = images(n_images)
    settings = {"preprocess": None, "batch_size": BATCH}
    maps = FeatureExtractor(network, layers, **settings).fit_transform(X)
    dictionary = LayerDictionary(200, random_state=0, keep_patches=False)
    bare(network, X[:BATCH])
    before, _ = timed(bare, network, X)
    found = {"extraction": timed(read, maps)[0], "fit": timed(dictionary.fit, maps)[0]}
    found["transform"] = timed(dictionary.transform, maps)[0]
    with tempfile.TemporaryDirectory() as store:
        stored = FeatureExtractor(network, layers, store=store, **settings).fit_transform(X)
        found["fit, stored"] = timed(dictionary.fit, stored)[0]
    after, _ = timed(bare, network, X)
    return (before + after) / 2, found, n_images


def main(names):
    print(
        f"{'network':16}{'images':>8}{'bare s':>8}{'extraction':>12}{'fit':>8}{'fit, stored':>13}{'transform':>11}",
        flush=True,
    )
    for name in names:
        (seconds, found, n_images), _ = alone(ratios, name)
        shares = [found[key] / seconds for key in ("extraction", "fit", "fit, stored", "transform")]
        print(
            f"{name:16}{n_images:8}{seconds:8.1f}{shares[0]:12.2f}{shares[1]:8.2f}{shares[2]:13.2f}{shares[3]:11.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:] or list(SETTINGS))
