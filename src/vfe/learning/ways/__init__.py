"""The ways of taking F's gradient: of one observation, and of a minibatch."""

from vfe.learning.ways.base import AbstractWay, Minibatch
from vfe.learning.ways.choice import way_of

__all__ = ["AbstractWay", "Minibatch", "way_of"]
