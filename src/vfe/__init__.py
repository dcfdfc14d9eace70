"""vfe: the free-energy principle as software.

Write a generative model once; perceive, learn, attend and compare models with it. Every one of these
minimises the same number, the variational free energy F, in nats.
"""

from vfe import exact
from vfe.beliefs import (
    Amortised,
    Categorical,
    DiagonalGaussian,
    Enumerated,
    EnumeratedBelief,
    JointCategorical,
    JointGaussian,
    Laplace,
    MeanField,
    NodeGaussian,
    Particles,
    Point,
)
from vfe.conditionals import (
    bernoulli,
    categorical,
    conditional,
    dirichlet,
    gamma,
    gaussian,
    given,
    plate,
)
from vfe.conditioning import masked
from vfe.expectation import Enumerate, MonteCarlo, Taylor
from vfe.free_energy import Estimate, FreeEnergy, Kind, free_energy
from vfe.hierarchy import hierarchy
from vfe.maps import MLP, Affine, Fixed, Table, learnable
from vfe.model import Model
from vfe.perception import (
    CoordinateAscent,
    Descent,
    DivergenceError,
    ErrorCoordinates,
    Exact,
    GradientFlow,
    Langevin,
    NaturalGradient,
    Percept,
    Status,
    perceive,
)

__all__ = [
    "MLP",
    "Affine",
    "Amortised",
    "Categorical",
    "CoordinateAscent",
    "Descent",
    "DiagonalGaussian",
    "DivergenceError",
    "Enumerate",
    "Enumerated",
    "EnumeratedBelief",
    "ErrorCoordinates",
    "Estimate",
    "Exact",
    "Fixed",
    "FreeEnergy",
    "GradientFlow",
    "JointCategorical",
    "JointGaussian",
    "Kind",
    "Langevin",
    "Laplace",
    "MeanField",
    "Model",
    "MonteCarlo",
    "NaturalGradient",
    "NodeGaussian",
    "Particles",
    "Percept",
    "Point",
    "Status",
    "Table",
    "Taylor",
    "bernoulli",
    "categorical",
    "conditional",
    "dirichlet",
    "exact",
    "free_energy",
    "gamma",
    "gaussian",
    "given",
    "hierarchy",
    "learnable",
    "masked",
    "perceive",
    "plate",
]
