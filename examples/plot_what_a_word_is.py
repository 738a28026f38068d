"""
What a word is
==============

A graph shows of each word four patches.  Before you give a word a name, look at it from three sides: what is typical of
it, in images of which classes it occurs, and where one image shows it.
"""

# %%
# A small network that reads digits, and words for two of its layers.
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
# Was the training long enough?  Titles say whether a pass gained less than ``tol``, or ``max_iter`` cut it off.
from skgmmcnn import TrainingDisplay

TrainingDisplay.from_estimator(pipe).save("training.png")

# %%
# The graph of one image chooses its words.
words = pipe[:-1].transform(digits.test_images[7:8])
(graph,) = pipe[-1].explain(words)
chosen = [key for key in graph if key != graph.graph["root"]]
print(f"{graph.graph['class_name']} is explained by {', '.join(chosen)}")

# %%
# What is typical of those of the upper layer, and which digits show them.  The line on each bar is where it would end
# if the word had nothing to do with the digit.
from skgmmcnn import VisualWordDisplay

of_conv3 = [key for key in chosen if key.startswith("conv3")]
VisualWordDisplay.from_estimator(pipe, of_conv3, n_patches=6).save("visual_words.png", dpi=150)

statistics = pipe["layerdictionary"].vocabulary_.statistics
for layer in ("conv2", "conv3"):
    print(f"{layer}: the most frequent digit has {statistics[layer].purity.mean():.0%} of a word's locations")

# %%
# The higher the layer, the more its words are about some digits and not about others; still, most words are parts that
# several digits share.  Now where the image shows them.  Colours are the words of the graph; what is grey shows other
# words, which explain less.
from skgmmcnn import WordMapDisplay

display = WordMapDisplay.from_estimator(pipe, digits.test_images, image=7, graph=graph)
display.save("word_maps.svg")  # text stays text in SVG and PDF

# %%
# The words that cover most of an image need not be those that explain it.
display = WordMapDisplay.from_estimator(pipe, digits.test_images, image=7, n_words=4)
for layer, frequent in display.chosen.items():
    shared = {display.words.vocabulary.key(layer, word) for word in frequent} & set(chosen)
    print(f"{layer}: of the 4 most frequent words in the image, {len(shared)} are in its graph")
