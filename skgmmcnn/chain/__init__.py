"""Hidden Markov models of layers: feature maps of fully connected layers in, visual words and paths out."""

from ._hmm import LayerHMM
from ._paths import InferencePaths

__all__ = ["InferencePaths", "LayerHMM"]
