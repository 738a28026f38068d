"""
Why a pagoda?  Your own network on photographs
==============================================

A network is trained to distinguish pieces of two photographs.  Its words can be named by inspection: single tiles and
red windows compose rows of tiles, these compose roofs and eaves, and all of them together are evidence for a pagoda.
"""

# %%
# scikit-learn includes two photographs, of a pagoda above a lake and of a dahlia.  Pieces of 96 pixels are cut out of
# regions of one class each.
import numpy as np
from sklearn.datasets import load_sample_images

photographs = np.stack(load_sample_images().images)
regions = {  # of the centres of pieces: photograph, rows, columns
    "pagoda": [(0, (70, 350), (110, 310))],
    "sky": [(0, (48, 130), (390, 592))],
    "trees": [(0, (340, 379), (60, 160)), (0, (340, 379), (400, 592))],
    "dahlia": [(1, (130, 310), (210, 400))],
    "leaves": [(1, (48, 379), (48, 110)), (1, (48, 300), (500, 592))],
}
names = list(regions)
rng = np.random.default_rng(0)


def piece(photograph, row, column):
    """Return the piece of a photograph around a pixel, (96, 96, 3)."""
    return photographs[photograph][row - 48 : row + 48, column - 48 : column + 48]


def pieces(n):
    """Return n pieces of each class, and their labels."""
    images, labels = [], np.repeat(np.arange(len(names)), n)
    for label in labels:
        choices = regions[names[label]]
        photograph, rows, columns = choices[rng.integers(len(choices))]
        images.append(piece(photograph, rng.integers(*rows), rng.integers(*columns)))
    return np.stack(images), labels


train, labels = pieces(120)
test, test_labels = pieces(20)

# %%
# Train a network of four stages, each of which halves the map, in seconds.
import torch
from torch import nn
from torchvision.transforms.functional import to_tensor

torch.manual_seed(0)
network, channels = nn.Sequential(), 3
for stage, width in enumerate([16, 24, 32, 48], start=1):
    layers = nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
    network.add_module(f"stage{stage}", nn.Sequential(*layers))
    channels = width
network.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(names))])
optimizer = torch.optim.Adam(network.parameters(), 0.003)
x, y = torch.stack([to_tensor(image) for image in train]), torch.from_numpy(labels)
for _ in range(12):
    for rows in torch.randperm(len(x)).split(50):
        loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# %%
# Model the last three stages, with the preprocessing of the training.
from sklearn.pipeline import Pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, InferenceGraphDisplay, LayerDictionary

extractor = FeatureExtractor(network, ["stage2", "stage3", "stage4"], preprocess=to_tensor, class_names=names)
pipe = Pipeline(
    [
        ("features", extractor),
        ("words", LayerDictionary(60, max_samples=20_000, random_state=0)),
        ("graph", InferenceGraph(n_nodes=3)),
    ]
).fit(train)
words = pipe[:-1].transform(test)
print(f"The accuracy of the network on {len(test)} test pieces is {(words.decisions == test_labels).mean():.0%}.")
print(f"The words of stage4 predict {pipe['graph'].score(words):.0%} of its decisions.")

# %%
# Why is this a pagoda?  Patches show typical places of each word, and colours its places in this piece.
image = piece(0, 255, 205)
display = InferenceGraphDisplay.from_estimator(pipe, image[None])
display.save("why_pagoda.png")

# %%
# A piece from the border shows a pagoda behind trees.  The contrast explains why the network decides for one *rather
# than* the other, and leaves out words that do not distinguish them.
image = piece(0, 349, 150)
decision = names[pipe[:-1].transform(image[None]).decisions[0]]
other = "pagoda" if decision == "trees" else "trees"
print(f"The decision is {decision!r} rather than {other!r}.")
display = InferenceGraphDisplay.from_estimator(pipe, image[None], contrast=other)
display.save("why_not.png")

# %%
# The same contrast by other methods: Grad-CAM of the last stage, integrated gradients, occlusion by a grey square, and
# the influence of locations in the last stage.  Violet is evidence for the decision, orange evidence for the other
# class.  The first three methods need no fit.  Grad-CAM shows evidence for the decision only, integrated gradients are
# noisy, and occlusion is blurred by the size of the square.  None of the heat maps shows the content of a place,
# similar places, or its composition; see :doc:`/guide/neighbours`.
from time import perf_counter

import matplotlib.pyplot as plt

x = to_tensor(image)[None]
target, contrast = names.index(decision), names.index(other)


def margin(outputs):
    """Return the lead of the decision over the other class, in nats, (n,)."""
    return outputs[:, target] - outputs[:, contrast]


def grad_cam():
    activations = network[:4](x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(margin(network[4:](activations)).sum(), activations)
    return (gradient.mean((2, 3), keepdim=True) * activations).sum(1)[0].relu().detach()


def integrated_gradients(n_steps=32):
    difference = x - x.mean((2, 3), keepdim=True)
    path = (x - difference * torch.linspace(1, 0, n_steps)[:, None, None, None]).requires_grad_()
    (gradients,) = torch.autograd.grad(margin(network(path)).sum(), path)
    return (gradients.mean(0) * difference[0]).sum(0)


def occlusion(size=16, stride=8):
    corners = range(0, 96 - size + 1, stride)
    effects = torch.zeros(len(corners), len(corners))
    for i, row in enumerate(corners):
        for j, column in enumerate(corners):
            hidden = x.clone()
            hidden[..., row : row + size, column : column + size] = x.mean((2, 3), keepdim=True)
            effects[i, j] = (margin(network(x)) - margin(network(hidden))).item()
    return effects


def influence():
    words = pipe[:-1].transform(image[None])
    influences = words.influence.of_classes([target], [contrast], layers=["stage4"])
    return torch.from_numpy(influences.maps["stage4"][0])


figure, axes = plt.subplots(1, 5, figsize=(11, 2.6), layout="constrained")
axes[0].imshow(image)
axes[0].set_title(f"{decision} rather than {other}", fontsize=10)
methods = {
    "Grad-CAM": grad_cam,
    "integrated gradients": integrated_gradients,
    "occlusion": occlusion,
    "influence": influence,
}
for ax, (name, method) in zip(axes[1:], methods.items(), strict=True):
    start = perf_counter()
    values = method()
    seconds = perf_counter() - start
    limit = float(values.abs().max())
    ax.imshow(image.mean(2), cmap="gray", extent=(0, 96, 96, 0))
    ax.imshow(values.numpy(), cmap="PuOr", vmin=-limit, vmax=limit, alpha=0.65, extent=(0, 96, 96, 0))
    ax.set_title(f"{name}, {seconds:.2f} s", fontsize=10)
for ax in axes:
    ax.set_axis_off()
figure.savefig("beside_others.png")
