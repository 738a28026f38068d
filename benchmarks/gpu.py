"""Comparison of a GPU with the CPU: agreement of results, speed, and memory.

Requires torch, torchvision, scikit-learn, scipy, networkx and matplotlib only.  It takes some minutes, prints a table,
and exits with 1 if results differ; insufficient speed is only reported.  Without a GPU, a small run on the CPU tests
the checks, without those of memory.

    python benchmarks/gpu.py
"""

import sys
import time
import warnings

import numpy as np
import torch
import torchvision
from torch import nn

from skgmmcnn import DiagonalGaussianMixture, FeatureExtractor, InferenceGraph, LayerDictionary

LAYERS = ["layer2", "layer3", "layer4"]
FIT, TRANSFORM = 3.0, 1.2  # bare forward passes that a fit and a transform may take


class Table:
    """Lines of checks with their results and verdicts."""

    def __init__(self):
        self.n_wrong = 0

    def agrees(self, what, right, found):
        """Add a result that must agree."""
        self.n_wrong += not right
        print(f"{what:58}{found:>24}  {'ok' if right else 'DISAGREES'}", flush=True)

    def tell(self, what, found, as_asked=None):
        """Add a figure."""
        print(f"{what:58}{found:>24}  {'' if as_asked is None else 'ok' if as_asked else 'short'}", flush=True)


def network_of(small):
    """Return a network with fixed weights whose outputs differ from image to image."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torchvision.models.resnet18() if small else torchvision.models.resnet50()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.3)
        nn.init.normal_(network.fc.weight)
    return network.eval()


def images_of(n, size):
    """Return blurred noise, with correlated neighbouring pixels."""
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(n, 3, size // 8, size // 8)).astype(np.float32))
    return nn.functional.interpolate(noise, size=size, mode="bicubic").numpy()


def extractor_of(network, device, **options):
    """Return an extractor on a device."""
    return FeatureExtractor(network, LAYERS, preprocess=None, device=device, **options)


def compare(table, network, images, device, n_words):
    """Compare words, likelihoods and graphs of one dictionary on both devices."""
    maps = [extractor_of(network, where).fit_transform(images) for where in ("cpu", device)]
    for layer in LAYERS:
        values = [
            np.concatenate([batch.activations[layer].numpy(force=True) for batch in each.batches()]) for each in maps
        ]
        off = np.abs(values[0] - values[1]).max() / np.abs(values[0]).max()
        table.agrees(f"activations of {layer}, largest difference", off < 1e-4, f"{off:.1e}")
    dictionary = LayerDictionary(n_words, random_state=0, max_iter=20, max_samples=20_000, keep_proba=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few passes
        dictionary.fit(maps[0])
    words = [dictionary.transform(each) for each in maps]
    for layer in LAYERS:
        differ = words[0].words[layer] != words[1].words[layer]
        sure = np.minimum(words[0].proba[layer], words[1].proba[layer])[differ].astype(float)
        right = differ.mean() < 0.01 and (sure < 0.9).all()
        table.agrees(f"words of {layer} that differ, all but ties", right, f"{differ.mean():.3%}")
    scores = [dictionary.score(each) for each in maps]
    off = abs(scores[0] - scores[1]) / abs(scores[0])
    table.agrees("likelihoods, relative difference", off < 1e-4, f"{off:.1e}")
    graphs = [InferenceGraph(random_state=0).fit(words[0]).explain(each[:8]) for each in words]
    same = [set(one.nodes) == set(other.nodes) for one, other in zip(*graphs, strict=True)]
    effects = [
        [node.get("effect", 0) - other.nodes[key].get("effect", 0) for key, node in one.nodes.items() if key in other]
        for one, other in zip(*graphs, strict=True)
    ]
    off = max(abs(each) for of_image in effects for each in of_image)
    table.agrees("graphs with the same words", np.mean(same) >= 0.75, f"{np.sum(same)} of {len(same)}")
    table.agrees("effects of their words, largest difference (nats)", off < 1e-2, f"{off:.1e}")


def synchronised(device):
    """Return the time after all work of a GPU is done."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(function, device, times=3):
    """Return the shortest time of several runs."""
    found = []
    for _ in range(times):
        began = synchronised(device)
        function()
        found.append(synchronised(device) - began)
    return min(found)


