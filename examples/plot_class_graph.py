"""
Which words explain a 3?
========================

A class graph explains all images with one decision.  Intervals from resampled images, and the number of images in which
a word is among the first, show whether the graph would be the same for other threes.
"""

# %%
# Fit words to a small network for digits, which takes seconds.
from sklearn.pipeline import Pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()
pipe = Pipeline(
    [
        ("features", FeatureExtractor(digits.network, ["conv1", "conv2", "conv3"], class_names=digits.class_names)),
        ("words", LayerDictionary({"conv1": 16, "conv2": 30, "conv3": 40}, random_state=0)),
        ("graph", InferenceGraph(n_nodes=3, random_state=0)),
    ]
).fit(digits.images)

# %%
# The graph of the class explains all test images with the decision 3.
from skgmmcnn import InferenceGraphDisplay

words = pipe[:-1].transform(digits.test_images)
display = InferenceGraphDisplay.from_estimator(pipe["graph"], words, target="3")
display.save("inference_graph_class.png")

# %%
# Dots are the influence of a word on the log-odds of a 3, the mean over the images.  Bars are 95 % intervals of this
# mean over resampled images, and crosses are the exact effect of the ablation of the word.
import matplotlib.pyplot as plt

graph = display.graph
layers = pipe["graph"].layers_[::-1]
figure, panels = plt.subplots(1, len(layers), figsize=(9, 2.8), layout="constrained")
for axes, layer in zip(panels, layers, strict=True):
    nodes = [node for node in graph.nodes.values() if node["layer"] == layer]
    for row, node in enumerate(nodes):
        axes.plot([node["low"], node["high"]], [row, row], color="tab:blue", linewidth=3)
        axes.plot(node["influence"], row, "o", color="tab:blue")
        axes.plot(node["effect"], row, "x", color="black")
    axes.set_yticks(range(len(nodes)), [f"w{node['word']}\nin {node['selected']:.0%}" for node in nodes])
    axes.set(xlim=(0, None), ylim=(len(nodes) - 0.5, -0.5), title=layer, xlabel="nats of log-odds")
figure.savefig("class_graph_intervals.png")

# %%
# Counts show the words that co-occur with the decision, without the network.
from skgmmcnn import to_text

counts = InferenceGraph(n_nodes=3, evidence="counts").fit(pipe[:-1].transform(digits.images))
print(to_text(counts.explain_class(words, "3")))
