"""
Does the graph tell the truth?
==============================

Whether the network uses what an inference graph shows can be tried out: words are taken
away from the network, the most important ones first, and it decides again.
"""

# %%
# A small network that reads handwritten digits, its words, and their graph; images to measure on were not fitted.
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
# In the first panel every image is a point: below the diagonal its decision is less probable without the words shown
# than without random words at as many locations.  The second one shows how often the network decides the same when it
# gets only the words of a layer.
figure = report.plot()

# %%
# All measurements, with 95 % intervals over images and the desired values.
report.to_frame().round(2)

# %%
# A measure that cannot come out badly would show nothing.  Here the same words get a graph of counts of another
# network: one whose decisions were shuffled among the images.  Its order is no better than chance.
from dataclasses import replace

import numpy as np

from skgmmcnn.metrics import deletion

words = pipe[:-1].transform(digits.images)
shuffled = replace(words, decisions=np.random.default_rng(0).permutation(words.decisions))
wrong = make_pipeline(extractor, pipe[1], InferenceGraph(evidence="counts").fit(shuffled))
for name, each in {"the graph": pipe, "counts of shuffled decisions": wrong}.items():
    curves = deletion(each, digits.test_images, "conv3", orders=["graph", "random"], random_state=0)
    print(f"{name}: {curves.ratio():.2f} of the area of random order")
