"""Choosing among options: the most probable one, or one that is drawn."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

AMONG = ("policy", "action", "factor")


class Choosing(eqx.Module):
    """How an agent chooses from the probabilities of its options.

    `options` (options, factors): the first action of every option; `actions` (actions, factors): every
    joint action; `controls`: how many each factor has; `precision`: α, or None for the most probable;
    `among`: "policy", "action" or "factor", see `vfe.discrete.Agent`.

    **Raises:** `ValueError` for a precision that is not greater than zero, and something else to choose
    among.

    **Example:** `agent.choosing.choose(plan.log_probabilities, key)`.
    """

    options: Int[Array, "options factors"]
    actions: Int[Array, "actions factors"]
    precision: Any
    controls: tuple[int, ...] = eqx.field(static=True)
    among: str = eqx.field(static=True)

    def __check_init__(self):
        if self.among not in AMONG:
            raise ValueError(f'Agent: got choose={self.among!r}; wanted "policy", "action" or "factor".')
        check_positive("action_precision", self.precision)

    def choose(self, log_q: Float[Array, " options"], key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        """The action, the most probable option that begins with it, and whether there is one."""
        if self.among == "policy":
            option = self._draw(log_q, key)
            return self.options[option], option, jnp.ones((), bool)
        if self.among == "action":
            action = self.actions[self._draw(self._of_actions(log_q), key)]
        else:
            found = self._of_controls(log_q)
            keys = jax.random.split(key, len(found))
            drawn = [self._draw(logits, each) for logits, each in zip(found, keys, strict=True)]
            action = jnp.stack(drawn).astype(self.options.dtype)
        begins = (self.options == action).all(1)
        return action, jnp.argmax(jnp.where(begins, log_q, -jnp.inf)), begins.any()

    def log_probabilities(self, log_q: Float[Array, " options"]) -> Float[Array, " actions"]:
        """ln p(u) of every joint action as `choose` would draw it.

        **Raises:** `ValueError` where the most probable one is taken.
        """
        if self.precision is None:
            raise ValueError(
                "log_probabilities: this agent takes the most probable action; write "
                "Agent(..., action_precision=1.0) for actions that are drawn."
            )
        if self.among == "policy":
            return self._of_actions(jax.nn.log_softmax(_sharpened(self.precision, log_q)))
        if self.among == "action":
            return jax.nn.log_softmax(_sharpened(self.precision, self._of_actions(log_q)))
        parts = [
            jax.nn.log_softmax(_sharpened(self.precision, found))[self.actions[:, f]]
            for f, found in enumerate(self._of_controls(log_q))
        ]
        return sum(parts[1:], parts[0])

    def given(
        self, log_q: Float[Array, " options"], action: Int[Array, " factors"]
    ) -> tuple[Array, Float[Array, " options"]]:
        """The most probable option that begins with an action, and how probable each is given the action.

        Where actions are drawn without choosing a policy, the most probable one is taken to be meant.
        """
        begins = (self.options == action).all(1)
        option = jnp.argmax(jnp.where(begins, log_q, -jnp.inf))
        if self.among != "policy" or self.precision is None:
            return option, jax.nn.one_hot(option, len(begins))
        logits = jnp.where(begins, _sharpened(self.precision, log_q), -1e30)
        return option, jnp.where(begins, jax.nn.softmax(logits), 0.0)

    def _draw(self, logits: Array, key: PRNGKeyArray) -> Array:
        if self.precision is None:
            return jnp.argmax(logits)
        return jax.random.categorical(key, _sharpened(self.precision, logits))

    def _of_actions(self, log_q: Array) -> Array:
        """ln q(u) of every joint action, summed over the options that begin with it."""
        return _summed(log_q, (self.options[None] == self.actions[:, None]).all(-1))

    def _of_controls(self, log_q: Array) -> list[Array]:
        """ln q(u_f) of every control of every factor."""
        return [
            _summed(log_q, self.options[None, :, f] == jnp.arange(count)[:, None])
            for f, count in enumerate(self.controls)
        ]


def check_positive(name: str, value: Any) -> None:
    """**Raises:** `ValueError` for what is no number greater than zero; None and traced values pass.

    **Example:** `check_positive("precision", 16.0)`.
    """
    if value is None or isinstance(value, Tracer):
        return
    if isinstance(value, str | bool) or np.ndim(value) or not np.isfinite(value) or not value > 0:
        raise ValueError(f"Agent: got {name} {value!r}; wanted a number greater than zero.")


def _sharpened(precision: Any, log_q: Array) -> Array:
    """α ln q, with derivatives of zero where q is zero."""
    there = log_q > -jnp.inf
    return jnp.where(there, precision * jnp.where(there, log_q, 0.0), -jnp.inf)


def _summed(log_q: Array, begins: Array) -> Array:
    """ln Σ q over the options of every row; −∞, with derivatives of zero, for rows without any."""
    begins = begins & (log_q > -jnp.inf)
    some = begins.any(1)
    there = jnp.where(log_q > -jnp.inf, log_q, 0.0)
    whole = jax.nn.logsumexp(jnp.where(begins | ~some[:, None], there, -jnp.inf), axis=1)
    return jnp.where(some, whole, -jnp.inf)
