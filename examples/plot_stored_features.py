"""
Grid search with stored features
================================

The network takes most of the time.  A *store* keeps the activations on disk, so that the network runs once for each
image, in this and in later sessions.  This example counts the images that pass through the network.
"""

# %%
# Count the images by a preprocessing function.
from tempfile import TemporaryDirectory

from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()
passed = []


def count(image):
    """Return the image unchanged."""
    passed.append(image.shape)
    return image


# %%
# The first transform writes the store.  A folder can hold features of several networks and sets of images, identified
# by hashes of the weights, layers, preprocessing and images.
from pathlib import Path

import numpy as np

from skgmmcnn import FeatureExtractor, LayerDictionary

layers = ["conv1", "conv2", "conv3"]
folder = TemporaryDirectory()
extractor = FeatureExtractor(digits.network, layers, preprocess=count, store=folder.name)
maps = extractor.fit_transform(digits.images[:600])
for _ in maps.batches():
    pass
size = sum(file.stat().st_size for file in Path(folder.name).rglob("*") if file.is_file())
print(f"{len(passed)} images passed through the network; the store has {size / 1e6:.1f} MB.")

# %%
# The grid search over the number of words of two layers, with three folds, makes 37 fits, and no image passes through
# the network.  Patches are not needed to compare scores.
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skgmmcnn import InferenceGraph

pipe = Pipeline([("words", LayerDictionary(keep_patches=False, random_state=0)), ("graph", InferenceGraph())])
few, many = [10, 20, 40], [10, 20, 40, 80]
grid = [{"conv1": 10, "conv2": lower, "conv3": upper} for lower in few for upper in many]
before = len(passed)
search = GridSearchCV(pipe, {"words__n_components": grid}, cv=3).fit(maps)
fits = 3 * len(grid) + 1
best = search.best_params_["words__n_components"]
print(f"{fits} fits ran the network on {len(passed) - before} images; the best numbers of words are {best}.")

# %%
# The score on held-out images depends on the number of words of the top layer only, since these predict the decision.
import matplotlib.pyplot as plt

scores = search.cv_results_["mean_test_score"].reshape(len(few), len(many))
figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
picture = axes.imshow(scores, cmap="cividis")
for (row, column), score in np.ndenumerate(scores):
    dark = score < (scores.min() + scores.max()) / 2
    axes.text(column, row, f"{score:.1%}", ha="center", va="center", color="white" if dark else "black")
axes.set_xticks(range(len(many)), many)
axes.set_yticks(range(len(few)), few)
axes.set(xlabel="words of conv3", ylabel="words of conv2")
figure.savefig("stored_features.png")

# %%
# In another session, the same extractor reads the store of the same images.
before = len(passed)
extractor = FeatureExtractor(digits.network, layers, preprocess=count, store=folder.name)
search.best_estimator_.score(extractor.fit_transform(digits.images[:600]))
print(f"{len(passed) - before} images passed through the network, to determine the shapes of the layers.")
folder.cleanup()
