"""Visual words in, inference graphs out."""

from ._comparison import Difference, GraphComparison, ModelComparison, compare_graphs, compare_models
from ._export import Frames, read_graph, to_frame, write_graph
from ._inference_graph import InferenceGraph
from ._surprise import Surprise, Typicality
from ._text import to_text

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
