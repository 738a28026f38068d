"""How far a graph can be trusted, and what else words tell of a network."""

from ._bits import PredictiveBits, bits_score, predictive_bits
from ._completeness import Completeness, completeness, completeness_score
from ._deletion import AblationCurves, deletion, insertion
from ._fidelity import Fidelity, agreement_score, fidelity
from ._memorisation import Memorisation, memorisation
from ._permutation import PermutationTest, permutation_test
from ._randomisation import Randomisation, randomisation_test
from ._stability import GraphStability, Stability, stability

__all__ = [
    "AblationCurves",
    "Completeness",
    "Fidelity",
    "GraphStability",
    "Memorisation",
    "PermutationTest",
    "PredictiveBits",
    "Randomisation",
    "Stability",
    "agreement_score",
    "bits_score",
    "completeness",
    "completeness_score",
    "deletion",
    "fidelity",
    "insertion",
    "memorisation",
    "permutation_test",
    "predictive_bits",
    "randomisation_test",
    "stability",
]
