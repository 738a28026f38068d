"""Feature maps in, visual words out."""

from ._alignment import Alignment, align_words, assign, similarity_of_means
from ._base import WordModel
from ._dictionary import LayerDictionary
from ._influence import ClassMargin, Influence, Margin, WordMargin, layer_mean
from ._labelling import Assign, Assigned
from ._representatives import Representatives
from ._training import Sample, draw, passes
from ._words import Vocabulary, WordMaps, WordStatistics, count_classes, count_words, select
from ._worth import rebuild, share_explained

__all__ = ["LayerDictionary", "Vocabulary", "WordMaps", "align_words"]
