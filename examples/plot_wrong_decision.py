"""
Why did it say 1, and not 8?
============================

A wrong decision is explained best against the right one: which words made the network decide for the class that it
chose *rather than* for the true class?  Much of what speaks for a 1 also speaks for an 8; the contrast leaves it out.
"""

# %%
# A small network that reads digits comes with the package; its words are made here, in seconds.
import numpy as np
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
# The network gets few test images wrong.  We take an 8.
words = pipe[:-1].transform(digits.test_images)
wrong = np.flatnonzero(words.decisions != digits.test_labels)
print(f"{len(wrong)} of {len(words)} test images are read wrongly.")
image = wrong[digits.test_labels[wrong] == 8][0]
true, decided = int(digits.test_labels[image]), int(words.decisions[image])
print(f"Number {image} is a {true}, read as a {decided}.")

# %%
# First the plain graph: what made it decide so?  The picture shows where in the image each word is, what it carries,
# and what the network would say without it.
from skgmmcnn import InferenceGraphDisplay

display = InferenceGraphDisplay.from_estimator(pipe["graph"], words, image=image)
display.figure_.savefig("inference_graph_wrong.png")

# %%
# Now the contrast with the true class: what made the decision lead over it.  What speaks for both alike drops out.
display = InferenceGraphDisplay.from_estimator(pipe["graph"], words, image=image, contrast=true)
display.figure_.savefig("inference_graph_contrast.png")

# %%
# And the question turned round: what spoke for the true class, although the network said otherwise?
from skgmmcnn import to_text

(graph,) = pipe["graph"].explain(words[[image]], target=true, contrast=decided)
print(to_text(graph))
