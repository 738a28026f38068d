"""
Words that describe, words that decide
======================================

Words can be trained to describe what a layer does, or to distinguish the classes.  With few words the second kind
predicts the decision much better, and describes the activity less well.
"""

# %%
# A small network that reads digits.  Its maps are held in memory, as several dictionaries read them.
import numpy as np

from skgmmcnn import FeatureExtractor, LayerDictionary
from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()
layers = ["conv1", "conv2", "conv3"]
extractor = FeatureExtractor(digits.network, layers, class_names=digits.class_names)
maps = extractor.fit_transform(digits.images[:600]).compute()
test = extractor.transform(digits.test_images).compute()

# %%
# Generative words maximise the likelihood of the activity.  Discriminative words go on from there: through a linear
# softmax classifier that reads each image's average posteriors they are trained to predict the network's decisions.  To
# compare like with like, the same kind of classifier is fitted to the generative words.
sizes = [4, 8, 16]
decisions = np.concatenate([batch.decisions for batch in test.batches()])
wrong, density = {}, {}
for n in sizes:
    generative = LayerDictionary(n, random_state=0).fit(maps).fit_readout(maps)
    discriminative = LayerDictionary(n, objective="discriminative", random_state=0).fit(maps)
    for name, words in [("generative", generative), ("discriminative", discriminative)]:
        found, density[name, n] = words.predict_class_proba(test), words.score(test)
        wrong[name, n] = [float((found[layer].argmax(1) != decisions).mean()) for layer in layers]

# %%
# Share of the test images for which the words of one layer do not predict the network's decision.
import matplotlib.pyplot as plt

figure, panels = plt.subplots(1, len(layers), figsize=(9, 3), sharex=True, layout="constrained")
for i, (axes, layer) in enumerate(zip(panels, layers, strict=True)):
    for name, marker in [("generative", "o"), ("discriminative", "s")]:
        axes.plot(sizes, [100 * wrong[name, n][i] for n in sizes], marker + "-", label=name)
    axes.set(title=layer, xlabel="words", ylim=(0, None))
panels[0].set_ylabel("decisions missed, %")
panels[0].legend()
figure.savefig("discriminative_words.png")
for (name, n), missed in wrong.items():
    print(f"{n:3} {name:15}" + "".join(f"  {layer} {share:5.1%}" for layer, share in zip(layers, missed, strict=True)))

# %%
# The price: the mean log-density of the activity, in nats per location and summed over the layers.
for n in sizes:
    print(f"{n:3} words: " + ", ".join(f"{name} {density[name, n]:.1f}" for name in ("generative", "discriminative")))
