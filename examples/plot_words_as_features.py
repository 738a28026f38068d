"""
Words as features for another classifier
========================================

The counts of words in an image are named features for any scikit-learn estimator.  Here, a decision tree predicts
whether a digit has a closed loop, for which the network was not trained.  Each test of the tree can be inspected.
"""

# %%
# Fit words to two layers.  A graph is not needed.
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, LayerDictionary
from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()
extractor = FeatureExtractor(digits.network, ["conv2", "conv3"], class_names=digits.class_names)
pipe = make_pipeline(extractor, LayerDictionary({"conv2": 30, "conv3": 40}, random_state=0)).fit(digits.images)
words, test_words = pipe.transform(digits.images), pipe.transform(digits.test_images)

# %%
# 0, 6, 8 and 9 have a loop.  Fit a small tree to the counts of words, and another to the pixels.
import numpy as np
from sklearn.tree import DecisionTreeClassifier

digits_with_loop = [0, 6, 8, 9]
has_loop = np.isin(digits.labels, digits_with_loop)
test_has_loop = np.isin(digits.test_labels, digits_with_loop)
tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(words.histogram(), has_loop)
pixels = DecisionTreeClassifier(max_depth=3, random_state=0).fit(digits.images.reshape(-1, 64), has_loop)
print(f"test accuracy on counts of words: {tree.score(test_words.histogram(), test_has_loop):.1%}")
print(f"test accuracy on pixels:          {pixels.score(digits.test_images.reshape(-1, 64), test_has_loop):.1%}")

# %%
# Draw the tree with the names of words.
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
# The most typical patches of the most important words of the tree.
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
