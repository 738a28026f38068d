"""Graphs, words and paths as pictures."""

from ._inference_graph import InferenceGraphDisplay
from ._paths import PathDisplay
from ._word_similarity import WordSimilarityDisplay

__all__ = ["InferenceGraphDisplay", "PathDisplay", "WordSimilarityDisplay"]
