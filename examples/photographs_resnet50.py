"""
Why a pineapple?  A ResNet50 on your own photographs
====================================================

Which words of a ResNet50 speak for a pineapple, and what are they made of?  The photographs are your own: some hundreds
in a folder, among them some tens of every class that you want to explain.

.. note::

   This example downloads 98 MB of weights and needs photographs, so that it is shown without its output; a test runs
   it on a small network.  Some hundreds of photographs take minutes on a processor.
"""

# %%
# What is yours: where the photographs are, subfolders included, and a class that the network knows.
photographs = "photographs"
wanted = "pineapple"

# %%
# The ends of three stages are modelled: 28 x 28, 14 x 14 and 7 x 7 locations.  Preprocessing and the names of the
# classes come with the weights.  The store keeps what the layers do, 1.4 MB a photograph, so that the network runs
# once, whatever is tried afterwards.
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
# Words, and what the network makes of them.  Labels are not needed: what is explained is what the network says.
import numpy as np

from skgmmcnn import InferenceGraph, LayerDictionary
from skgmmcnn.graph import surprise

words = LayerDictionary(100, random_state=0).fit_transform(maps)
graph = InferenceGraph(n_nodes=3, random_state=0).fit(words)

print(f"Of {len(words)} photographs the network says:")
for output in np.argsort(-graph.class_counts_)[:10]:
    print(f"{graph.class_counts_[output]:6}  {words.spec.class_name(output)}")
print(f"The words of layer4 alone agree on {graph.score(words):.0%}.\n")

# %%
# The most typical of the photographs that it calls so.  Where there is none, there is nothing to explain.
from skgmmcnn import InferenceGraphDisplay, to_text

rows = np.flatnonzero(words.decisions == words.spec.class_index(wanted))
if not len(rows):
    raise SystemExit(f"The network calls none of these photographs {wanted!r}; choose one of the classes above.")
image = rows[surprise(graph, words[rows]).images.argmin()]
display = InferenceGraphDisplay.from_estimator(graph, words, image=image)
display.figure_.savefig("why.png", dpi=150)
print(to_text(display.graph))

# %%
# Is that so in this photograph only, or in all?  The graph of the class shows it, and in how many of them each of its
# words is among the first.
display = InferenceGraphDisplay.from_estimator(graph, words, target=wanted)
display.figure_.savefig("why_all.png", dpi=150)
for key, node in list(display.graph.nodes.items())[1:]:
    print(f"{key} is among the first words of {node['selected']:.0%} of them")

# %%
# To look around in: one page with several photographs and the graph of their class.
from skgmmcnn import InferenceGraphPage

InferenceGraphPage.from_estimator(graph, words, images=rows[:8]).save("why.html")
print("Wrote why.png, why_all.png and why.html")
# sphinx_gallery_thumbnail_path = "_static/why_pagoda.png"
