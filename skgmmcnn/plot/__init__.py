"""Graphs, words, paths and training as pictures, and graphs as a page for the browser."""

from ._inference_graph import InferenceGraphDisplay
from ._influence_map import InfluenceMapDisplay
from ._page import InferenceGraphPage
from ._paths import PathDisplay
from ._training import TrainingDisplay
from ._visual_word import VisualWordDisplay
from ._word_map import WordMapDisplay
from ._word_similarity import WordSimilarityDisplay

__all__ = [
    "InferenceGraphDisplay",
    "InferenceGraphPage",
    "InfluenceMapDisplay",
    "PathDisplay",
    "TrainingDisplay",
    "VisualWordDisplay",
    "WordMapDisplay",
    "WordSimilarityDisplay",
]
