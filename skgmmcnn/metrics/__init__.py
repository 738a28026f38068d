"""How far a graph can be trusted, and what else words tell of a network."""

from ._completeness import Completeness, completeness, rebuilding_score
from ._deletion import AblationCurves, deletion, insertion
from ._edges import edge_effects
from ._faithfulness import Circuit, Faithfulness, Nodes, faithfulness
from ._fidelity import Fidelity, agreement_score, fidelity
from ._measured import Figure, Measured
from ._memorisation import Memorisation, memorisation
from ._randomisation import Randomisation, randomisation_test
from ._report import TrustReport, trust_report
from ._stability import GraphStability, Stability, stability
from ._verdicts import Verdict

__all__ = [
    "AblationCurves",
    "Circuit",
    "Completeness",
    "Faithfulness",
    "Fidelity",
    "Figure",
    "GraphStability",
    "Measured",
    "Memorisation",
    "Nodes",
    "Randomisation",
    "Stability",
    "TrustReport",
    "Verdict",
    "agreement_score",
    "completeness",
    "deletion",
    "edge_effects",
    "faithfulness",
    "fidelity",
    "insertion",
    "memorisation",
    "randomisation_test",
    "rebuilding_score",
    "stability",
    "trust_report",
]
