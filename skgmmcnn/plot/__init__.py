"""Inference graphs and paths as pictures."""

from ._inference_graph import InferenceGraphDisplay
from ._paths import PathDisplay

__all__ = ["InferenceGraphDisplay", "PathDisplay"]
