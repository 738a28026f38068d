"""Counts of word pairs, compared with loops in numpy; explanations, compared with a pass of the network.

Random words in maps of a ResNet50 at 224 x 224, counted in whole receptive fields.

    python benchmarks/bench_graph.py [n_words]
"""

import sys

import numpy as np
import torch
from common import alone, timed
from torchvision.models import resnet50

from skgmmcnn import FeatureExtractor, InferenceGraph
from skgmmcnn.dictionary import Vocabulary, WordMaps
from skgmmcnn.graph._count_evidence import sum_over_fields
from skgmmcnn.graph._count_tables import count_pairs
from skgmmcnn.graph._hierarchy import Hierarchy

LAYERS = ["layer1", "layer2", "layer3", "layer4"]


def loop_over_locations_and_words(upper, lower, field, n_upper, n_lower):
    """Compare the window of each upper location with each lower word."""
    counts = np.zeros((n_upper, n_lower), dtype=np.int64)
    for above, below in zip(upper, lower, strict=True):
        for i, j in np.ndindex(above.shape):
            window = below[field.window(i, j)]
            for word in range(n_lower):
                counts[above[i, j], word] += (window == word).sum()
    return counts


def loop_over_locations(upper, lower, field, n_upper, n_lower):
    """Compute a histogram of the window of each upper location."""
    counts = np.zeros((n_upper, n_lower), dtype=np.int64)
    for above, below in zip(upper, lower, strict=True):
        for i, j in np.ndindex(above.shape):
            counts[above[i, j]] += np.bincount(below[field.window(i, j)].ravel(), minlength=n_lower)
    return counts


def spec_of(network):
    images = np.zeros((1, 3, 224, 224), dtype=np.float32)
    return FeatureExtractor(network, LAYERS, preprocess=None).fit(images).spec_


def random_words(spec, n_words, n_images, seed=0):
    rng = np.random.default_rng(seed)
    return WordMaps(
        {x: rng.integers(0, n_words, (n_images, *spec.shapes[x][1:]), dtype=np.uint16) for x in spec.layers},
        rng.integers(0, spec.n_outputs, n_images),
        spec,
        Vocabulary(dict.fromkeys(spec.layers, n_words), "random"),
    )


def counting(n_words):
    """Return for each pair of layers the pairs per image, million pairs per second, and the times of the loops."""
    spec, rows = spec_of(resnet50()), []
    for (upper, lower), field in list(Hierarchy.of(spec, {}).fields.items())[1:]:
        n_pairs = int(sum_over_fields(np.ones(spec.shapes[upper][1:]), field).sum())
        n_images = max(1, 200_000_000 // n_pairs)
        words = random_words(spec, n_words, n_images).words
        maps = words[upper], words[lower]
        seconds, counts = timed(count_pairs, *maps, field, n_words, n_words)
        few = [array[:1] for array in maps]
        ours = count_pairs(*few, field, n_words, n_words)
        by_word, expected = timed(loop_over_locations_and_words, *few, field, n_words, n_words)
        by_location, also = timed(loop_over_locations, *few, field, n_words, n_words)
        assert (ours == expected).all() and (ours == also).all() and counts.sum() == n_pairs * n_images  # noqa: PT018
        per_image = seconds / n_images
        rows.append(
            (f"{upper} over {lower}", n_pairs, n_pairs / per_image / 1e6, by_word / per_image, by_location / per_image)
        )
    return rows


def fitting(n_words, n_images):
    """Return the seconds of a fit to existing words."""
    words = random_words(spec_of(resnet50()), n_words, n_images)
    seconds, _ = timed(InferenceGraph().fit, words)
    return seconds


def explaining(n_words):
    """Return the milliseconds of a pass over one image, and of its explanation from words."""
    network = resnet50().eval()
    words = random_words(spec_of(network), n_words, 20)
    graph = InferenceGraph().fit(words)
    image = torch.zeros(1, 3, 224, 224)
    with torch.inference_mode():
        network(image)
        forward = min(timed(network, image)[0] for _ in range(5))
    graph.explain(words[:1])
    seconds, _ = timed(graph.explain, words)
    return 1000 * forward, 1000 * seconds / len(words)


def main(n_words):
    print(f"K = {n_words}")
    print(f"{'':20}{'pairs/image':>12}{'M pairs/s':>11}{'x by word':>11}{'x by location':>15}")
    rows, _ = alone(counting, n_words)
    for name, pairs, rate, by_word, by_location in rows:
        print(f"{name:20}{pairs:12,}{rate:11.0f}{by_word:11.0f}{by_location:15.1f}", flush=True)
    forward, explain = alone(explaining, n_words)[0]
    print(f"one image: forward {forward:.1f} ms, explain {explain:.2f} ms, {explain / forward:.1%}", flush=True)
    n_images = 100
    _, idle = alone(fitting, n_words, 1)
    seconds, memory = alone(fitting, n_words, n_images)
    each = 1000 * seconds / n_images
    print(f"fit: {each:.1f} ms an image, {each / forward:.1%} of forward, {memory - idle:.2f} GB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
