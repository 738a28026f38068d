"""Occlusion of the places of a graph's words, compared with places by Grad-CAM and by influence.

SqueezeNet, features.12, three words per graph, right and wrong decisions on held-out photographs of ten classes.  Each
method selects as many locations as the words of the graph have.  Their pixels become grey or blurred.  The reference
for the fall of the decision's log-probability is the same mask rolled to other places.

    SKGMMCNN_DATA=... python benchmarks/bench_hiding.py [n_fitted] [n_decisions]
"""

import sys

import numpy as np
import torch
from common import load_data
from sklearn.pipeline import make_pipeline
from torchvision import transforms
from torchvision.transforms.functional import gaussian_blur

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary

LAYER = "features.12"
N_ROLLS = 8


def fitted(n_fitted):
    """Return the fitted pipeline, and held-out images and labels of the ten classes."""
    data = load_data()
    train, test = data.imagenette("train"), data.imagenette("test")
    preprocess = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)]
    )
    extractor = FeatureExtractor(data.squeezenet(), [LAYER], preprocess=preprocess, device="cpu")
    rows = np.random.RandomState(0).permutation(len(train[0]))[:n_fitted]
    pipe = make_pipeline(extractor, LayerDictionary(200, random_state=0), InferenceGraph(random_state=0))
    pipe.fit([train[0][row] for row in rows])
    drawn = np.random.RandomState(1).permutation(len(test[0]))
    return pipe, [test[0][row] for row in drawn], np.array([test[1][row] for row in drawn])


def grad_cam(network, images, outputs):
    """Return Grad-CAM's map of each image, (n, 13, 13)."""
    below, above = network.features, network.classifier
    with torch.no_grad():
        activations = below(images)
    activations.requires_grad_()
    scores = above(activations).flatten(1).gather(1, outputs[:, None]).sum()
    (gradient,) = torch.autograd.grad(scores, activations)
    return (gradient.mean((2, 3), keepdim=True) * activations).sum(1).relu().detach().numpy()


def strongest(maps, numbers):
    """Return a mask (n, h, w) of the largest values of each map, with a number per map."""
    ranks = np.argsort(np.argsort(-maps.reshape(len(maps), -1), axis=1), axis=1)
    return (ranks < numbers[:, None]).reshape(maps.shape)


def falls(network, images, outputs, masks, fill):
    """Return the fall of the log-probability of `outputs` without the pixels of location masks, (n,)."""
    pixels = torch.from_numpy(masks).float()[:, None]
    pixels = torch.nn.functional.interpolate(pixels, size=images.shape[2:], mode="nearest") > 0.5
    grey = images.mean((2, 3), keepdim=True).expand_as(images)
    other = grey if fill == "grey" else gaussian_blur(images, [51, 51], [12.0, 12.0])
    with torch.no_grad():
        before, after = (
            network(each).log_softmax(1).gather(1, outputs[:, None])[:, 0]
            for each in (images, torch.where(pixels, other, images))
        )
    return (before - after).numpy()


def measure(pipe, images, name):
    """Print the mean falls of one set of images."""
    words = pipe[:-1].transform(images)
    outputs, network = torch.from_numpy(words.decisions), pipe[0].network_
    batch = torch.stack([pipe[0].preprocess_(image) for image in images_of(images)])
    graphs = pipe[-1].explain(words)
    maps = words.influence.of_classes(words.decisions.tolist(), layers=[LAYER]).maps[LAYER]
    kept = [[node["word"] for _, node in graph.nodes(data=True) if node.get("layer") == LAYER] for graph in graphs]
    places = np.stack([np.isin(words.words[LAYER][i], chosen) for i, chosen in enumerate(kept)])
    numbers = places.reshape(len(places), -1).sum(1)
    random = np.random.RandomState(0)
    shifts = random.randint(places.shape[1:], size=(N_ROLLS, 2))
    cam = grad_cam(network, batch, outputs)
    speaking = places & (maps > 0)
    print(f"{name}: {len(images)} decisions, words at {numbers.mean():.0f} of {places[0].size} locations")
    for fill in ("grey", "blurred"):
        fall = lambda masks: falls(network, batch, outputs, masks, fill).mean()  # noqa: B023,E731
        rolled = np.mean([fall(np.roll(places, tuple(shift), (1, 2))) for shift in shifts])
        own, cells, cams = fall(places), fall(strongest(maps, numbers)), fall(strongest(cam, numbers))
        few = speaking.reshape(len(places), -1).sum(1)
        ours, peers = fall(speaking), fall(strongest(cam, few))
        print(f"  {fill:8} words {own:.2f}  rolled {rolled:.2f}  influence {cells:.2f}  Grad-CAM {cams:.2f}", end="")
        print(f"  (words : rolled {own / rolled:.2f}, words : Grad-CAM {own / cams:.2f})")
        print(f"  {'':8} words where they speak for it, {few.mean():.0f} locations: {ours:.2f}, Grad-CAM {peers:.2f}")


def images_of(files):
    """Return preprocessed photographs."""
    from PIL import Image

    return [Image.open(file).convert("RGB") for file in files]


def main():
    n_fitted, n = (int(word) for word in (*sys.argv[1:], *("600", "60")[len(sys.argv) - 1 :]))
    pipe, images, labels = fitted(n_fitted)
    decisions = np.concatenate([batch.decisions for batch in pipe[0].transform(images).batches()])
    for name, rows in (("right", decisions == labels), ("wrong", decisions != labels)):
        measure(pipe, [images[row] for row in np.flatnonzero(rows)[:n]], name)


if __name__ == "__main__":
    main()
