"""Visual words in, inference graphs out."""

from ._building import to_text
from ._inference_graph import InferenceGraph
from ._surprise import Surprise, Typicality

__all__ = ["InferenceGraph", "Surprise", "Typicality", "to_text"]
