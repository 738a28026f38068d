"""
Why a swing, and not a pineapple?  A VGG16 on your own photographs
==================================================================

A photograph shows a pineapple, and a VGG16 decides for a swing.  The contrast with the true class leaves out evidence
for both, and shows the words that misled the network.

.. note::

   This example downloads 528 MB of weights and needs photographs, so it is shown without output; a test runs it with a
   small network.  Some hundreds of photographs take minutes on a CPU, longer than with a ResNet50.
"""

# %%
# Each photograph is in a subfolder with the name of its class: ``photographs/pineapple/01.jpg``.  Use some tens of
# photographs of both classes; photographs of further classes help to distinguish these.
from pathlib import Path

photographs = Path("photographs")
true_class, predicted_class = "pineapple", "swing"

# %%
# The stages of a VGG16 end with pooling layers.  The last three are modelled.
from torchvision.datasets.folder import IMG_EXTENSIONS

from skgmmcnn import FeatureExtractor

paths = [path for path in sorted(photographs.rglob("*")) if path.suffix.lower() in IMG_EXTENSIONS]
extractor = FeatureExtractor(
    "vgg16",
    ["features.16", "features.23", "features.30"],
    weights="IMAGENET1K_V1",
    store="vgg16_features",
    verbose=1,
)
maps = extractor.fit_transform(paths)

# %%
# Fit words and graph.
import numpy as np

from skgmmcnn import InferenceGraph, LayerDictionary

words = LayerDictionary(100, random_state=0).fit_transform(maps)
graph = InferenceGraph(n_nodes=3).fit(words)

# %%
# List the pineapples with a wrong decision.
labels = np.array([path.parent.name for path in paths])
wrong = np.flatnonzero((labels == true_class) & (words.decisions != words.spec.class_index(true_class)))
print(f"{len(wrong)} of {(labels == true_class).sum()} photographs of class {true_class!r} have a wrong decision:")
for row in wrong:
    print(f"  {paths[row]}: {words.spec.class_name(words.decisions[row])}")

# %%
# Explain the first decision for a swing.
from skgmmcnn import InferenceGraphDisplay

rows = wrong[words.decisions[wrong] == words.spec.class_index(predicted_class)]
if not len(rows):
    raise SystemExit(f"No decision is {predicted_class!r}; set `predicted_class` to one of the classes above.")
display = InferenceGraphDisplay.from_estimator(graph, words, image=rows[0])
display.save("why.png", dpi=150)

# %%
# The contrast: which words are evidence for the swing *rather than* for the pineapple?
display = InferenceGraphDisplay.from_estimator(graph, words, image=rows[0], contrast=true_class)
display.save("why_not.png", dpi=150)

# %%
# The reverse contrast: which words are evidence for the pineapple?
from skgmmcnn import to_text

(reverse,) = graph.explain(words[rows[:1]], target=true_class, contrast=predicted_class)
print(to_text(reverse))
print("Wrote why.png and why_not.png")
# sphinx_gallery_thumbnail_path = "_static/why_not.png"
