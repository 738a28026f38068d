"""Images in, feature maps out."""

from ._extractor import FeatureExtractor
from ._layers import LayerInfo, list_layers
from ._maps import FeatureBatch, FeatureMaps, Pictures, Rerun
from ._receptive_field import ReceptiveField
from ._spec import NetworkSpec

__all__ = [
    "FeatureBatch",
    "FeatureExtractor",
    "FeatureMaps",
    "LayerInfo",
    "NetworkSpec",
    "Pictures",
    "ReceptiveField",
    "Rerun",
    "list_layers",
]
