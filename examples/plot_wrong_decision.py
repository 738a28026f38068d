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
# The network gets few test images wrong.  The words of the top layer mostly speak for what the network decides, also
# where it errs; where they do not, they have not caught what decided, and cannot explain it.
words = pipe[:-1].transform(digits.test_images)
wrong = np.flatnonzero(words.decisions != digits.test_labels)
explained = wrong[pipe["graph"].predict(words[wrong]) == words.decisions[wrong]]
print(f"{len(wrong)} of {len(words)} test images are read wrongly; the words agree on {len(explained)} of these.")

# %%
# We take the first.
image = explained[0]
true, decided = int(digits.test_labels[image]), int(words.decisions[image])
print(f"Number {image} is a {true}, read as a {decided}.")

# %%
# First the plain graph: what speaks for the decision?  The picture shows where in the image each word is.
from skgmmcnn import InferenceGraphDisplay

display = InferenceGraphDisplay.from_estimator(pipe["graph"], words, image=image)
display.figure_.savefig("inference_graph_wrong.png")

# %%
# Now the contrast with the true class.  Bits are what one location says for the decision less what it says for the
# true class, so that words which both classes share drop out.
display = InferenceGraphDisplay.from_estimator(pipe["graph"], words, image=image, contrast=true)
display.figure_.savefig("inference_graph_contrast.png")

# %%
# And the question turned round: what spoke for the true class, although the network said otherwise?
from skgmmcnn import to_text

(graph,) = pipe["graph"].explain(words[[image]], target=true, contrast=decided)
print(to_text(graph))
