"""Recognition densities q(z): what is believed about the hidden nodes.

A belief holds unconstrained arrays, with any leading axes (one belief per observation), and a static
layout that says which part of a vector belongs to which node. Continuous nodes come parents before
children, so that the Cholesky factor of a covariance splits the entropy by level with the chain rule.
"""

from vfe.beliefs.base import AbstractBelief
from vfe.beliefs.combined import EnumeratedBelief, MeanField, MixtureMarginal
from vfe.beliefs.continuous import LOG_2PI, AbstractContinuous, AbstractGaussian, GaussianMarginal
from vfe.beliefs.discrete import (
    AbstractDiscrete,
    Categorical,
    CategoricalMarginal,
    JointCategorical,
    entropy_of,
)
from vfe.beliefs.families import Amortised, Enumerated
from vfe.beliefs.gaussian import (
    AbstractLaplace,
    DiagonalGaussian,
    GaussNewtonLaplace,
    JointGaussian,
    Laplace,
    NodeGaussian,
)
from vfe.beliefs.particles import ParticleMarginal, Particles
from vfe.beliefs.point import Point, PointMarginal

__all__ = [
    "LOG_2PI",
    "AbstractBelief",
    "AbstractContinuous",
    "AbstractDiscrete",
    "AbstractGaussian",
    "AbstractLaplace",
    "Amortised",
    "Categorical",
    "CategoricalMarginal",
    "DiagonalGaussian",
    "Enumerated",
    "EnumeratedBelief",
    "GaussNewtonLaplace",
    "GaussianMarginal",
    "JointCategorical",
    "JointGaussian",
    "Laplace",
    "MeanField",
    "MixtureMarginal",
    "NodeGaussian",
    "ParticleMarginal",
    "Particles",
    "Point",
    "PointMarginal",
    "entropy_of",
]
