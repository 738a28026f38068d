"""Explain an image classifier's decision by the visual words of its layers."""

from ._show_versions import show_versions
from .chain import LayerHMM
from .dictionary import LayerDictionary, WordMaps
from .features import FeatureExtractor, FeatureMaps
from .graph import InferenceGraph, to_text
from .mixture import DiagonalGaussianMixture
from .persistence import load, save
from .plot import (
    InferenceGraphDisplay,
    InferenceGraphPage,
    InfluenceMapDisplay,
    PathDisplay,
    TrainingDisplay,
    VisualWordDisplay,
    WordMapDisplay,
    WordSimilarityDisplay,
)

__all__ = [
    "DiagonalGaussianMixture",
    "FeatureExtractor",
    "FeatureMaps",
    "InferenceGraph",
    "InferenceGraphDisplay",
    "InferenceGraphPage",
    "InfluenceMapDisplay",
    "LayerDictionary",
    "LayerHMM",
    "PathDisplay",
    "TrainingDisplay",
    "VisualWordDisplay",
    "WordMapDisplay",
    "WordMaps",
    "WordSimilarityDisplay",
    "load",
    "save",
    "show_versions",
    "to_text",
]
__version__ = "0.1.0.dev0"
