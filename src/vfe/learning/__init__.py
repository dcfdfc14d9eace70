"""Learning and attention: minimise F over parameters and precisions."""

from vfe.learning.attend import attend
from vfe.learning.contrast import Contrast
from vfe.learning.gradient import CentredNudging, ExpectationMaximisation, StochasticTrace, TotalDerivative
from vfe.learning.learn import learn
from vfe.learning.learned import Learned
from vfe.learning.natural import natural_descent
from vfe.learning.objective import ImportanceWeighted, Refined, Tempered
from vfe.learning.source import Batches, Rows
from vfe.learning.uncertainty import ParameterUncertainty, parameter_uncertainty

__all__ = [
    "Batches",
    "CentredNudging",
    "Contrast",
    "ExpectationMaximisation",
    "ImportanceWeighted",
    "Learned",
    "ParameterUncertainty",
    "Refined",
    "Rows",
    "StochasticTrace",
    "Tempered",
    "TotalDerivative",
    "attend",
    "learn",
    "natural_descent",
    "parameter_uncertainty",
]
