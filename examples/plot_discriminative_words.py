"""
Generative and discriminative words
===================================

Words are trained to describe the activations of a layer, or to predict the class.  A few discriminative words predict
the decision much better than generative ones, and describe the activations less well.
"""

# %%
# Several dictionaries use the same feature maps, so they are computed once.
import numpy as np

from skgmmcnn import FeatureExtractor, LayerDictionary
from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()
layers = ["conv1", "conv2", "conv3"]
extractor = FeatureExtractor(digits.network, layers, class_names=digits.class_names)
maps = extractor.fit_transform(digits.images[:600]).compute()
test = extractor.transform(digits.test_images).compute()

# %%
# Generative words maximise the likelihood of the activations.  Discriminative words continue from there and are trained
# to predict the network's decision by a linear softmax classifier of the posteriors averaged over an image.  For a fair
# comparison, the same kind of classifier is fitted to the generative words.
sizes = [4, 8, 16]
decisions = np.concatenate([batch.decisions for batch in test.batches()])
wrong, density = {}, {}
for n in sizes:
    generative = LayerDictionary(n, random_state=0).fit(maps).fit_readout(maps)
    discriminative = LayerDictionary(n, objective="discriminative", random_state=0).fit(maps)
    for name, words in [("generative", generative), ("discriminative", discriminative)]:
        probabilities = words.predict_class_proba(test)
        wrong[name, n] = [float((probabilities[layer].argmax(1) != decisions).mean()) for layer in layers]
        density[name, n] = words.score(test)

# %%
# The error is the fraction of test images for which the words of one layer do not predict the network's decision.
import matplotlib.pyplot as plt

figure, panels = plt.subplots(1, len(layers), figsize=(9, 3), sharex=True, layout="constrained")
for i, (axes, layer) in enumerate(zip(panels, layers, strict=True)):
    for name, marker in [("generative", "o"), ("discriminative", "s")]:
        axes.plot(sizes, [100 * wrong[name, n][i] for n in sizes], marker + "-", label=name)
    axes.set(title=layer, xlabel="words", ylim=(0, None))
panels[0].set_ylabel("error, %")
panels[0].legend()
figure.savefig("discriminative_words.png")
for (name, n), errors in wrong.items():
    print(f"{n:3} {name:15}" + "".join(f"  {layer} {error:5.1%}" for layer, error in zip(layers, errors, strict=True)))

# %%
# The log-density of the activations is lower: the mean in nats per location, summed over the layers.
for n in sizes:
    print(f"{n:3} words: " + ", ".join(f"{name} {density[name, n]:.1f}" for name in ("generative", "discriminative")))
