"""Worlds to live in, as tables with names; `POMDPWorld` runs them."""

from vfe.discrete.worlds.bandit import bandit
from vfe.discrete.worlds.corridor_tmaze import corridor_tmaze
from vfe.discrete.worlds.cue_chaining import cue_chaining
from vfe.discrete.worlds.graph import graph
from vfe.discrete.worlds.grid import grid
from vfe.discrete.worlds.hidden_predator import hidden_predator
from vfe.discrete.worlds.pomdp_world import POMDPState, POMDPWorld
from vfe.discrete.worlds.tiger import tiger
from vfe.discrete.worlds.tmaze import tmaze

__all__ = [
    "POMDPState",
    "POMDPWorld",
    "bandit",
    "corridor_tmaze",
    "cue_chaining",
    "graph",
    "grid",
    "hidden_predator",
    "tiger",
    "tmaze",
]
