"""Discrete worlds: categorical hidden states, tables of probabilities, beliefs carried through time."""

from vfe.discrete.exact_states import filter_pomdp, smooth_pomdp
from vfe.discrete.pomdp import POMDP, hidden_markov
from vfe.discrete.state_beliefs import FilteredStates, SmoothedStates

__all__ = [
    "POMDP",
    "FilteredStates",
    "SmoothedStates",
    "filter_pomdp",
    "hidden_markov",
    "smooth_pomdp",
]
