"""Images in, feature maps out."""

from ._extractor import FeatureExtractor
from ._maps import FeatureBatch, FeatureMaps, Pictures
from ._receptive_field import ReceptiveField
from ._spec import NetworkSpec

__all__ = ["FeatureBatch", "FeatureExtractor", "FeatureMaps", "NetworkSpec", "Pictures", "ReceptiveField"]
