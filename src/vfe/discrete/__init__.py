"""Discrete worlds: categorical hidden states, tables of probabilities, beliefs carried through time."""

from vfe.discrete import behaviour, worlds
from vfe.discrete.agents.agent import Agent
from vfe.discrete.agents.hierarchical import HierarchicalAgent, HierarchicalState
from vfe.discrete.agents.online_learning import OnlineLearning
from vfe.discrete.agents.records import AgentState, Decision, Percept
from vfe.discrete.chain import chain, chain_values, unrolled
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
from vfe.discrete.states.beliefs import FactorisedStates, FilteredFactors, FilteredStates, SmoothedStates
from vfe.discrete.states.elimination import move_factors
from vfe.discrete.states.one_step import mean_field_step
from vfe.discrete.states.outcomes import Several, Soft
from vfe.discrete.states.policies import predict
from vfe.discrete.states.settings import Marginal, MeanField, Structured
from vfe.discrete.states.verbs import filter_pomdp, smooth_pomdp

__all__ = [
    "POMDP",
    "Agent",
    "AgentState",
    "Decision",
    "DirichletTables",
    "ExpectedFreeEnergy",
    "FactorisedStates",
    "FilteredFactors",
    "FilteredStates",
    "Goal",
    "HiddenMarkov",
    "HierarchicalAgent",
    "HierarchicalState",
    "Labels",
    "LearnedTables",
    "Marginal",
    "MeanField",
    "OnlineLearning",
    "Percept",
    "Plan",
    "Policies",
    "PolicyPrecision",
    "ReducedTables",
    "Search",
    "Searched",
    "Several",
    "SmoothedStates",
    "Soft",
    "Structured",
    "Terms",
    "behaviour",
    "chain",
    "chain_values",
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
    "mean_field_step",
    "merge_states",
    "move_factors",
    "policy_posterior",
    "predict",
    "prune_entries",
    "reduce_tables",
    "search",
    "smooth_pomdp",
    "surprise_alone",
    "unrolled",
    "worlds",
]
