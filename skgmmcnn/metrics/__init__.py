"""Measures of how far a graph can be trusted."""

from ._completeness import completeness, completeness_score
from ._deletion import deletion
from ._edges import edge_effects
from ._faithfulness import faithfulness
from ._fidelity import fidelity, fidelity_score
from ._memorisation import memorisation
from ._randomisation import randomisation_test
from ._removal import removal
from ._report import trust_report
from ._stability import stability

__all__ = [
    "completeness",
    "completeness_score",
    "deletion",
    "edge_effects",
    "faithfulness",
    "fidelity",
    "fidelity_score",
    "memorisation",
    "randomisation_test",
    "removal",
    "stability",
    "trust_report",
]
