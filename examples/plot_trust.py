"""
Measuring the trust in a graph
==============================

Experiments on the network measure whether it uses the words of an inference graph: words are removed, and the layers
above are rerun.
"""

# %%
# Fit a pipeline to the digits, and measure its graphs on held-out images.
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.datasets import load_digits_network
from skgmmcnn.metrics import trust_report

digits = load_digits_network()
extractor = FeatureExtractor(digits.network, ["conv1", "conv2", "conv3"], class_names=digits.class_names)
pipe = make_pipeline(extractor, LayerDictionary(40, random_state=0), InferenceGraph()).fit(digits.images)
report = trust_report(pipe, digits.test_images, verbose=0, random_state=0)
print(report)

# %%
# Each point of the first panel is an image.  Below the diagonal, its decision is less probable without the words of the
# graph than without random words at as many locations.  The second panel shows the fraction of decisions that are
# preserved when a layer is rebuilt from its words.
figure = report.plot()

# %%
# The table has all measurements, with 95 % intervals over the images and the desired values.
report.to_frame().round(2)

# %%
# A useful measure must be able to fail.  The same words with counts of shuffled decisions are no better than random
# order.
from dataclasses import replace

import numpy as np

from skgmmcnn.metrics import deletion

words = pipe[:-1].transform(digits.images)
shuffled = replace(words, decisions=np.random.default_rng(0).permutation(words.decisions))
wrong = make_pipeline(extractor, pipe[1], InferenceGraph(evidence="counts").fit(shuffled))
for name, model in {"the graph": pipe, "counts of shuffled decisions": wrong}.items():
    curves = deletion(model, digits.test_images, "conv3", orders=["graph", "random"], random_state=0)
    print(f"{name}: {curves.ratio():.2f} of the area of random order")
