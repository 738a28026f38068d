"""Graphs, words and paths as pictures, and graphs as a page for the browser."""

from ._inference_graph import InferenceGraphDisplay
from ._page import InferenceGraphPage
from ._paths import PathDisplay
from ._word_similarity import WordSimilarityDisplay

__all__ = ["InferenceGraphDisplay", "InferenceGraphPage", "PathDisplay", "WordSimilarityDisplay"]
