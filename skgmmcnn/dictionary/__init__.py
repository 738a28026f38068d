"""Feature maps in, visual words out."""

from ._dictionary import LayerDictionary
from ._representatives import Representatives
from ._words import Vocabulary, WordMaps, count_words

__all__ = ["LayerDictionary", "Representatives", "Vocabulary", "WordMaps", "count_words"]
