"""Visual words in, inference graphs out."""

from ._building import to_text
from ._comparison import Difference, GraphComparison, ModelComparison, compare_graphs, compare_models
from ._export import Frames, read_graph, to_frame, write_graph
from ._inference_graph import InferenceGraph
from ._surprise import Surprise, Typicality

__all__ = [
    "Difference",
    "Frames",
    "GraphComparison",
    "InferenceGraph",
    "ModelComparison",
    "Surprise",
    "Typicality",
    "compare_graphs",
    "compare_models",
    "read_graph",
    "to_frame",
    "to_text",
    "write_graph",
]
