"""
What makes a pagoda?  A network of your own on photographs
==========================================================

A network learns to tell pieces of two photographs apart.  Its words can be named by looking at them: single tiles and
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
# Only words that tell the two apart are left.
image = piece(0, 349, 150)
decided = names[pipe[:-1].transform(image[None]).decisions[0]]
other = "pagoda" if decided == "trees" else "trees"
print(f"The network says {decided!r}, rather than {other!r}.")
display = InferenceGraphDisplay.from_estimator(pipe, image[None], contrast=other)
display.figure_.savefig("why_not.png")
