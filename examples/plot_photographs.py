"""
What makes a pagoda?  A network of your own on photographs
==========================================================

A network learns to distinguish pieces of two photographs.  Its words can be named by looking at them: single tiles and
red windows make rows of tiles, these make roofs and eaves, and all of them together make a pagoda.
"""

# %%
# scikit-learn comes with two photographs, of a pagoda above a lake and of a dahlia.  Pieces of 96 pixels are cut out of
# parts of them that show one thing each.
import numpy as np
from sklearn.datasets import load_sample_images

photographs = load_sample_images().images
places = {  # where the middle of a piece may lie: photograph, rows, columns
    "pagoda": [(0, (70, 350), (110, 310))],
    "sky": [(0, (48, 130), (390, 592))],
    "trees": [(0, (340, 379), (60, 160)), (0, (340, 379), (400, 592))],
    "dahlia": [(1, (130, 310), (210, 400))],
    "leaves": [(1, (48, 379), (48, 110)), (1, (48, 300), (500, 592))],
}
names = list(places)
rng = np.random.default_rng(0)


def piece(photograph, row, column):
    """Return the piece of a photograph around a pixel, (96, 96, 3)."""
    return photographs[photograph][row - 48 : row + 48, column - 48 : column + 48]


def pieces(n):
    """Return n pieces of every class, and their classes."""
    images, labels = [], np.repeat(np.arange(len(names)), n)
    for label in labels:
        choice = places[names[label]]
        photograph, rows, columns = choice[rng.integers(len(choice))]
        images.append(piece(photograph, rng.integers(*rows), rng.integers(*columns)))
    return np.stack(images), labels


train, labels = pieces(120)
test, test_labels = pieces(20)

# %%
# A network of four stages, each of which halves the map, is trained in seconds.
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
# Words of the last three stages.  Images of bytes go through ``preprocess``, as they did in training.
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
print(f"The network is right on {(words.decisions == test_labels).mean():.0%} of {len(test)} test pieces,")
print(f"and the words of stage4 alone agree with it on {pipe['graph'].score(words):.0%}.")

# %%
# Why is this a pagoda?  The patches show what each word looks for, and the piece itself keeps its colours where that
# was found.
image = piece(0, 255, 205)
display = InferenceGraphDisplay.from_estimator(pipe, image[None])
display.figure_.savefig("why_pagoda.png")

# %%
# A piece from the border shows both, a pagoda behind trees.  What makes the network say one *rather than* the other?
# Only words that distinguish the two are left.
image = piece(0, 349, 150)
decided = names[pipe[:-1].transform(image[None]).decisions[0]]
other = "pagoda" if decided == "trees" else "trees"
print(f"The network says {decided!r}, rather than {other!r}.")
display = InferenceGraphDisplay.from_estimator(pipe, image[None], contrast=other)
display.figure_.savefig("why_not.png")

# %%
# The same piece by other methods: Grad-CAM of the last stage, integrated gradients, and occlusion by a grey square;
# beside them the influence of every location of the last stage, which words add up.  Violet places speak for the
# decision rather than the other class, orange ones against it.  The others need no fit.  Grad-CAM shows only what
# speaks for the decision, integrated gradients speckle, and occlusion blurs by the size of its square.  None says
# what is seen at a place, what else looks like it, or of what it is made; :doc:`/guide/neighbours` compares them.
from time import perf_counter

import matplotlib.pyplot as plt

x = to_tensor(image)[None]
chosen, rejected = names.index(decided), names.index(other)


def margin(outputs):
    """Return the lead of the decision over the other class, in nats, (n,)."""
    return outputs[:, chosen] - outputs[:, rejected]


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
    falls = torch.zeros(len(corners), len(corners))
    for i, row in enumerate(corners):
        for j, column in enumerate(corners):
            hidden = x.clone()
            hidden[..., row : row + size, column : column + size] = x.mean((2, 3), keepdim=True)
            falls[i, j] = (margin(network(x)) - margin(network(hidden))).item()
    return falls


def influence():
    words = pipe[:-1].transform(image[None])
    found = words.influence.of_classes([chosen], [rejected], layers=["stage4"])
    return torch.from_numpy(found.maps["stage4"][0])


figure, axes = plt.subplots(1, 5, figsize=(11, 2.6), layout="constrained")
axes[0].imshow(image)
axes[0].set_title(f"{decided} rather than {other}", fontsize=10)
methods = {
    "Grad-CAM": grad_cam,
    "integrated gradients": integrated_gradients,
    "occlusion": occlusion,
    "influence": influence,
}
for ax, (name, method) in zip(axes[1:], methods.items(), strict=True):
    began = perf_counter()
    values = method()
    seconds = perf_counter() - began
    limit = float(values.abs().max())
    ax.imshow(to_tensor(image).mean(0), cmap="gray", extent=(0, 96, 96, 0))
    ax.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit, alpha=0.65, extent=(0, 96, 96, 0))
    ax.set_title(f"{name}, {seconds:.2f} s", fontsize=10)
for ax in axes:
    ax.set_axis_off()
figure.savefig("beside_others.png")
