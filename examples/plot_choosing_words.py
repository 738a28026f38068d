"""
Choosing the number of words by GridSearchCV
============================================

Too few words mix patterns that the network distinguishes; too many only make graphs larger.  The score of a pipeline is
the accuracy with which the words of the top layer predict the network's decision on held-out images, so scikit-learn's
grid search can select the number of words.
"""

# %%
# The network runs once.  The search uses the feature maps in memory.
from sklearn.pipeline import Pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()
extractor = FeatureExtractor(digits.network, ["conv2", "conv3"], class_names=digits.class_names)
maps = extractor.fit_transform(digits.images[:600]).compute()

# %%
# The grid is over the number of words of the top layer, with three folds.
from sklearn.model_selection import GridSearchCV

pipe = Pipeline([("words", LayerDictionary(random_state=0)), ("graph", InferenceGraph())])
sizes = [5, 10, 20, 40, 80, 160]
grid = {"words__n_components": [{"conv2": 20, "conv3": n} for n in sizes]}
search = GridSearchCV(pipe, grid, cv=3).fit(maps)

# %%
# The curve rises steeply, then flattens: most of the gain comes from the first 40 words.
import matplotlib.pyplot as plt
import numpy as np

scores = np.array([search.cv_results_[f"split{fold}_test_score"] for fold in range(3)])
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.plot(sizes, scores.T, "o", color="0.7")
axes.plot(sizes, scores.mean(0), "o-", label="mean of three folds")
axes.set_xscale("log", base=2)
axes.set_xticks(sizes, sizes)
axes.minorticks_off()
axes.set(xlabel="words of the top layer", ylabel="agreement with the network")
axes.legend(loc="lower right")
figure.savefig("choosing_words.png")
print(f"selected: {search.best_params_['words__n_components']}, agreement {search.best_score_:.1%}")

# %%
# The best estimator is an ordinary pipeline on feature maps, and explains new images.
from skgmmcnn import to_text

test = extractor.transform(digits.test_images)
print(f"agreement on test images: {search.best_estimator_.score(test):.1%}\n")
words = search.best_estimator_[:-1].transform(test[:1])
print(to_text(search.best_estimator_["graph"].explain(words)[0]))
