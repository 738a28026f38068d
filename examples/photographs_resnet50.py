"""
Why a pineapple?  A ResNet50 on your own photographs
====================================================

Which words of a ResNet50 are evidence for a pineapple, and what do they consist of?  The photographs are your own: some
hundreds in a folder, with some tens of each class that you want to explain.

.. note::

   This example downloads 98 MB of weights and needs photographs, so it is shown without output; a test runs it with a
   small network.  Some hundreds of photographs take minutes on a CPU.
"""

# %%
# Set the folder of the photographs, which may have subfolders, and a class of the network.
photographs = "photographs"
wanted = "pineapple"

# %%
# The outputs of three stages are modelled: 28 x 28, 14 x 14 and 7 x 7 locations.  The weights define preprocessing and
# class names.  The store keeps the activations, 1.4 MB per photograph, so the network runs only once.
from skgmmcnn import FeatureExtractor

extractor = FeatureExtractor(
    "resnet50",
    ["layer2", "layer3", "layer4"],
    weights="IMAGENET1K_V2",
    store="resnet50_features",
    on_error="skip",
    verbose=1,
)
maps = extractor.fit_transform(photographs)

# %%
# Fit words and graph.  Labels are not needed, since the decisions of the network are explained.
import numpy as np

from skgmmcnn import InferenceGraph, LayerDictionary
from skgmmcnn.graph import surprise

words = LayerDictionary(100, random_state=0).fit_transform(maps)
graph = InferenceGraph(n_nodes=3, random_state=0).fit(words)

print(f"Decisions for {len(words)} photographs:")
for output in np.argsort(-graph.class_counts_)[:10]:
    print(f"{graph.class_counts_[output]:6}  {words.spec.class_name(output)}")
print(f"The words of layer4 predict {graph.score(words):.0%} of the decisions.\n")

# %%
# Explain the most typical photograph with this decision.
from skgmmcnn import InferenceGraphDisplay, to_text

rows = np.flatnonzero(words.decisions == words.spec.class_index(wanted))
if not len(rows):
    raise SystemExit(f"No photograph has the decision {wanted!r}; set `wanted` to one of the classes above.")
image = rows[surprise(graph, words[rows]).images.argmin()]
display = InferenceGraphDisplay.from_estimator(graph, words, image=image)
display.save("why.png", dpi=150)
print(to_text(display.graph))

# %%
# The graph of the class shows whether this holds for all photographs, and for how many of them each word is among the
# first.
display = InferenceGraphDisplay.from_estimator(graph, words, target=wanted)
display.save("why_all.png", dpi=150)
for key, node in list(display.graph.nodes.items())[1:]:
    print(f"{key} is among the first words of {node['selected']:.0%} of them")

# %%
# Write an interactive page with several photographs and the graph of their class.
from skgmmcnn import InferenceGraphPage

InferenceGraphPage.from_estimator(graph, words, images=rows[:8]).save("why.html")
print("Wrote why.png, why_all.png and why.html")
# sphinx_gallery_thumbnail_path = "_static/why_pagoda.png"
