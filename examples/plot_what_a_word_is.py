"""
Inspecting words
================

A graph shows four patches of each word.  Before you name a word, inspect its typical patches, the classes of the images
with this word, and its places in an image.
"""

# %%
# Fit words to two layers of a small network for digits.
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()
names = [f"digit {name}" for name in digits.class_names]
pipe = make_pipeline(
    FeatureExtractor(digits.network, ["conv2", "conv3"], class_names=names),
    LayerDictionary(30, random_state=0),
    InferenceGraph(n_nodes=4),
).fit(digits.images)

# %%
# The titles of the training curves state whether training converged or stopped at ``max_iter``.
from skgmmcnn import TrainingDisplay

TrainingDisplay.from_estimator(pipe).save("training.png")

# %%
# The graph of one image selects words.
words = pipe[:-1].transform(digits.test_images[7:8])
(graph,) = pipe[-1].explain(words)
keys = [key for key in graph if key != graph.graph["root"]]
print(f"{graph.graph['class_name']} is explained by {', '.join(keys)}")

# %%
# The most typical patches and the digits of the words of the upper layer.  The line on each bar marks its length for a
# word that is independent of the digit.
from skgmmcnn import VisualWordDisplay

conv3_keys = [key for key in keys if key.startswith("conv3")]
VisualWordDisplay.from_estimator(pipe, conv3_keys, n_patches=6).save("visual_words.png", dpi=150)

statistics = pipe["layerdictionary"].vocabulary_.statistics
for layer in ("conv2", "conv3"):
    print(f"{layer}: the most frequent digit has {statistics[layer].purity.mean():.0%} of the locations of a word")

# %%
# Words of higher layers are more specific to some digits, but most words are parts that several digits share.
#
# The places of the words in the image.  Words of the graph are coloured, other words grey.
from skgmmcnn import WordMapDisplay

display = WordMapDisplay.from_estimator(pipe, digits.test_images, image=7, graph=graph)
display.save("word_maps.svg")  # text remains text in SVG and PDF

# %%
# The words that cover most of the image need not explain the decision.
display = WordMapDisplay.from_estimator(pipe, digits.test_images, image=7, n_words=4)
for layer, frequent in display.chosen.items():
    shared = {display.words.vocabulary.key(layer, word) for word in frequent} & set(keys)
    print(f"{layer}: {len(shared)} of the 4 most frequent words in the image are in its graph")