def mixtures(table, device, n_rows, n_channels, n_words, n_passes=10):
    """Compare a fit of a mixture with the peak of matrix products, in float32."""
    size = 512 if device == "cpu" else 8192
    square = torch.randn(size, size, device=device)
    peak = 2 * size**3 / timed(lambda: square @ square, device)
    rows = torch.randn(n_rows, n_channels, device=device)
    mixture = DiagonalGaussianMixture(n_words, max_iter=n_passes, tol=0, init_params="random_from_data", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = timed(lambda: mixture.fit(rows), device, 2)
    done = n_passes * 4 * 2 * n_rows * n_channels * n_words  # two products of two statistics each
    table.tell("matrix products, tera-operations a second", f"{peak / 1e12:.2f}")
    table.tell("share of that in fits of mixtures", f"{done / seconds / peak:.0%}")


def road(table, network, images, device, n_words, batch_size):
    """Compare fit and transform with bare forward passes over the same images."""
    extractor = extractor_of(network, device, batch_size=batch_size).fit(images)
    bare = extractor.network_.to(device)
    batches = torch.from_numpy(images).split(batch_size)

    def forward():
        with torch.no_grad():
            for batch in batches:
                bare(batch.to(device))

    forward()
    one_pass = timed(forward, device, 2)
    dictionary = LayerDictionary(n_words, random_state=0, keep_patches=False)

    def fit():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            InferenceGraph().fit(dictionary.fit_transform(extractor.transform(images)))

    fitted = timed(fit, device, 1) / one_pass
    transformed = timed(lambda: dictionary.transform(extractor.transform(images)), device, 2) / one_pass
    table.tell("fit, in bare forward passes (at most 3)", f"{fitted:.2f}", fitted <= FIT)
    table.tell("transform, in bare forward passes (at most 1.2)", f"{transformed:.2f}", transformed <= TRANSFORM)
    return extractor, dictionary


def memory(table, extractor, dictionary, images):
    """Compare the peak memory of a GPU for few images and for all, then limit its memory."""
    peaks = []
    for some in (images[: len(images) // 4], images):
        torch.cuda.reset_peak_memory_stats()
        dictionary.transform(extractor.transform(some))
        peaks.append(torch.cuda.max_memory_allocated() / 2**20)
    few, many = peaks
    table.agrees("memory is flat in the number of images (MiB)", many < 1.2 * few, f"{few:.0f}, {many:.0f}")
    expected = dictionary.transform(extractor.transform(images)).words
    torch.cuda.empty_cache()
    held = torch.cuda.memory_allocated()
    room = held + 0.4 * (many * 2**20 - held)
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        with warnings.catch_warnings(record=True) as messages:
            warnings.simplefilter("always")
            found = dictionary.transform(extractor.transform(images)).words
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    halved = any("ran out of memory" in str(each.message) for each in messages)
    same = np.mean([np.mean(found[layer] == expected[layer]) for layer in LAYERS])
    table.agrees("too little memory halves batches, and says so", halved, "yes" if halved else "no")
    table.agrees("the same words with halved batches", same > 0.999, f"{same:.3%}")


def main():
    """Run all checks; return the number of results that differ."""
    there = torch.cuda.is_available()
    device = "cuda" if there else "cpu"
    print(torch.cuda.get_device_name(0) if there else "No GPU: a small run on the CPU, which proves little.")
    table, network = Table(), network_of(small=not there)
    compare(table, network, images_of(64 if there else 8, 224 if there else 64), device, 50 if there else 5)
    mixtures(table, device, *((200_000, 1024, 500) if there else (2000, 32, 10)))
    images = images_of(2048 if there else 16, 224 if there else 64)
    extractor, dictionary = road(table, network, images, device, 200 if there else 5, 128 if there else 8)
    if there:
        memory(table, extractor, dictionary, images)
    print(f"{table.n_wrong} results disagree." if table.n_wrong else "All results agree.")
    return table.n_wrong


if __name__ == "__main__":
    sys.exit(bool(main()))
