"""Feature maps in, visual words out."""

from ._dictionary import LayerDictionary
from ._hmm import LayerHMM
from ._paths import InferencePaths, PathTable
from ._readouts import Readout
from ._representatives import Representatives
from ._statistics import WordStatistics
from ._words import Vocabulary, WordMaps, count_words

__all__ = [
    "InferencePaths",
    "LayerDictionary",
    "LayerHMM",
    "PathTable",
    "Readout",
    "Representatives",
    "Vocabulary",
    "WordMaps",
    "WordStatistics",
    "count_words",
]
