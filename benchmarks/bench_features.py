"""Time of passes over images, relative to a bare forward pass over the same images in the same batches.

Three layers of networks with random weights, 200 words each: feature maps, a fit of the dictionary (two passes), the
same fit with a store that is filled in the first pass, and transform.  The bare pass uses torch's default memory
layout; "bare, channels last" uses the layout in which networks run on a CPU.

    python benchmarks/bench_features.py [network ...]
    python benchmarks/bench_features.py memory          (peak memory with 1, 4 and 16 times the images)
    SKGMMCNN_DATA=... python benchmarks/bench_features.py precision
"""

import copy
import sys
import tempfile

import numpy as np
import torch
import torchvision
from common import alone, load_data, timed
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.models import SqueezeNet1_1_Weights

from skgmmcnn import FeatureExtractor, LayerDictionary

BATCH = 32
SETTINGS = {
    "squeezenet1_1": (["features.7", "features.9", "features.12"], 2048),
    "squeezenet1_1:55": (["features.4", "features.9", "features.12"], 2048),  # a layer of 55 x 55 locations
    "resnet18": (["layer2", "layer3", "layer4"], 1024),
    "resnet50": (["layer2", "layer3", "layer4"], 512),
    "vgg16": (["features.22", "features.29", "avgpool"], 96),
}


class Drawn(Dataset):
    """Images that are generated when they are read."""

    def __init__(self, n_images, side):
        self.n_images, self.side = n_images, side

    def __len__(self):
        return self.n_images

    def __getitem__(self, number):
        return torch.randn(3, self.side, self.side, generator=torch.Generator().manual_seed(number))


def bare(network, X, memory_format=torch.contiguous_format):
    with torch.no_grad():
        for start in range(0, len(X), BATCH):
            network(torch.from_numpy(X[start : start + BATCH]).contiguous(memory_format=memory_format))


def read(maps):
    for _ in maps.batches():
        pass


def ratios(name):
    layers, n_images = SETTINGS[name]
    torch.manual_seed(0)
    network = torchvision.models.get_model(name.partition(":")[0], weights=None).eval()
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    X = np.random.default_rng(0).standard_normal((n_images, 3, 224, 224), dtype=np.float32)
    settings = {"preprocess": None, "batch_size": BATCH}
    maps = FeatureExtractor(network, layers, **settings).fit_transform(X)
    dictionary = LayerDictionary(200, random_state=0, keep_patches=False)
    bare(network, X[:BATCH])
    before, _ = timed(bare, network, X)
    found = {"bare, channels last": timed(bare, last, X, torch.channels_last)[0]}
    found["extraction"] = timed(read, maps)[0]
    found["fit"] = timed(dictionary.fit, maps)[0]
    found["transform"] = timed(dictionary.transform, maps)[0]
    with tempfile.TemporaryDirectory() as store:
        stored = FeatureExtractor(network, layers, store=store, **settings).fit_transform(X)
        found["fit, stored"] = timed(dictionary.fit, stored)[0]
    after, _ = timed(bare, network, X)
    return (before + after) / 2, found, n_images


def passes(names):
    columns = ["bare, channels last", "extraction", "fit", "fit, stored", "transform"]
    print(f"{'network':16}{'images':>8}{'bare s':>8}" + "".join(f"{column:>{len(column) + 2}}" for column in columns))
    for name in names:
        (seconds, found, n_images), _ = alone(ratios, name)
        shares = "".join(f"{found[column] / seconds:{len(column) + 2}.2f}" for column in columns)
        print(f"{name:17}{n_images:7}{seconds:8.1f}{shares}", flush=True)


def road(n_images):
    """Fit a dictionary and return the size of the words in GB."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None)
    extractor = FeatureExtractor(network, ["layer1", "layer2", "layer3"], preprocess=None)
    maps = extractor.fit_transform(Drawn(n_images, 64))
    words = LayerDictionary(50, random_state=0, max_samples=20_000, keep_patches=False).fit_transform(maps)
    return sum(array.nbytes for array in words.words.values()) / 1e9


def memory():
    print(f"{'images':>8}{'peak GB':>9}{'words GB':>10}")
    for n_images in (500, 2000, 8000):
        words, peak = alone(road, n_images)
        print(f"{n_images:8}{peak:9.2f}{words:10.3f}", flush=True)


def changed_words(name, network, layers, X, preprocess):
    """Print the fraction of locations with another word than in float32, and the relative time of a pass."""

    def maps_of(network):
        return FeatureExtractor(network, layers, preprocess=preprocess).fit_transform(X)

    exact = maps_of(network)
    dictionary = LayerDictionary(200, random_state=0, keep_patches=False)
    expected, seconds = dictionary.fit(exact).predict(exact), timed(read, exact)[0]
    with tempfile.TemporaryDirectory() as folder:
        stored = exact.store(folder, dtype="float16")
        found = {"float16 store": (dictionary.predict(stored), timed(read, stored)[0])}
    reduced = maps_of(copy.deepcopy(network).bfloat16())
    reduced._source.spec = exact.spec  # whose words else are those of another network
    found["bfloat16"] = dictionary.predict(reduced), timed(read, reduced)[0]
    for kind, (words, taken) in found.items():
        shares = "  ".join(f"{layer} {(words[layer] != expected[layer]).mean():.2%}" for layer in layers)
        print(f"{name:12} {kind:14} time {taken / seconds:5.2f}  {shares}", flush=True)


def precision():
    data = load_data()
    normalised = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)]
    )
    layers = ["layer1", "layer2", "layer3"]
    changed_words("ResNet20", data.cifar_resnet20(), layers, data.cifar10("test")[0], normalised)
    layers = ["features.7", "features.9", "features.12"]
    files = data.imagenet()[0]
    changed_words("SqueezeNet", data.squeezenet(), layers, files, SqueezeNet1_1_Weights.DEFAULT.transforms())


def main(names):
    if names == ["memory"]:
        memory()
    elif names == ["precision"]:
        precision()
    else:
        passes(names or list(SETTINGS))


if __name__ == "__main__":
    main(sys.argv[1:])
