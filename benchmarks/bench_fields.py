"""Deletion orders by counts in effective fields of several shares, and in whole fields.

Words of CIFAR ResNet20 are deleted in the order of their bits in the graph of each image's decision, and of bits per
location.  The figures are areas under the deletion curve relative to a random order.  The order of the top layer is
independent of the fields.  The script first prints the reports of dictionaries with three seeds.

    SKGMMCNN_DATA=... python benchmarks/bench_fields.py [n_words] [n_test]
"""

import sys
from dataclasses import replace

from common import load_data
from sklearn.pipeline import make_pipeline
from torchvision import transforms

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.features._effective_field import effective_fields
from skgmmcnn.metrics import completeness, deletion

LAYERS = ["layer1", "layer2", "layer3"]
SHARES = [0.5, 0.68, 0.8, 0.9]


def extractor(data):
    """Return an unfitted extractor."""
    preprocess = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)]
    )
    return FeatureExtractor(data.cifar_resnet20(), LAYERS, preprocess=preprocess, batch_size=100)


def report(name, words, graph, maps, layers):
    """Print one line for each layer."""
    pipe = make_pipeline(words, graph)
    for layer in layers:
        curves = deletion(pipe, maps, layer, orders=["graph", "per_location", "random"], random_state=0)
        by_bits, each = curves.ratio("graph"), curves.ratio("per_location")
        print(f"{name:8}{layer:8}{by_bits.value:10.3f}      {each:.3f}", flush=True)


def main(n_words, n_test):
    data = load_data()
    train, test = data.cifar10("train")[0], data.cifar10("test")[0][:n_test]
    fitted = extractor(data).fit(train)
    train_maps, maps = (fitted.transform(images).compute() for images in (train, test))
    words = [LayerDictionary(n_words, keep_patches=False, random_state=seed).fit(train_maps) for seed in range(3)]
    for seed, each in enumerate(words):
        print(f"seed {seed}:\n{completeness(each, maps)}", flush=True)
    shown = words[0].transform(train_maps)
    print(f"{'fields':8}{'layer':8}{'by bits':>10}{'per location':>14}")
    report("whole", words[0], InferenceGraph(evidence="counts", fields="whole").fit(shown), maps, LAYERS[::-1])
    for share in SHARES:
        whole = {pair: fitted.spec_.receptive_fields[pair] for pair in fitted.spec_.effective_fields}
        some = next(train_maps[:: len(train) // 4].rerun(lambda part: part.images))
        spec = replace(fitted.spec_, effective_fields=effective_fields(fitted._captured, some, whole, share))
        report(
            f"{share}", words[0], InferenceGraph(evidence="counts").fit(replace(shown, spec=spec)), maps, LAYERS[1::-1]
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:] or (200, 2000)))
