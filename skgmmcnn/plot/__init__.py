"""Graphs and words as pictures, and as a page for the browser."""

from ._inference_graph import InferenceGraphDisplay
from ._page import InferenceGraphPage
from ._word_similarity import WordSimilarityDisplay

__all__ = ["InferenceGraphDisplay", "InferenceGraphPage", "WordSimilarityDisplay"]
