"""
Do words of one class become alike?
===================================

The higher a layer, the more its words should depend on the class.  We measure on a small network that reads digits
whether words that represent the same digit grow more alike from layer to layer, and whether words stay local: whether
one image still shows many of them.
"""

# %%
# The trained network comes with the package, and its images with scikit-learn.  A dictionary is fitted on training
# images.
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, LayerDictionary
from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()
extractor = FeatureExtractor(digits.network, ["conv1", "conv2", "conv3"], class_names=digits.class_names)
pipe = make_pipeline(extractor, LayerDictionary(50, random_state=0)).fit(digits.images)

# %%
# Each word represents the digit whose locations show it most often.  How alike two words are is measured on test
# images, so that nothing is alike by chance: by the digits in whose images they occur, and by the distance of what the
# layer does where they are.  Grey is what to expect if digits were dealt out to words at random.
from skgmmcnn import WordSimilarityDisplay

display = WordSimilarityDisplay.from_estimator(pipe, digits.test_images, random_state=0)
display.figure_.savefig("words_across_layers.png")

for layer in display.by_class:
    found = display.by_class[layer]
    print(f"{layer}: cosine {found.within:.2f} within a digit, {found.between:.2f} between digits")

# %%
# Words of the top layer that represent the same digit occur with the same digits; in the layers below, nearly all words
# occur with all digits.  Still, words do not spread over whole images: the last panel shows how many different words an
# image shows, and how much more often than by chance neighbouring locations show the same one.
for layer, found in display.spread.items():
    print(
        f"{layer}: {found.n_distinct:.1f} words at {found.n_locations} locations, the most frequent one at "
        f"{found.largest_share:.0%}, autocorrelation {found.autocorrelation:.2f}"
    )
print("Wrote words_across_layers.png")
