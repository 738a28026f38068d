"""Error of linear readouts by number of words: generative and discriminative words.

As in the figure of the paper (ECCV 2020): words of the stages of CIFAR ResNet20 are trained on training images.  The
error is the disagreement with the network on test images.  Writes readouts.png.

    SKGMMCNN_DATA=... python benchmarks/bench_readouts.py [n_words ...]
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
from common import load_data, timed
from torchvision import transforms

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary

LAYERS = ["layer1", "layer2", "layer3"]
# All 256 locations of layer2 in all 3,000 images, and a sample for layer1.
MAX_SAMPLES = 800_000


def measured(train, test, n_words, objective):
    """Return the seconds, the error by layer, and the error of the graph."""
    decisions = test.outputs.argmax(1)
    dictionary = LayerDictionary(
        n_words, objective=objective, max_samples=MAX_SAMPLES, keep_patches=False, random_state=0
    )
    seconds, words = timed(dictionary.fit_transform, train)
    if objective == "generative":
        dictionary.fit_readout(train)
    found = dictionary.predict_class_proba(test)
    graph = InferenceGraph().fit(words)
    errors = {layer: float((found[layer].argmax(1) != decisions).mean()) for layer in LAYERS}
    return seconds, errors, 1 - graph.score(dictionary.transform(test))


def main(sizes=(25, 50, 100, 200, 400)):
    data = load_data()
    preprocess = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)]
    )
    extractor = FeatureExtractor(data.cifar_resnet20(), LAYERS, preprocess=preprocess)
    train, test = (extractor.fit_transform(data.cifar10(split)[0]).compute() for split in ("train", "test"))
    print(f"{'words':>6} {'objective':16}{'seconds':>9}" + "".join(f"{layer:>9}" for layer in LAYERS) + f"{'graph':>9}")
    errors = {}
    for n_words in sizes:
        for objective in ("generative", "discriminative"):
            seconds, by_layer, graph = measured(train, test, n_words, objective)
            errors[n_words, objective] = by_layer
            shares = "".join(f"{share:9.1%}" for share in [*by_layer.values(), graph])
            print(f"{n_words:6} {objective:16}{seconds:9.1f}{shares}", flush=True)
    _, ax = plt.subplots(layout="constrained")
    for colour, layer in enumerate(LAYERS):
        for objective, line in [("generative", "--"), ("discriminative", "-")]:
            values = [100 * errors[size, objective][layer] for size in sizes]
            ax.plot(sizes, values, line, color=f"C{colour}", marker="o", label=f"{layer}, {objective}")
    ax.set(xscale="log", xlabel="words per layer", ylabel="disagreement with the network on test images (%)")
    ax.minorticks_off()
    ax.set_xticks(sizes, labels=map(str, sizes))
    ax.set_ylim(0, 1.05 * 100 * np.max([list(by_layer.values()) for by_layer in errors.values()]))
    ax.figure.legend(loc="outside upper center", ncols=3, fontsize="small")
    ax.figure.savefig("readouts.png")


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or (25, 50, 100, 200, 400))
