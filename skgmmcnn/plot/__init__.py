"""Graphs and words as pictures."""

from ._inference_graph import InferenceGraphDisplay
from ._word_similarity import WordSimilarityDisplay

__all__ = ["InferenceGraphDisplay", "WordSimilarityDisplay"]
