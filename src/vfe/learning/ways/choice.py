"""Which way of taking F's gradient a plan asks for."""

from typing import Any

from vfe.beliefs import GaussNewtonLaplace
from vfe.conditioning import Conditioned
from vfe.learning.gradient import CentredNudging, StochasticTrace, TotalDerivative
from vfe.learning.objective import ImportanceWeighted, Refined, Tempered
from vfe.learning.plan import Plan
from vfe.learning.trainable import is_amortised
from vfe.learning.ways.base import AbstractMeasure, AbstractWay
from vfe.learning.ways.contrasted import Contrasted, ContrastedEncoder
from vfe.learning.ways.encoded import EncodedObservations, EncodedTogether
from vfe.learning.ways.followed import Followed
from vfe.learning.ways.held import Held
from vfe.learning.ways.held_curved import HeldCurved
from vfe.learning.ways.held_in_errors import HeldInErrors, HeldInErrorsByTrace
from vfe.learning.ways.importance_weighted import ImportanceWeightedObservations
from vfe.learning.ways.nudged import Nudged
from vfe.learning.ways.observations import Observations
from vfe.learning.ways.refined import RefinedObservations
from vfe.learning.ways.shared_latents import SharedLatents
from vfe.learning.ways.tempered import TemperedObservations


def way_of(plan: Plan, data: Conditioned) -> AbstractWay:
    """How a minibatch is learned from."""
    contrast, shared = plan.contrast, data.repeats is not None
    if is_amortised(plan.family):
        if contrast is not None:
            return ContrastedEncoder(contrast)
        return EncodedTogether() if shared else _encoded(plan.objective)
    if isinstance(plan.gradient, CentredNudging):
        return Nudged(plan.gradient)
    measure = measure_of(plan)
    if contrast is not None:
        return Contrasted(contrast, measure)
    return SharedLatents(measure) if shared else Observations(measure)


def _encoded(objective: Any) -> AbstractWay:
    """How an encoder of single observations is learned."""
    if isinstance(objective, Tempered):
        return TemperedObservations()
    if isinstance(objective, ImportanceWeighted):
        return ImportanceWeightedObservations(objective.samples)
    if isinstance(objective, Refined):
        return RefinedObservations(objective.distillation)
    return EncodedObservations()


def measure_of(plan: Plan) -> AbstractMeasure:
    """How F of one observation depends on the parameters, for beliefs that are perceived."""
    if isinstance(plan.gradient, TotalDerivative):
        return Followed()
    if plan.family is not GaussNewtonLaplace:
        return Held()
    if plan.contrast is not None:
        return HeldCurved()
    return HeldInErrorsByTrace() if isinstance(plan.gradient, StochasticTrace) else HeldInErrors()
