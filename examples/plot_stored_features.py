"""
Features stored once, a grid over words
=======================================

The network is what takes time, and it need not run twice over the same images.  A *store* keeps the activity of its
layers on disk, and every later fit reads from there, today and tomorrow; we count how often the network really runs.
"""

# %%
# A preprocessing that counts the images which go through it, to the network.
from tempfile import TemporaryDirectory

from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()
passed = []


def counted(image):
    """Return the image as it is."""
    passed.append(image.shape)
    return image


# %%
# The first transform writes the store.  A folder may hold the features of several networks and sets of images: they are
# found again by hashes of all that they depend on, so that stale ones are never used.
from pathlib import Path

import numpy as np

from skgmmcnn import FeatureExtractor, LayerDictionary

layers = ["conv1", "conv2", "conv3"]
folder = TemporaryDirectory()
extractor = FeatureExtractor(digits.network, layers, preprocess=counted, store=folder.name)
maps = extractor.fit_transform(digits.images[:600])
for _ in maps.batches():
    pass
size = sum(file.stat().st_size for file in Path(folder.name).rglob("*") if file.is_file())
print(f"{len(passed)} images passed through the network, which left {size / 1e6:.1f} MB on disk.")

# %%
# A grid over the number of words of each layer, with three folds: thirty-seven fits, and no image passes any more.
# Patches for drawing would be cut out of the images; to compare scores nobody needs them.
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
print(f"{fits} fits ran the network over {len(passed) - before} images; the best has {best} words.")

# %%
# Agreement with the network, on images that were left out: the words of the top layer matter, those below do not, since
# only the former speak to the decision.
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
# Later, in another session perhaps: the same extractor over the same images finds what it stored.
before = len(passed)
again = FeatureExtractor(digits.network, layers, preprocess=counted, store=folder.name).fit_transform(
    digits.images[:600]
)
search.best_estimator_.score(again)
print(f"{len(passed) - before} images passed: those from which an extractor learns the sizes of the layers.")
folder.cleanup()
