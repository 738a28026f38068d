"""
What is a 3 made of, and how sure is that?
==========================================

A class graph explains all images that the network calls a 3 at once.  Would it be the same had we fitted other images?
Resamples of the fitted images tell: every word and edge says how many of them keep it.
"""

# %%
# A small network that reads digits; ``n_bootstrap`` asks for resamples, ``p_values`` for a comparison with chance.
from sklearn.pipeline import Pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()
pipe = Pipeline(
    [
        ("features", FeatureExtractor(digits.network, ["conv1", "conv2", "conv3"], class_names=digits.class_names)),
        ("words", LayerDictionary({"conv1": 16, "conv2": 30, "conv3": 40}, random_state=0)),
        ("graph", InferenceGraph(n_nodes=3, n_bootstrap=200, p_values=True, random_state=0)),
    ]
).fit(digits.images)

# %%
# The graph of the class, over all test images that the network calls a 3.  Uncertain edges are dashed.
from skgmmcnn import InferenceGraphDisplay

words = pipe[:-1].transform(digits.test_images)
display = InferenceGraphDisplay.from_estimator(pipe["graph"], words, label="3")
display.figure_.savefig("inference_graph_class.png")

# %%
# How sure?  Bars hold the evidence of 95 % of the resamples.  Bits are compared within a layer, not between layers.
import matplotlib.pyplot as plt

graph = display.graph
layers = pipe["graph"].layers_[::-1]
figure, panels = plt.subplots(1, len(layers), figsize=(9, 2.8), layout="constrained")
for axes, layer in zip(panels, layers, strict=True):
    nodes = {key: node for key, node in graph.nodes.items() if node["layer"] == layer}
    for row, node in enumerate(nodes.values()):
        axes.plot([node["low"], node["high"]], [row, row], color="tab:blue", linewidth=3)
        axes.plot(node["score"], row, "o", color="tab:blue")
    axes.set_yticks(range(len(nodes)), [f"w{node['word']}\nkept by {node['selected']:.0%}" for node in nodes.values()])
    axes.set(xlim=(0, None), ylim=(len(nodes) - 0.5, -0.5), title=layer, xlabel="evidence in bits")
figure.savefig("class_graph_intervals.png")

# %%
# The same with only 150 fitted images: the decision rests on some fifteen threes, and the intervals say so.
few = Pipeline(pipe.steps).set_params(graph=InferenceGraph(n_nodes=3, n_bootstrap=200, random_state=0))
few["graph"].fit(pipe[:-1].transform(digits.images[:150]))
for name, each in [("1,347 images", graph), ("150 images", few["graph"].explain_class(words, "3"))]:
    edges = [(edge["low"], edge["high"]) for _, head, edge in each.edges(data=True) if head == "decision_3"]
    print(f"fitted on {name}: bits per location for the decision, 95 % of resamples:")
    print("   ", ", ".join(f"{low:.1f} to {high:.1f}" for low, high in edges))
