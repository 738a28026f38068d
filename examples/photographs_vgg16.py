"""
Why a swing, and not a pineapple?  A VGG16 on your own photographs
==================================================================

A photograph shows a pineapple, and a VGG16 calls it a swing.  The contrast with the right class leaves out what speaks
for both, and shows what misled the network.

.. note::

   This example downloads 528 MB of weights and needs photographs, so that it is shown without its output; a test runs
   it on a small network.  Some hundreds of photographs take minutes on a processor, longer than with a ResNet50.
"""

# %%
# What is yours.  Each photograph lies in a subfolder named after what it shows: ``photographs/pineapple/01.jpg``.
# There should be some tens of both classes, or there is nothing to learn the contrast from; further classes help to see
# what is special in these.
from pathlib import Path

photographs = Path("photographs")
true, said = "pineapple", "swing"

# %%
# In a VGG16 the pools end what in other networks are stages.  The last three are modelled.
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
# Words and counts.  ``smoothing`` is the number of locations of the uppermost layer: a word that was never seen with
# one of the two classes then speaks less loudly, which a contrast between classes of few photographs needs.
import numpy as np

from skgmmcnn import InferenceGraph, LayerDictionary

words = LayerDictionary(100, random_state=0).fit_transform(maps)
graph = InferenceGraph(n_nodes=3, smoothing=49).fit(words)

# %%
# Which pineapples does the network not call so?
shows = np.array([path.parent.name for path in paths])
wrong = np.flatnonzero((shows == true) & (words.decisions != words.spec.class_index(true)))
print(f"Of {(shows == true).sum()} photographs of class {true!r}, {len(wrong)} are called something else:")
for row in wrong:
    print(f"  {paths[row]}: {words.spec.class_name(words.decisions[row])}")

# %%
# The first that is called a swing, and first the plain question: what spoke for the swing?
from skgmmcnn import InferenceGraphDisplay

rows = wrong[words.decisions[wrong] == words.spec.class_index(said)]
if not len(rows):
    raise SystemExit(f"None of them is called {said!r}; put one of the names above in its place.")
display = InferenceGraphDisplay.from_estimator(graph, words, image=rows[0])
display.figure_.savefig("why.png", dpi=150)

# %%
# The contrast: what spoke for the swing *rather than* for the pineapple?
display = InferenceGraphDisplay.from_estimator(graph, words, image=rows[0], contrast=true)
display.figure_.savefig("why_not.png", dpi=150)

# %%
# And what spoke for the pineapple all the same, though it was outvoted?
from skgmmcnn import to_text

(outvoted,) = graph.explain(words[rows[:1]], target=true, contrast=said)
print(to_text(outvoted))
print("Wrote why.png and why_not.png")
# sphinx_gallery_thumbnail_path = "_static/why_not.png"
