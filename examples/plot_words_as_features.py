"""
Words as features for another classifier
========================================

How often each word occurs in an image is a row of numbers with names, and any scikit-learn estimator can read it.  Here
a decision tree answers a question for which the network was never trained, *does this digit have a closed loop?*, and
every test that it makes can be looked at.
"""

# %%
# Words of two layers, without any graph.
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, LayerDictionary
from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()
extractor = FeatureExtractor(digits.network, ["conv2", "conv3"], class_names=digits.class_names)
pipe = make_pipeline(extractor, LayerDictionary({"conv2": 30, "conv3": 40}, random_state=0)).fit(digits.images)
words, test_words = pipe.transform(digits.images), pipe.transform(digits.test_images)

# %%
# 0, 6, 8 and 9 have a loop.  A small tree reads the counts of words.
import numpy as np
from sklearn.tree import DecisionTreeClassifier

loops = [0, 6, 8, 9]
loop, test_loop = np.isin(digits.labels, loops), np.isin(digits.test_labels, loops)
tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(words.histogram(), loop)
pixels = DecisionTreeClassifier(max_depth=3, random_state=0).fit(digits.images.reshape(-1, 64), loop)
print(f"on counts of words:  {tree.score(test_words.histogram(), test_loop):.1%} of the test images")
print(f"on pixels:           {pixels.score(digits.test_images.reshape(-1, 64), test_loop):.1%}")

# %%
# The tree, with the names of words.
import matplotlib.pyplot as plt
from sklearn.tree import plot_tree

figure, axes = plt.subplots(figsize=(13, 5), layout="constrained")
plot_tree(
    tree,
    feature_names=list(words.get_feature_names_out()),
    class_names=["no loop", "loop"],
    filled=True,
    impurity=False,
    proportion=True,
    fontsize=8,
    ax=axes,
)
figure.savefig("words_as_features.png")

# %%
# What are these words?  The pieces of images that are most typical of those on which the tree rests.
names = words.get_feature_names_out()
best = [names[i] for i in np.argsort(-tree.feature_importances_)[:4]]
figure, axes = plt.subplots(len(best), 7, figsize=(6, 3.8), layout="constrained")
for row, name in zip(axes, best, strict=True):
    layer, number = name.rsplit("_w", 1)
    patches = words.vocabulary.representatives[layer].patches[int(number)]
    for ax, patch in zip(row, patches, strict=False):
        ax.imshow(patch)
    for ax in row:
        ax.set_axis_off()
    row[0].set_title(name, loc="left", fontsize=9)
figure.savefig("words_as_features_patches.png")
