"""Images in, feature maps out."""

from ._attribution import Attribution, attribute
from ._extractor import FeatureExtractor
from ._layers import LayerInfo, list_layers
from ._maps import Change, FeatureBatch, FeatureMaps, Pictures, Rerun, Result
from ._network import build, fingerprint, memory_order, names_file
from ._probing import HookedNetwork
from ._receptive_field import ReceptiveField, Span
from ._rerun import Edits, put, replace
from ._running import in_memory
from ._scores import check_decided, log_proba, margins, proba_of, runners_up
from ._spec import NetworkSpec
from ._tracing import TracedNetwork

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
