"""Perception: minimise F over beliefs."""

from vfe.perception.anderson import Anderson
from vfe.perception.coordinate_ascent import CoordinateAscent
from vfe.perception.descent import Descent
from vfe.perception.error_coordinates import ErrorCoordinates
from vfe.perception.exact_solver import Exact
from vfe.perception.feed_forward import FeedForward
from vfe.perception.gradient_flow import GradientFlow
from vfe.perception.gradient_steps import ActivityDescent, ErrorDescent
from vfe.perception.langevin import Langevin
from vfe.perception.natural_gradient import GaussNewton, Hessian, NaturalGradient
from vfe.perception.perceive import perceive
from vfe.perception.percept import Percept
from vfe.perception.status import DivergenceError, Status

__all__ = [
    "ActivityDescent",
    "Anderson",
    "CoordinateAscent",
    "Descent",
    "DivergenceError",
    "ErrorCoordinates",
    "ErrorDescent",
    "Exact",
    "FeedForward",
    "GaussNewton",
    "GradientFlow",
    "Hessian",
    "Langevin",
    "NaturalGradient",
    "Percept",
    "Status",
    "perceive",
]
