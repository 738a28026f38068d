"""Feature maps of images from trained networks."""

from ._attribution import Attribution, attribute
from ._captured import CapturedNetwork
from ._extractor import FeatureExtractor
from ._layers import list_layers
from ._maps import FeatureMaps, maps_of_arrays, maps_of_changed_network
from ._network import build, fingerprint, memory_order, names_file
from ._pixels import Pictures
from ._receptive_field import ReceptiveField, Span
from ._rerun import Edits, put, replace
from ._running import in_memory
from ._scores import check_decided, log_proba, margins, proba_of, runners_up
from ._sources import Change, FeatureBatch, Rerun, Result
from ._spec import NetworkSpec, check_layers

__all__ = ["FeatureExtractor", "FeatureMaps", "NetworkSpec", "ReceptiveField", "list_layers"]
