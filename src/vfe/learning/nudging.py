"""The two phases of centred nudging: activities with the observed nodes' energy added, and taken away."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs import Point
from vfe.conditionals import AbstractGaussianNode
from vfe.conditioning import Conditioned
from vfe.curvature import flat_errors
from vfe.perception.loop import AbstractSolver


class Phases(eqx.Module):
    """Activities at the feed-forward pass, and at the equilibria under +β and −β."""

    free: Point
    up: Point
    down: Point


def check_nudging(conditioned: Conditioned, family: Any, solver: Any, keep_beliefs: bool) -> None:
    """Refuse what has no free phase at the feed-forward pass, or no activities to nudge.

    **Raises:** `ValueError` that names the node or the setting, and what to write instead.
    """
    if family is not Point:
        name = getattr(family, "__name__", type(family).__name__)
        raise ValueError(f"CentredNudging moves activities: got {name} for a belief; use belief=vfe.Point.")
    if keep_beliefs:
        raise ValueError(
            "CentredNudging: both phases start from the feed-forward pass, so no belief is kept; write "
            "keep_beliefs=False."
        )
    if solver is not None and not isinstance(solver, AbstractSolver):
        raise ValueError(
            f"CentredNudging: {type(solver).__name__} makes no steps to an equilibrium; use "
            "vfe.Anderson(), vfe.ActivityDescent() or another solver that does."
        )
    reason = None
    for name in conditioned.hidden:
        node = conditioned.model.nodes[name]
        if not (isinstance(node, AbstractGaussianNode) and node.has_constant_noise):
            reason = f"node {name!r} is hidden and not a vfe.gaussian of constant scale"
        elif name in conditioned.partial:
            reason = f"some elements of node {name!r}, which has children, are missing"
    if not conditioned.hidden:
        reason = "no node is hidden"
    if reason is not None:
        raise ValueError(f"CentredNudging: {reason}; use gradient=vfe.ExpectationMaximisation().")


def find_phases(
    conditioned: Conditioned,
    relaxed: Callable[[Conditioned], tuple[Point, Array]],
    strength: float,
    atol: float,
    key: PRNGKeyArray,
) -> tuple[Phases, Array]:
    """Both equilibria of a batch, by `relaxed`, and which observations have them.

    E_−β may fall without bound, and then its gradient grows from step to step instead of shrinking: an
    observation for which it ends above where it began (by more than `atol` an element) has no answer.
    """
    free = conditioned.over(lambda c: Point.start(c, key))
    up, good_up = relaxed(dataclasses.replace(conditioned, nudge=strength))
    below = dataclasses.replace(conditioned, nudge=-strength)
    down, good_down = relaxed(below)

    def arrives(c: Conditioned, point: Point) -> Array:
        slope = jax.grad(c.error_energy)
        errors = flat_errors(c, point.location)
        allowed = atol * errors.size**0.5
        return jnp.linalg.norm(slope(errors)) <= jnp.linalg.norm(slope(jnp.zeros_like(errors))) + allowed

    good = good_up & good_down & below.over(arrives, down)
    return jax.lax.stop_gradient(Phases(free, up, down)), good


def centred_difference(conditioned: Conditioned, phases: Phases, strength: float) -> Float[Array, ""]:
    """(E_β(z_β) − E_−β(z_−β)) / 2β of one observation: learning follows its derivative."""
    up = dataclasses.replace(conditioned, nudge=strength).energy(phases.up.location)
    down = dataclasses.replace(conditioned, nudge=-strength).energy(phases.down.location)
    return (up - down) / (2 * strength)
