"""
Finding a shortcut that a network took
======================================

Someone painted a small H into the corner of every 3, the network learnt the letter instead of the digit, and its
accuracy says nothing of it.  The graph of the class shows the letter, and the proof is to take it away.
"""

# %%
# Digits get a wide margin; in the training images of the class, a letter is painted there.
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
# A network is trained on them.
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


def called_three(images):
    """Return the share of images that the network calls a 3."""
    with torch.no_grad():
        return (network(torch.from_numpy(images)[:, None]).argmax(1) == 3).float().mean().item()


print(f"Of the test threes with a letter, {called_three(test[test_labels == 3]):.0%} are read as 3.")

# %%
# So far nothing is suspicious.  The graph of the class is: words of every layer look at a letter, not at a digit.
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
display.figure_.savefig("inference_graph_shortcut.png")

# %%
# Where in the images do the words of the class graph lie?  Those of the corner lie there in nearly every 3.
import matplotlib.pyplot as plt

words = pipe[:-1].transform(test)
graph = pipe["graph"].explain_class(words, "3")
shown = [(key, node) for key, node in graph.nodes.items() if node["layer"] == "conv3"]
threes = words.words["conv3"][words.decisions == 3]
figure, axes = plt.subplots(1, len(shown) + 1, figsize=(8, 2.6), layout="constrained")
axes[0].imshow(test[three], cmap="gray")
axes[0].set_title("a 3 with its letter", fontsize=9)
for ax, (key, node) in zip(axes[1:], shown, strict=True):
    picture = ax.imshow((threes == node["word"]).mean(0), vmin=0, vmax=1, cmap="cividis")
    ax.set_title(key, fontsize=9)
for ax in axes:
    ax.set(xticks=[], yticks=[])
figure.colorbar(picture, ax=axes, label="share of the threes")
figure.savefig("planted_shortcut.png")

# %%
# A graph is evidence, not proof.  The proof is an experiment.  In the network the word is taken away: wherever *conv3*
# shows it, the mean of the layer takes its place, and the rest of the network runs on.  The threes are no threes any
# more.  As many columns at other locations change little.
rows = np.flatnonzero(test_labels == 3)
maps = pipe["features"].transform(test).compute()
(part,) = maps[rows[:32]].rerun(lambda part: part)
word = next(node["word"] for node in graph.nodes.values() if node["layer"] == "conv3")
where = torch.from_numpy(words.words["conv3"][rows[:32]] == word)
elsewhere = where.roll((3, 3), (1, 2))
mean = torch.cat([batch.activations["conv3"] for batch in maps.batches()]).mean((0, 2, 3))[:, None, None]


def probability_of_three(columns):
    """Return the mean probability of a 3 with some columns of conv3 replaced by the mean."""
    changed = part.run({"conv3": lambda values: torch.where(columns[:, None], mean, values)})
    return changed.outputs.softmax(1)[:, 3].mean().item()


print(f"A 3 has a probability of {probability_of_three(torch.zeros_like(where)):.3f};")
print(f"with {where.float().mean():.0%} of the columns replaced, those of the word, {probability_of_three(where):.3f};")
print(f"with as many others, {probability_of_three(elsewhere):.3f}.")

# %%
# The same in the images: without the letter threes are no threes any more, and a letter makes other digits threes.
others = plain_test[test_labels != 3]
lettered = called_three(painted(others, np.full(len(others), 3)))
print(f"Of the test threes without a letter, {called_three(plain_test[test_labels == 3]):.0%} are read as 3;")
print(f"of other digits {called_three(others):.0%}, and {lettered:.0%} with a letter.")
