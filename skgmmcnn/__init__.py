"""Explain an image classifier's decision by the visual words of its layers."""

from .dictionary import LayerDictionary, LayerHMM, WordMaps
from .features import FeatureExtractor, FeatureMaps
from .graph import InferenceGraph, to_text
from .mixture import MiniBatchGaussianMixture
from .persistence import load, save
from .plot import InferenceGraphDisplay, InferenceGraphPage, PathDisplay, WordSimilarityDisplay

__all__ = [
    "FeatureExtractor",
    "FeatureMaps",
    "InferenceGraph",
    "InferenceGraphDisplay",
    "InferenceGraphPage",
    "LayerDictionary",
    "LayerHMM",
    "MiniBatchGaussianMixture",
    "PathDisplay",
    "WordMaps",
    "WordSimilarityDisplay",
    "load",
    "save",
    "to_text",
]
__version__ = "0.1.0.dev0"
