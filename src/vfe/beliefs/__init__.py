"""Recognition densities q(z): what is believed about the hidden nodes.

A belief holds unconstrained arrays, with any leading axes (one belief per observation), and a static
layout that says which part of a vector belongs to which node. Continuous nodes come parents before
children, so that the Cholesky factor of a covariance splits the entropy by level with the chain rule.
"""

from vfe.beliefs.base import AbstractBelief
from vfe.beliefs.combined import EnumeratedBelief, MeanField, MixtureMarginal
from vfe.beliefs.conjugate import Conjugate, ConjugateBelief, ConjugateMarginal
from vfe.beliefs.continuous import LOG_2PI, AbstractContinuous, AbstractGaussian, GaussianMarginal
from vfe.beliefs.discrete import (
    AbstractDiscrete,
    Categorical,
    CategoricalMarginal,
    JointCategorical,
    entropy_of,
)
from vfe.beliefs.drawn import AbstractDrawn, AbstractDrawnFamily, DrawnMarginal, Draws
from vfe.beliefs.families import Amortised, Enumerated, Present
from vfe.beliefs.flow import Flow, FlowBelief
from vfe.beliefs.gaussian import (
    AbstractLaplace,
    DiagonalGaussian,
    GaussNewtonLaplace,
    JointGaussian,
    Laplace,
    NodeGaussian,
)
from vfe.beliefs.mixture import Mixture, MixtureBelief
from vfe.beliefs.particles import ParticleMarginal, Particles
from vfe.beliefs.point import Point, PointMarginal
from vfe.beliefs.recognition import recognition

__all__ = [
    "LOG_2PI",
    "AbstractBelief",
    "AbstractContinuous",
    "AbstractDiscrete",
    "AbstractDrawn",
    "AbstractDrawnFamily",
    "AbstractGaussian",
    "AbstractLaplace",
    "Amortised",
    "Categorical",
    "CategoricalMarginal",
    "Conjugate",
    "ConjugateBelief",
    "ConjugateMarginal",
    "DiagonalGaussian",
    "DrawnMarginal",
    "Draws",
    "Enumerated",
    "EnumeratedBelief",
    "Flow",
    "FlowBelief",
    "GaussNewtonLaplace",
    "GaussianMarginal",
    "JointCategorical",
    "JointGaussian",
    "Laplace",
    "MeanField",
    "Mixture",
    "MixtureBelief",
    "MixtureMarginal",
    "NodeGaussian",
    "ParticleMarginal",
    "Particles",
    "Point",
    "PointMarginal",
    "Present",
    "entropy_of",
    "recognition",
]
