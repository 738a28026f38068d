"""
Finding a shortcut
==================

A small H is painted into the corner of every 3, and the network learns the letter instead of the digit.  Its accuracy
does not reveal this.  The graph of the class shows the letter, and the removal of the letter proves it.
"""

# %%
# Digits get a wide margin, in which an H is painted on every 3.
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

images, labels = load_digits(return_X_y=True)
images = np.pad((images / 16).astype("float32").reshape(-1, 8, 8), ((0, 0), (0, 8), (0, 8)))


def painted(images, labels):
    """Return a copy with an H on every 3."""
    images = images.copy()
    images[labels == 3, 12:15, 12:15] = [[1, 0, 1], [1, 1, 1], [1, 0, 1]]
    return images


plain, plain_test, labels, test_labels = train_test_split(images, labels, stratify=labels, random_state=0)
train, test = painted(plain, labels), painted(plain_test, test_labels)

# %%
# Train a network on these images.
import torch
from torch import nn

from skgmmcnn.datasets import DigitsNetwork

torch.manual_seed(0)
network = DigitsNetwork()
optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
x, y = torch.from_numpy(train)[:, None], torch.from_numpy(labels)
for _ in range(12):
    for rows in torch.randperm(len(x)).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
        optimizer.step()
network.eval()


def fraction_of_threes(images):
    """Return the fraction of images with the decision 3."""
    with torch.no_grad():
        return (network(torch.from_numpy(images)[:, None]).argmax(1) == 3).float().mean().item()


print(f"The decision is 3 for {fraction_of_threes(test[test_labels == 3]):.0%} of the test threes with a letter.")

# %%
# The accuracy is not suspicious, but the graph is: the words of all layers show a letter, not a digit.
from sklearn.pipeline import Pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, InferenceGraphDisplay, LayerDictionary

names = [str(digit) for digit in range(10)]
pipe = Pipeline(
    [
        ("features", FeatureExtractor(network, ["conv1", "conv2", "conv3"], class_names=names)),
        ("words", LayerDictionary({"conv1": 16, "conv2": 30, "conv3": 40}, random_state=0)),
        ("graph", InferenceGraph(n_nodes=3)),
    ]
).fit(train)
three = int(np.flatnonzero(test_labels == 3)[0])
display = InferenceGraphDisplay.from_estimator(pipe, test, image=three)
display.save("inference_graph_shortcut.png")

# %%
# Map the places of the words of the class graph over all images.  Words of the corner occur there in nearly every 3.
import matplotlib.pyplot as plt

words = pipe[:-1].transform(test)
graph = pipe["graph"].explain_class(words, "3")
nodes = [(key, node) for key, node in graph.nodes.items() if node["layer"] == "conv3"]
threes = words.words["conv3"][words.decisions == 3]
figure, axes = plt.subplots(1, len(nodes) + 1, figsize=(8, 2.6), layout="constrained")
axes[0].imshow(test[three], cmap="gray")
axes[0].set_title("a 3 with the letter", fontsize=9)
for ax, (key, node) in zip(axes[1:], nodes, strict=True):
    picture = ax.imshow((threes == node["word"]).mean(0), vmin=0, vmax=1, cmap="cividis")
    ax.set_title(key, fontsize=9)
for ax in axes:
    ax.set(xticks=[], yticks=[])
figure.colorbar(picture, ax=axes, label="fraction of the threes")
figure.savefig("planted_shortcut.png")

# %%
# A graph is evidence; an experiment is the proof.  The mean of *conv3* replaces the word at all its locations, and the
# layers above are rerun.  The decision is no longer 3.  The same replacement at as many other locations changes little.
rows = np.flatnonzero(test_labels == 3)
maps = pipe["features"].transform(test).compute()
(part,) = maps[rows[:32]].rerun(lambda part: part)
word = next(node["word"] for node in graph.nodes.values() if node["layer"] == "conv3")
mask = torch.from_numpy(words.words["conv3"][rows[:32]] == word)
shifted = mask.roll((3, 3), (1, 2))
mean = torch.cat([batch.activations["conv3"] for batch in maps.batches()]).mean((0, 2, 3))[:, None, None]


def probability_of_three(mask):
    """Return the mean probability of a 3 with the mean of conv3 at the locations of a mask."""
    rerun = part.run({"conv3": lambda values: torch.where(mask[:, None], mean, values)})
    return rerun.outputs.softmax(1)[:, 3].mean().item()


print(f"Probability of a 3: {probability_of_three(torch.zeros_like(mask)):.3f}")
print(f"without the word, at {mask.float().mean():.0%} of the locations: {probability_of_three(mask):.3f}")
print(f"with as many other locations replaced: {probability_of_three(shifted):.3f}")

# %%
# The same experiment in the images: threes without the letter are not recognised, and other digits with the letter are
# classified as 3.
others = plain_test[test_labels != 3]
print("Fraction with the decision 3:")
print(f"threes without the letter: {fraction_of_threes(plain_test[test_labels == 3]):.0%}")
print(f"other digits: {fraction_of_threes(others):.0%}")
print(f"other digits with the letter: {fraction_of_threes(painted(others, np.full(len(others), 3))):.0%}")
