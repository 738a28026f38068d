"""
Why is this digit a 9?
======================

A small network reads handwritten digits.  We model three of its layers with visual words, and ask which words spoke
for one of its decisions.
"""

# %%
# The trained network comes with the package, and its images with scikit-learn; nothing is downloaded.
from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()

# %%
# Three steps lead from images to graphs: run the network, model each layer by words, count which words lie in the
# receptive fields of which others.  A layer's name is the one it has in ``network.named_modules()``.
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
print(f"The words of the top layer alone agree with the network on {agreement:.0%} of the test images.\n")

# %%
# Explain one decision.  Every word says at how many locations it is seen, which share of the log-odds these carry, and
# what the network says without them; then, for each word above, how much of that comes from here.
from skgmmcnn import to_text

words = pipe[:-1].transform(digits.test_images[3:4])
(graph,) = pipe["graph"].explain(words)
print(to_text(graph))

# %%
# The same as a picture.  Each word is shown by the pieces of training images that are most typical of it;
# beside them stands the image that is explained, pale but for where it shows the word.
from skgmmcnn import InferenceGraphDisplay

display = InferenceGraphDisplay.from_estimator(pipe, digits.test_images, image=3)
display.figure_.savefig("inference_graph.png")
print("\nWrote inference_graph.png")

# %%
# The same for locations rather than words, of six images: blue ones spoke for the decision, orange ones against it.
# Below, the words that contributed most.
from skgmmcnn import InfluenceMapDisplay

InfluenceMapDisplay.from_estimator(pipe, digits.test_images[:6], digits.test_labels[:6])
