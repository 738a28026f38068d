"""Influence: time in forward passes and relative to Captum, and accuracy.

SqueezeNet on photographs of ten classes, K = 200, three layers.  Captum is optional (``pip install captum``).

    SKGMMCNN_DATA=... python benchmarks/bench_influence.py [n_fitted] [n_explained]
"""

import resource
import sys

import numpy as np
import torch
from common import load_data, timed
from scipy.stats import spearmanr
from sklearn.pipeline import make_pipeline
from torchvision import transforms

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.dictionary import ClassMargin
from skgmmcnn.graph import pair_effects
from skgmmcnn.graph._influence_traces import Tracer
from skgmmcnn.graph._kinds import evidence_for
from skgmmcnn.graph._targets import targets_of

LAYERS = ["features.7", "features.9", "features.12"]
TIMES = 3


def fitted(n_fitted):
    """Return the fitted pipeline, and words of test photographs of the ten classes."""
    data = load_data()
    train, test = data.imagenette("train")[0], data.imagenette("test")[0]
    preprocess = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)]
    )
    extractor = FeatureExtractor(data.squeezenet(), LAYERS, preprocess=preprocess, device="cpu")
    rows = np.random.RandomState(0).permutation(len(train))[:n_fitted]
    pipe = make_pipeline(extractor, LayerDictionary(200, random_state=0), InferenceGraph(random_state=0))
    pipe.fit([train[row] for row in rows])
    return pipe, [test[row] for row in np.random.RandomState(1).permutation(len(test))]


def best(function, *args):
    """Return the shortest time of several runs."""
    return min(timed(function, *args)[0] for _ in range(TIMES))


def costs(pipe, images, n):
    """Print the time of explanations in forward passes of the same images, all in memory."""
    words, network, part = pipe[:-1].transform(images[:n]), pipe[0].network_, None

    def keep(rerun):
        nonlocal part
        part = rerun

    list(words.influence.rerun(keep))
    batch = part.images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        forward = best(network, batch)
    margin = ClassMargin(words.decisions)
    influence = best(lambda: [words.influence.attribute(part, layer, margin, 4) for layer in LAYERS])
    question = evidence_for(pipe[-1], words)._question(targets_of(words))

    def whole():
        Tracer(words, words.influence, question, part).measure_kept_words()

    print(f"{n} images: influence of three layers {influence / forward:.1f} forward passes, ", end="")
    print(f"whole graphs {best(whole) / forward:.1f}", flush=True)
    peer(network, batch, words, influence)


def peer(network, batch, words, influence):
    """Print the relative time of Captum's layer integrated gradients for the same layers and steps."""
    try:
        from captum.attr import LayerIntegratedGradients
    except ImportError:
        print("Captum is not installed")
        return
    targets = torch.from_numpy(words.decisions)

    def theirs():
        for layer in LAYERS:
            method = LayerIntegratedGradients(network, network.get_submodule(layer))
            method.attribute(batch, torch.zeros_like(batch), target=targets, n_steps=4)

    print(f"  Captum's layer integrated gradients take {best(theirs) / influence:.1f} times as long", flush=True)


def claims(pipe, images, n):
    """Print completeness, and the correlation of flows and exact effects."""
    words = pipe[:-1].transform(images[:n])
    found = words.influence.of_classes()
    for layer, maps in found.maps.items():
        lead = found.margins - found.baselines[layer]
        error = np.abs(maps.sum((1, 2)) - lead) / np.abs(lead)
        print(f"{layer}: sums miss {np.median(error):.2%}, the rule alone {np.median(found.residuals[layer]):.1%}")
    for (upper, lower), pairs in pair_effects(pipe[-1], words)[1].items():  # all pairs of words kept, edges or not
        flow, effect = np.array([(pair.evidence, pair.effect) for pair in pairs]).T
        print(f"{lower} to {upper}: Spearman of flow and exact effect {spearmanr(flow, effect).statistic:.2f}")


