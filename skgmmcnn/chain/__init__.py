"""Hidden Markov models of layers: feature maps of fully connected layers in, visual words and paths out."""

from ._hmm import LayerHMM
from ._paths import InferencePaths, PathTable

__all__ = ["InferencePaths", "LayerHMM", "PathTable"]
