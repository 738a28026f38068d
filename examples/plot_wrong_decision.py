"""
Why a 1, and not an 8?
======================

The best explanation of a wrong decision is the contrast with the true class: which words are evidence for the decision
*rather than* for the true class?  Many words are evidence for both a 1 and an 8; the contrast leaves them out.
"""

# %%
# Fit a pipeline to the digits.
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
# Few test images have a wrong decision.  One of them is an 8.
words = pipe[:-1].transform(digits.test_images)
wrong = np.flatnonzero(words.decisions != digits.test_labels)
print(f"{len(wrong)} of {len(words)} test images have a wrong decision.")
image = wrong[digits.test_labels[wrong] == 8][0]
label = int(digits.test_labels[image])
decision = int(words.decisions[image])
print(f"Image {image}: label {label}, decision {decision}.")

# %%
# The graph of the decision shows the places of each word, its share of the log-odds, and the decision without it.
from skgmmcnn import InferenceGraphDisplay

display = InferenceGraphDisplay.from_estimator(pipe["graph"], words, image=image)
display.save("inference_graph_wrong.png")

# %%
# The contrast with the true class leaves out evidence for both.
display = InferenceGraphDisplay.from_estimator(pipe["graph"], words, image=image, contrast=label)
display.save("inference_graph_contrast.png")

# %%
# The reverse contrast: the evidence for the true class.
from skgmmcnn import to_text

(graph,) = pipe["graph"].explain(words[[image]], target=label, contrast=decision)
print(to_text(graph))
