"""Time of a fit: two passes of the network, and mixtures with the rate of a bare matrix product.

SqueezeNet on photographs of ten classes, three layers with 200 words each, other parameters by default.  Times are sums
over all processors, which other work on the machine hardly affects.

    SKGMMCNN_DATA=... python benchmarks/bench_fit.py [number of photographs]
"""

import sys
import time

import torch
from bench_influence import LAYERS
from bench_words import Timed
from common import load_data
from torchvision import transforms

from skgmmcnn import FeatureExtractor
from skgmmcnn.mixture._em import Expectation

N_WORDS = 200


def timed(function, *args):
    """Return the processor time and the result."""
    start = time.process_time()
    result = function(*args)
    return time.process_time() - start, result


def product_rate():
    """Return the operations per second of processor time of a large matrix product."""
    one, other = torch.rand(4096, 4096), torch.rand(4096, 4096)
    seconds = min(timed(torch.mm, one, other)[0] for _ in range(3))
    return 2 * 4096**3 / seconds


class Counting(Timed):
    """A dictionary that counts the operations of its E-steps, products of rows, words and channels."""

    operations = 0.0

    def _mixture(self, layer, sample):
        add = Expectation.add

        def counted(expectation, rows):
            Counting.operations += 2 * rows.values.numel() * N_WORDS
            add(expectation, rows)

        Expectation.add = counted
        try:
            return super()._mixture(layer, sample)
        finally:
            Expectation.add = add


def main(n_images=1000):
    data = load_data()
    preprocess = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)]
    )
    images, *_ = data.imagenette("train")
    extractor = FeatureExtractor(data.squeezenet(), LAYERS, preprocess=preprocess, device="cpu")
    seconds, maps = timed(extractor.fit_transform, [images[row] for row in range(n_images)])
    print(f"extractor {seconds:.1f} s")
    passes = sum(timed(lambda: sum(len(batch.decisions) for batch in maps.batches()))[0] for _ in range(2))
    dictionary = Counting(N_WORDS, random_state=0)
    fit, _ = timed(dictionary.fit, maps)
    mixtures = sum(dictionary.seconds.values())
    print(
        f"two passes of the network {passes:.1f} s, mixtures {mixtures:.1f} s, whole fit of the dictionary {fit:.1f} s"
    )
    print(f"mixtures : passes {mixtures / passes:.2f}")
    passed = {layer: len(bounds) for layer, bounds in dictionary.lower_bounds_.items()}
    rate = Counting.operations / mixtures
    print(f"passes over the samples {passed}; {rate / product_rate():.0%} of the rate of a large matrix product")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
