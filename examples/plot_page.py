"""
A page to look around in
========================

A picture shows one graph; people who audit a network want to look at many, and to ask back.  We write a page for the
browser that explains several decisions about handwritten digits, among them wrong ones.
"""

# %%
# The trained network comes with the package, and its images with scikit-learn.
from sklearn.pipeline import Pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()
pipe = Pipeline(
    [
        ("features", FeatureExtractor(digits.network, ["conv1", "conv2", "conv3"], class_names=digits.class_names)),
        ("words", LayerDictionary({"conv1": 16, "conv2": 30, "conv3": 40}, random_state=0)),
        ("graph", InferenceGraph(n_nodes=3)),
    ]
).fit(digits.images)

# %%
# Some digits that the network gets wrong, and some that it gets right.  With the true labels, a wrong decision is
# contrasted with the true class, and a right one with the class that comes next.
import numpy as np

words = pipe[:-1].transform(digits.test_images)
wrong = np.flatnonzero(words.decisions != digits.test_labels)[:4]
right = np.flatnonzero(words.decisions == digits.test_labels)[:4]

# %%
# The page is one file and needs no network.  Each word is shown by its most typical patches and by where it is in the
# image, with its share of the decision, the probability without it, and the digits in whose images it occurs most.
# Point at a word, or tap it, to see more beside the graph.  Choose it, and only what explains it is left; give it a
# name there.  Switch to the graph of all images with this decision, to another image, or to the contrast.
from skgmmcnn import InferenceGraphPage

page = InferenceGraphPage.from_estimator(pipe["graph"], words, digits.test_labels, images=[*wrong, *right])
n_bytes = page.save("digits.html")
print(f"Wrote digits.html, {n_bytes / 1000:.0f} kB")

# %%
# In a notebook the page shows the first of its graphs as a picture.
page  # noqa: B018
# sphinx_gallery_thumbnail_path = "_static/page.png"
