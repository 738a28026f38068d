"""Inference graphs as pictures."""

from ._inference_graph import InferenceGraphDisplay

__all__ = ["InferenceGraphDisplay"]
