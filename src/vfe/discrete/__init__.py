"""Discrete worlds: categorical hidden states, tables of probabilities, beliefs carried through time."""

from vfe.discrete.chain import chain, chain_values, unrolled
from vfe.discrete.labels import Labels
from vfe.discrete.pomdp import POMDP, HiddenMarkov
from vfe.discrete.states.beliefs import FactorisedStates, FilteredFactors, FilteredStates, SmoothedStates
from vfe.discrete.states.filtered import move_factors
from vfe.discrete.states.one_step import mean_field_step
from vfe.discrete.states.outcomes import Several, Soft
from vfe.discrete.states.policies import predict
from vfe.discrete.states.settings import Marginal, MeanField, Structured
from vfe.discrete.states.verbs import filter_pomdp, smooth_pomdp

__all__ = [
    "POMDP",
    "FactorisedStates",
    "FilteredFactors",
    "FilteredStates",
    "HiddenMarkov",
    "Labels",
    "Marginal",
    "MeanField",
    "Several",
    "SmoothedStates",
    "Soft",
    "Structured",
    "chain",
    "chain_values",
    "filter_pomdp",
    "mean_field_step",
    "move_factors",
    "predict",
    "smooth_pomdp",
    "unrolled",
]