def deletion(pipe, images, n, by_location):
    """Print areas under deletion curves by influence, relative to random orders."""
    words = pipe[:-1].transform(images[:n])
    totals = pipe[-1].transform(words)
    columns = np.cumsum([0, *words.vocabulary.n_words.values()])
    rng = np.random.RandomState(0)
    for place, layer in enumerate(LAYERS):
        own = totals[:, columns[place] : columns[place + 1]]
        counts = words.histogram()[:, columns[place] : columns[place + 1]]
        orders = {"influence": own / np.maximum(counts, 1) if by_location else own}
        orders |= {f"random {i}": rng.random_sample(own.shape) for i in range(3)}
        areas = {(kind, name): [] for kind in ("deletion", "insertion") for name in orders}

        def work(part, layer=layer, orders=orders, areas=areas):
            shown = torch.from_numpy(words.words[layer][part.rows].astype(np.int64))
            mean = words.influence.baseline(layer, part.original.activations[layer])
            for name, order in orders.items():
                rank = np.argsort(np.argsort(-order[part.rows], axis=1), axis=1)
                places = torch.from_numpy(rank).gather(1, shown.flatten(1)).double()
                first = (
                    places.argsort(dim=1, stable=True).argsort(1).view_as(shown)
                )  # location by location, word by word
                for kind in ("deletion", "insertion"):
                    curve = []
                    for share in np.linspace(0, 1, 11):
                        taken = first < share * shown[0].numel()
                        gone = taken if kind == "deletion" else ~taken
                        with torch.no_grad():
                            run = part.run({layer: lambda maps, gone=gone: torch.where(gone[:, None], mean, maps)})
                        proba = run.outputs.softmax(1)[torch.arange(len(gone)), part.original.decisions]
                        curve.append(proba.numpy())
                    areas[kind, name].append(np.mean(curve, axis=0))

        list(words.influence.rerun(work))
        ratios = []
        for kind in ("deletion", "insertion"):
            mine, *others = (np.concatenate(areas[kind, name]) for name in orders)
            other = np.mean(others, axis=0)
            draws = np.random.RandomState(0).randint(len(mine), size=(1000, len(mine)))
            low, high = np.percentile(mine[draws].mean(1) / other[draws].mean(1), [2.5, 97.5])
            ratios.append(f"{kind} {mine.mean() / other.mean():.2f} ({low:.2f} to {high:.2f})")
        order = "random order, per location" if by_location else "random order"
        print(f"{layer}: {', '.join(ratios)} of {order}", flush=True)


def sets(pipe, n=30):
    """Print the Jaccard index of class graphs of two sets of n photographs, with five words per layer."""
    photographs = load_data().imagenette("train")[0]
    words = pipe[:-1].transform([photographs[row] for row in range(len(photographs))])
    graph = InferenceGraph(n_nodes=5, random_state=0).fit(words)
    alike, rng = {layer: [] for layer in LAYERS}, np.random.RandomState(0)
    outputs = np.flatnonzero(np.bincount(words.decisions) >= 100)
    for output in outputs:
        rows = rng.permutation(np.flatnonzero(words.decisions == output))
        both = [graph.explain_class(words[part], int(output)) for part in (rows[:n], rows[n : 2 * n])]
        for layer in LAYERS:
            one, other = ({node["word"] for node in each.nodes.values() if node["layer"] == layer} for each in both)
            alike[layer].append(len(one & other) / len(one | other))
    print(f"words that class graphs of {n} images share, over {len(outputs)} classes (Jaccard): ", end="")
    print(", ".join(f"{layer} {np.mean(values):.2f}" for layer, values in alike.items()))


def memory(pipe, images):
    """Print the peak memory after few and after many images."""
    peaks = []
    for n in (32, len(images)):
        pipe[-1].transform(pipe[:-1].transform(images[:n]))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
    print(f"peak memory: {peaks[0]:.2f} GiB after 32 images, {peaks[1]:.2f} GiB after {len(images)}")


def main(n_fitted=800, n_explained=100):
    pipe, images = fitted(n_fitted)
    costs(pipe, images, 1)
    costs(pipe, images, 16)
    claims(pipe, images, n_explained)
    for by_location in (True, False):
        deletion(pipe, images, n_explained, by_location)
    memory(pipe, images)
    sets(pipe)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
