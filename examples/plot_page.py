"""
An interactive page
===================

A picture shows one graph; an audit of a network needs many.  ``InferenceGraphPage`` writes a page for the browser with
graphs of several decisions about handwritten digits, including wrong ones.
"""

# %%
# Fit a pipeline to the digits.
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
# Select wrong and right decisions.  With true labels, wrong decisions are contrasted with the true class, and right
# ones with the runner-up.
import numpy as np

words = pipe[:-1].transform(digits.test_images)
wrong = np.flatnonzero(words.decisions != digits.test_labels)[:4]
right = np.flatnonzero(words.decisions == digits.test_labels)[:4]

# %%
# The page is one file and needs no network.  Each word is shown by its most typical patches and its places in the
# image, with its share of the log-odds, the probability without it, and its most frequent digits.  Point at a word or
# tap it for details.  Select it to see only the words that explain it, or to name it.  Switch to the graph of all
# images with this decision, to another image, or to the contrast.
from skgmmcnn import InferenceGraphPage

page = InferenceGraphPage.from_estimator(pipe["graph"], words, digits.test_labels, images=[*wrong, *right])
n_bytes = page.save("digits.html")
print(f"Wrote digits.html, {n_bytes / 1000:.0f} kB")

# %%
# In a notebook, the first graph is shown as a picture.
page  # noqa: B018
# sphinx_gallery_thumbnail_path = "_static/page.png"
