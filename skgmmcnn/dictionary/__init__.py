"""Feature maps in, visual words out."""

from ._alignment import Alignment, align_words, assign, similarity_of_means
from ._base import WordModel, check_shares
from ._dictionary import LayerDictionary
from ._influence import ClassMargin, Influence, InfluenceMaps, Margin, WordMargin, layer_mean
from ._locality import Locality, locality
from ._readouts import Readout
from ._representatives import Representatives
from ._reservoir import draw
from ._similarity import Cohesion, class_cohesion, class_similarity, mean_cosine, mean_distance, word_classes
from ._statistics import WordStatistics
from ._training import Sample, begin, choose_emission, passes
from ._words import Vocabulary, WordMaps, count_words
from ._worth import means_of

__all__ = [
    "Alignment",
    "Cohesion",
    "Influence",
    "InfluenceMaps",
    "LayerDictionary",
    "Locality",
    "Readout",
    "Representatives",
    "Vocabulary",
    "WordMaps",
    "WordStatistics",
    "align_words",
    "class_cohesion",
    "class_similarity",
    "count_words",
    "locality",
    "mean_cosine",
    "mean_distance",
    "word_classes",
]
