"""Visual words in, inference graphs out."""

from ._building import to_text
from ._inference_graph import InferenceGraph

__all__ = ["InferenceGraph", "to_text"]
