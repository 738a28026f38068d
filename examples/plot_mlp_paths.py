"""
In which layer does a network memorise wrong labels?
====================================================

A fully connected network is trained on digits, a fifth of which bear random labels.  It learns nearly all of them by
heart, the wrong ones too.  We model its layers as a hidden Markov chain whose states are visual words, look in which
layer the wrongly labelled images leave the words of what they show, and follow the path of one wrong decision.
"""

# %%
# The images come with scikit-learn.  Every fifth image gets a random label; those of the test images are for comparison
# only, as nobody can learn them.
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
# The network has five hidden layers, each behind a ReLU, and is trained until it knows the training labels by heart.
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
    learnt, decided = (network(torch.from_numpy(part)).argmax(1).numpy() for part in (train, test))
print(f"The network gives {(learnt == assigned).mean():.1%} of the training images their assigned labels,")
print(f"and {(decided == test_labels).mean():.1%} of the test images their true ones.\n")

# %%
# The whole activity of a layer is one observation of the chain.  ``predict`` returns the decision expected
# from the words.
from skgmmcnn import FeatureExtractor, LayerHMM

extractor = FeatureExtractor(network.eval(), ["fc1", "fc2", "fc3", "fc4", "fc5"], preprocess=None)
maps, test_maps = extractor.fit_transform(train).compute(), extractor.transform(test).compute()
hmm = LayerHMM(40, random_state=0).fit(maps)
agreement = (hmm.predict(test_maps) == decided).mean()
print(f"The chain agrees with the network on {agreement:.1%} of the test images.\n")

# %%
# Layer by layer: how much more surely words follow each other in training than in test images, how much more often they
# agree with the labels, and, for the images with a wrong label, whose words they show: those of the label that they
# were assigned, or of what they truly are.
from skgmmcnn.metrics import memorisation

paths, test_paths = hmm.paths(maps), hmm.paths(test_maps)
found = memorisation(paths, assigned, test_paths, test_assigned, true_labels=true)
print(found)
print(f"\nMost of the wrongly labelled images join their assigned label in layer {found.layer}.\n")

# %%
# The most used paths of one digit.
table = test_paths.path_table(3, n_paths=3)
for path, share in zip(table.paths, table.shares, strict=True):
    words = " > ".join(f"{layer} w{word}" for layer, word in zip(hmm.layers_, path, strict=True))
    print(f"{share:.0%} of the threes: {words}")

# %%
# One wrong decision, among the paths of its true class and of the class decided for.
from skgmmcnn import PathDisplay

wrong = np.flatnonzero(decided != test_labels)
left = test_paths.departures(test_labels)[wrong]
image = int(wrong[np.flatnonzero((left > 0) & (left < 5))[0]])
display = PathDisplay.from_estimator(hmm, test_maps, test_labels, image=image)
display.figure_.savefig("mlp_paths.png")
print("\nWrote mlp_paths.png")
