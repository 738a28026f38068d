"""Hidden Markov models of the layers of fully connected networks."""

from ._hmm import LayerHMM
from ._paths import InferencePaths

__all__ = ["InferencePaths", "LayerHMM"]
