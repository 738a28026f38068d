"""
Similarity of words from layer to layer
=======================================

Words of higher layers should depend more on the class.  In a small network for digits, words of the same digit become
more similar from layer to layer.  Words remain local: each image has many of them.
"""

# %%
# Fit a dictionary to training images.
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, LayerDictionary
from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()
extractor = FeatureExtractor(digits.network, ["conv1", "conv2", "conv3"], class_names=digits.class_names)
pipe = make_pipeline(extractor, LayerDictionary(50, random_state=0)).fit(digits.images)

# %%
# The class of a word is its most frequent digit.  The similarity of two words is measured on test images, by the
# frequencies of digits and by the distance of mean activations.  Grey is the range for a random assignment of digits to
# words.
from skgmmcnn import WordSimilarityDisplay

display = WordSimilarityDisplay.from_estimator(pipe, digits.test_images, random_state=0)
display.save("words_across_layers.png")

for layer in display.by_class:
    similarity = display.by_class[layer]
    print(f"{layer}: cosine {similarity.within:.2f} within a digit, {similarity.between:.2f} between digits")

# %%
# Words of the same digit in the top layer occur with the same digits; in lower layers, nearly all words occur with all
# digits.  The last panel shows that words do not spread over whole images: the number of distinct words per image, and
# the agreement of neighbouring locations beyond chance.
for layer, spread in display.spread.items():
    print(
        f"{layer}: {spread.n_distinct:.1f} words at {spread.n_locations} locations, the most frequent one at "
        f"{spread.largest_share:.0%}, autocorrelation {spread.autocorrelation:.2f}"
    )
print("Wrote words_across_layers.png")
