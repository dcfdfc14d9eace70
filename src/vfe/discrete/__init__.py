"""Discrete worlds: categorical hidden states, tables of probabilities, beliefs carried through time."""

from vfe.discrete.labels import Labels
from vfe.discrete.pomdp import POMDP, HiddenMarkov
from vfe.discrete.states.beliefs import FilteredStates, SmoothedStates
from vfe.discrete.states.outcomes import Several, Soft
from vfe.discrete.states.verbs import filter_pomdp, smooth_pomdp

__all__ = [
    "POMDP",
    "FilteredStates",
    "HiddenMarkov",
    "Labels",
    "Several",
    "SmoothedStates",
    "Soft",
    "filter_pomdp",
    "smooth_pomdp",
]
