"""Visual words in, inference graphs out."""

from ._comparison import GraphComparison, compare_graphs, compare_models
from ._count_tables import FEW_FITTED
from ._evidence import Selection
from ._export import read_graph, to_frame, write_graph
from ._hierarchy import DECISION
from ._inference_graph import InferenceGraph
from ._influence_traces import salience
from ._kinds import KINDS, kind_for, kind_of, strength_of, wording_of
from ._pairs import PairEffect, pair_effects, priorities, selections_of
from ._surprise import surprise, typicality
from ._targets import Target, targets_of
from ._text import to_text
from ._wording import Bar, Wording, nats, percent, probable, with_number

__all__ = [
    "InferenceGraph",
    "compare_graphs",
    "compare_models",
    "read_graph",
    "surprise",
    "to_frame",
    "to_text",
    "typicality",
    "write_graph",
]
