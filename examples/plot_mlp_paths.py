"""
In which layer does a network memorise wrong labels?
====================================================

A fully connected network is trained on digits, a fifth of them with random labels, and memorises nearly all labels.
Its layers are modelled as a hidden Markov chain of visual words.  The paths show in which layer images with a wrong
label leave the words of their true class.
"""

# %%
# A fifth of the images of scikit-learn get a random label.  The random labels of test images are for comparison only.
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32").reshape(-1, 8, 8)
train, test, true, test_labels = train_test_split(images, labels, test_size=0.3, stratify=labels, random_state=0)
rng = np.random.default_rng(0)
assigned, test_assigned = (
    np.where(rng.random(len(part)) < 0.2, rng.integers(0, 10, len(part)), part) for part in (true, test_labels)
)

# %%
# The network has five hidden layers with ReLU and is trained until it has memorised the training labels.
from torch import nn

torch.manual_seed(0)
sizes = [64, 128, 96, 64, 48, 32]
network = nn.Sequential(nn.Flatten())
for i in range(1, len(sizes)):
    network.add_module(f"fc{i}", nn.Sequential(nn.Linear(sizes[i - 1], sizes[i]), nn.ReLU()))
network.add_module("head", nn.Linear(sizes[-1], 10))
optimizer = torch.optim.Adam(network.parameters(), 0.002)
for _ in range(150):
    for rows in torch.randperm(len(train)).split(64):
        loss = nn.functional.cross_entropy(network(torch.from_numpy(train[rows])), torch.from_numpy(assigned[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

with torch.no_grad():
    decisions, test_decisions = (network(torch.from_numpy(part)).argmax(1).numpy() for part in (train, test))
print(f"Training images with their assigned label as decision: {(decisions == assigned).mean():.1%}")
print(f"Test images with their true label as decision: {(test_decisions == test_labels).mean():.1%}\n")

# %%
# The activations of a layer are one observation of the chain.  ``predict`` returns the most probable decision.
from skgmmcnn import FeatureExtractor, LayerHMM

extractor = FeatureExtractor(network.eval(), ["fc1", "fc2", "fc3", "fc4", "fc5"], preprocess=None)
maps, test_maps = extractor.fit_transform(train).compute(), extractor.transform(test).compute()
hmm = LayerHMM(40, random_state=0).fit(maps)
agreement = (hmm.predict(test_maps) == test_decisions).mean()
print(f"The chain agrees with the network on {agreement:.1%} of the test images.\n")

# %%
# For each layer, ``memorisation`` compares training and test images: the likelihood of their paths, and the agreement
# of words with labels.  For images with a wrong label, it also compares the assigned with the true class.
from skgmmcnn.metrics import memorisation

paths, test_paths = hmm.paths(maps), hmm.paths(test_maps)
result = memorisation(paths, assigned, test_paths, test_assigned, true_labels=true)
print(result)
print(f"\nMost images with a wrong label join the words of the assigned label in layer {result.layer}.\n")

# %%
# The most frequent paths of one digit.
table = test_paths.path_table(3, n_paths=3)
for path, share in zip(table.paths, table.shares, strict=True):
    words = " > ".join(f"{layer} w{word}" for layer, word in zip(hmm.layers_, path, strict=True))
    print(f"{share:.0%} of the threes: {words}")

# %%
# The path of one wrong decision, with the paths of the true and of the predicted class.
from skgmmcnn import PathDisplay

wrong = np.flatnonzero(test_decisions != test_labels)
leaves = test_paths.departures(test_labels)[wrong]
image = int(wrong[np.flatnonzero((leaves > 0) & (leaves < 5))[0]])
display = PathDisplay.from_estimator(hmm, test_maps, test_labels, image=image)
display.save("mlp_paths.png")
print("\nWrote mlp_paths.png")
