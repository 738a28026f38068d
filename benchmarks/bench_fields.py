"""Effective receptive fields of several shares, beside whole ones: what they tell, and how good an order they give.

Words of CIFAR ResNet20's layer2 and layer1 are replaced by the layer's mean in the order of their scores in the graph
of each image's decision, and of the scores per location; the area under the curve of the target's probability over the
share of columns replaced is divided by that of a random order of words.  Bits are the mean of
log2 P(lower | upper) / P(lower) over the pairs of locations of the test images.  Needs SKGMMCNN_DATA.

    python benchmarks/bench_fields.py [n_words] [n_test]
"""

import os
import sys
from dataclasses import replace

import numpy as np
import torch
from torchvision import transforms

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.graph._counting import count_pairs
from skgmmcnn.metrics import _ablation
from skgmmcnn.metrics._parts import proba_of

LAYERS = ["layer1", "layer2", "layer3"]
STEPS = np.linspace(0, 1, 11)


def extractor(data, share):
    """Return an unfitted extractor; a share of None measures no effective fields."""
    preprocess = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)]
    )
    measured = {"n_field_images": 0} if share is None else {"field_share": share}
    return FeatureExtractor(data.cifar_resnet20(), LAYERS, preprocess=preprocess, batch_size=100, **measured)


def area(maps, words, mean, layer, scores):
    """Return the mean area under the curve where words (n, K) go in the order of falling scores."""
    ranks, areas = (-scores).argsort(1, kind="stable").argsort(1), []
    for part in maps.reruns(layer):
        n = len(part.original.decisions)
        rows = slice(part.original.start, part.original.start + n)
        shown = words.words[layer][rows]
        order = np.take_along_axis(ranks[rows], shown.reshape(n, -1), 1).argsort(1, kind="stable").argsort(1)
        curve = []
        for step in STEPS:
            gone = torch.from_numpy((order < round(step * order.shape[1])).reshape(shown.shape))
            outputs = part.run({layer: _ablation.replace(gone, mean)}).outputs
            curve.append(proba_of(outputs, words.decisions[rows]))
        areas.append(np.trapezoid(curve, STEPS, axis=0))
    return np.concatenate(areas).mean()


def bits(graph, words):
    """Return by pair of layers the mean log-ratio over pairs of locations."""
    found = {}
    for (upper, lower), field in graph._structure(words).fields.items():
        if upper != "decision":
            ratios = graph.log_ratios_[upper, lower]
            counts = count_pairs(words.words[upper], words.words[lower], field, *ratios.shape)
            found[lower] = (counts * ratios).sum() / counts.sum()
    return found


def main(n_words, n_test):
    sys.path.insert(0, os.environ["SKGMMCNN_DATA"])
    import load as data

    train, test = data.cifar10("train")[0], data.cifar10("test")[0][:n_test]
    maps = extractor(data, None).fit(train).transform(test)
    dictionary = LayerDictionary(n_words, random_state=0)
    fitted = dictionary.fit_transform(extractor(data, None).fit_transform(train))
    words, rng = dictionary.transform(maps), np.random.default_rng(0)
    parts = next(iter(maps[:1].batches())).activations
    means = {layer: _ablation.layer_mean(dictionary, layer, parts[layer]) for layer in LAYERS}
    chance = {
        layer: np.mean([area(maps, words, means[layer], layer, rng.random((n_test, n_words))) for _ in range(3)])
        for layer in LAYERS[:2]
    }
    print(f"{'share':6}{'layer':8}{'bits':>7}{'by score':>10}{'per location':>14}")
    for share in (None, 0.5, 0.68, 0.8, 0.9):
        spec = extractor(data, share).fit(train).spec_
        graph, seen = InferenceGraph().fit(replace(fitted, spec=spec)), replace(words, spec=spec)
        scores = np.split(graph.transform(seen), len(LAYERS), axis=1)
        numbers = np.split(words.histogram(), len(LAYERS), axis=1)
        told = bits(graph, seen)
        for layer, score, number in list(zip(LAYERS, scores, numbers, strict=True))[1::-1]:
            ratios = [
                area(maps, words, means[layer], layer, order) / chance[layer]
                for order in (score, score / np.maximum(number, 1))
            ]
            print(f"{share or 'whole':<6}{layer:8}{told[layer]:7.2f}{ratios[0]:10.3f}{ratios[1]:14.3f}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:] or (200, 300)))
