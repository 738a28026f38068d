"""Pipelines on published networks: time relative to a bare forward pass, agreement, and memory by number of images.

SKGMMCNN_DATA=... python benchmarks/bench_road.py [cifar|squeezenet|darknet ...]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import alone, load_data, timed
from PIL import Image
from sklearn.pipeline import Pipeline
from torchvision import transforms
from torchvision.models import SqueezeNet1_1_Weights

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary

BATCH = 32


def setting(name):
    """Return network, layers, preprocessing, number of words, and images to fit and to test."""
    data = load_data()
    if name == "cifar":
        (train, *_), (test, *_) = data.cifar10("train"), data.cifar10("test")
        normalise = transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)
        preprocess = transforms.Compose([transforms.ToTensor(), normalise])
        return data.cifar_resnet20(), ["layer1", "layer2", "layer3"], preprocess, 200, train, test
    paths, *_ = data.imagenet()
    if name == "squeezenet":
        layers = ["features.4", "features.7", "features.9", "features.12"]
        return data.squeezenet(), layers, SqueezeNet1_1_Weights.DEFAULT.transforms(), 100, paths, paths
    crop = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])
    return data.tiny_darknet(), ["16", "29", "42", "48"], crop, 100, paths, paths


def forward(network, preprocess, images):
    """Read, preprocess and run the images in the same batches."""
    decisions = []
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            opened = [
                Image.fromarray(image) if isinstance(image, np.ndarray) else Image.open(image).convert("RGB")
                for image in images[start : start + BATCH]
            ]
            decisions.append(network(torch.stack([preprocess(image) for image in opened])).argmax(1))
    return torch.cat(decisions).numpy()


def road(name):
    network, layers, preprocess, n_words, train, test = setting(name)
    forward(network, preprocess, train[:BATCH])
    bare, _ = timed(forward, network, preprocess, train)
    pipe = Pipeline(
        [
            ("features", FeatureExtractor(network, layers, preprocess=preprocess, batch_size=BATCH)),
            ("words", LayerDictionary(n_words, random_state=0)),
            ("graph", InferenceGraph()),
        ]
    )
    fit, _ = timed(pipe.fit, train)
    transform, words = timed(pipe[:-1].transform, test)
    assert (words.decisions == forward(network, preprocess, test)).all()
    explain, _ = timed(pipe["graph"].explain, words[:50])
    return {
        "bare pass s": bare,
        "fit s": fit,
        "fit / bare": fit / bare,
        "transform / bare": transform / len(test) / (bare / len(train)),
        "explain ms": explain / len(words[:50]) * 1000,
        "agreement": pipe["graph"].score(words),
    }


def transform_copies(name, folder, times):
    """Transform files of images, each `times` times."""
    network, layers, preprocess, _, train, _ = setting(name)
    if isinstance(train, np.ndarray):
        paths = [Path(folder) / f"{i}.png" for i in range(500)]
        for path, image in zip(paths, train, strict=False):
            if not path.exists():
                Image.fromarray(image).save(path)
        train = paths
    pipe = Pipeline(
        [
            ("features", FeatureExtractor(network, layers, preprocess=preprocess, batch_size=BATCH)),
            ("words", LayerDictionary(10, random_state=0, max_samples=20_000, keep_patches=False)),
            ("graph", InferenceGraph()),
        ]
    )
    words = pipe[:-1].fit_transform(train * times)
    pipe[-1].fit(words)
    return sum(array.nbytes for array in words.words.values()) / 1e9


def main(names):
    for name in names or ["cifar", "squeezenet", "darknet"]:
        figures, memory = alone(road, name)
        print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()), flush=True)
        with tempfile.TemporaryDirectory() as folder:
            (one, first), (four, second) = (alone(transform_copies, name, folder, times) for times in (1, 4))
        net = (second - four) / (first - one)
        print(f"  peak memory {memory:.2f} GB; 4 x the images: {first:.2f} -> {second:.2f} GB, {net:.2f} x", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
