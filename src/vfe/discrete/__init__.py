"""Discrete worlds: categorical hidden states, tables of probabilities, beliefs carried through time."""

from vfe.discrete import behaviour, worlds
from vfe.discrete.agents.agent import Agent
from vfe.discrete.agents.online_learning import OnlineLearning
from vfe.discrete.agents.records import AgentState, Decision, Percept
from vfe.discrete.labels import Labels
from vfe.discrete.learning.counts import DirichletTables
from vfe.discrete.learning.online import (
    filtered_pairs,
    independent_pairs,
    learn_habits,
    learn_likelihood,
    learn_preferences,
    learn_start,
    learn_transitions,
)
from vfe.discrete.learning.reduction import ReducedTables, merge_states, prune_entries, reduce_tables
from vfe.discrete.learning.whole import LearnedTables, fit_pomdp
from vfe.discrete.planning.expected_free_energy import ExpectedFreeEnergy, expected_free_energy
from vfe.discrete.planning.goal import Goal
from vfe.discrete.planning.plan import Plan
from vfe.discrete.planning.policies import Policies, every_policy
from vfe.discrete.planning.policy_posterior import PolicyPrecision, infer_precision, policy_posterior
from vfe.discrete.planning.search import Search, Searched, search
from vfe.discrete.planning.terms import Terms, surprise_alone
from vfe.discrete.pomdp import POMDP, HiddenMarkov
from vfe.discrete.states.beliefs import FilteredStates, SmoothedStates
from vfe.discrete.states.exact import filter_pomdp, smooth_pomdp

__all__ = [
    "POMDP",
    "Agent",
    "AgentState",
    "Decision",
    "DirichletTables",
    "ExpectedFreeEnergy",
    "FilteredStates",
    "Goal",
    "HiddenMarkov",
    "Labels",
    "LearnedTables",
    "OnlineLearning",
    "Percept",
    "Plan",
    "Policies",
    "PolicyPrecision",
    "ReducedTables",
    "Search",
    "Searched",
    "SmoothedStates",
    "Terms",
    "behaviour",
    "every_policy",
    "expected_free_energy",
    "filter_pomdp",
    "filtered_pairs",
    "fit_pomdp",
    "independent_pairs",
    "infer_precision",
    "learn_habits",
    "learn_likelihood",
    "learn_preferences",
    "learn_start",
    "learn_transitions",
    "merge_states",
    "policy_posterior",
    "prune_entries",
    "reduce_tables",
    "search",
    "smooth_pomdp",
    "surprise_alone",
    "worlds",
]
