"""
Why is this digit a 9?
======================

Three layers of a small network for handwritten digits are modelled by visual words.  The graph shows which words
explain one of its decisions.
"""

# %%
# The package includes the trained network, and scikit-learn the images; nothing is downloaded.
from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()

# %%
# Three steps lead from images to graphs: feature maps, words, and the graph.  Layers have their names in
# ``network.named_modules()``.
from sklearn.pipeline import Pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary

pipe = Pipeline(
    [
        ("features", FeatureExtractor(digits.network, ["conv1", "conv2", "conv3"], class_names=digits.class_names)),
        ("words", LayerDictionary({"conv1": 16, "conv2": 30, "conv3": 40}, random_state=0)),
        ("graph", InferenceGraph(n_nodes=3)),
    ]
).fit(digits.images)

agreement = pipe.score(digits.test_images)
print(f"The words of the top layer predict the decision for {agreement:.0%} of the test images.\n")

# %%
# Explain one decision.  The text lists for each word its locations, its share of the log-odds, the decision without it,
# and its contribution to each word above.
from skgmmcnn import to_text

words = pipe[:-1].transform(digits.test_images[3:4])
(graph,) = pipe["graph"].explain(words)
print(to_text(graph))

# %%
# Draw the graph.  Each word is shown by its most typical patches of training images, and by its places in the
# explained image.
from skgmmcnn import InferenceGraphDisplay

display = InferenceGraphDisplay.from_estimator(pipe, digits.test_images, image=3)
display.save("inference_graph.png")
print("\nWrote inference_graph.png")

# %%
# Draw the influence of locations for six images: blue is evidence for the decision, orange against it.  Below are the
# most important words.
from skgmmcnn import InfluenceMapDisplay

InfluenceMapDisplay.from_estimator(pipe, digits.test_images[:6], digits.test_labels[:6])
