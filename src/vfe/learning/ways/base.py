"""What every way of taking F's gradient answers, for one observation and for a minibatch."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from vfe.conditioning import Conditioned
from vfe.free_energy import FreeEnergy
from vfe.learning.plan import Plan, Strengths
from vfe.learning.store import count_of, rows_of
from vfe.model import Model


class AbstractMeasure(abc.ABC):
    """How F of one observation depends on the parameters."""

    @abc.abstractmethod
    def hold(self, c: Conditioned, belief: Any) -> Any:
        """What stays as it is of the belief found while the parameters move."""

    @abc.abstractmethod
    def descended(
        self, plan: Plan, c: Conditioned, family: Any, held: Any, key: PRNGKeyArray
    ) -> FreeEnergy:
        """F as the parameters see it: its derivative is the gradient that learning takes."""

    @abc.abstractmethod
    def at_rest(self, plan: Plan, c: Conditioned, held: Any, key: PRNGKeyArray) -> FreeEnergy:
        """F of what is held, where no derivative is wanted."""


@dataclasses.dataclass(frozen=True)
class Minibatch:
    """A minibatch before its step.

    `data`: its arrays, with the model and `family` as they are; `index`: which observations of the whole
    these are, and `store` what is kept of them all; `labels`: their labels under a contrast;
    `strengths`: those of this epoch. Each of the keys has one purpose.
    """

    plan: Plan
    data: Conditioned
    family: Any
    index: Array
    labels: Array | None
    strengths: Strengths
    store: Any
    perceive_key: PRNGKeyArray
    renew_key: PRNGKeyArray
    choose_key: PRNGKeyArray

    @property
    def size(self) -> int:
        """The number of observations."""
        return count_of(self.data)

    def each(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """A key for every observation."""
        return jax.random.split(key, self.size)


@dataclasses.dataclass(frozen=True)
class Visit:
    """What perception of a minibatch found.

    `held`: what stays while the parameters move; `answered`: which observations got an answer; `store`:
    what is kept from now on; `labels`: those compared; `stand_ins`: of every observation, the one that
    reaches the gradient in its place. One without an answer must not, not even times zero, so another
    stands in for it, with no weight.
    """

    held: Any
    answered: Bool[Array, " batch"]
    store: Any
    labels: Array | None = None
    stand_ins: Array | None = None

    def put(self, tree: Any) -> Any:
        """The rows that reach the gradient."""
        return tree if self.stand_ins is None else rows_of(tree, self.stand_ins)


class AbstractWay(abc.ABC):
    """How a minibatch is perceived and which number is descended on it."""

    @abc.abstractmethod
    def visit(self, batch: Minibatch) -> Visit:
        """Perceive the minibatch, without a derivative."""

    @abc.abstractmethod
    def loss(
        self, batch: Minibatch, visit: Visit, model: Model, family: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[FreeEnergy, Any]]:
        """What is descended, as a function of model and family; beside it F and what `stored` wants."""

    @abc.abstractmethod
    def completed(self, batch: Minibatch, visit: Visit, found: FreeEnergy, key: PRNGKeyArray) -> FreeEnergy:
        """F of every observation: where perception failed, that of the belief it had before."""

    @abc.abstractmethod
    def stored(self, batch: Minibatch, visit: Visit, more: Any) -> Any:
        """What is kept of all observations after the step."""

    def metric(
        self,
        batch: Minibatch,
        visit: Visit,
        learned: Any,
        model_of: Callable[[Any], Model],
        key: PRNGKeyArray,
    ) -> Callable[[Any], Any]:
        """The Fisher information of the model's conditionals at the beliefs found, as a linear function
        of parameters like `learned`.

        **Raises:** `ValueError` where it is not defined.
        """
        raise ValueError(
            "natural_descent: the metric is that of a model at beliefs held fixed; it is not defined for "
            "encoders, a contrast or nudging. Use another optimiser."
        )


def live(batch: Minibatch, visit: Visit, model: Model) -> Conditioned:
    """The observations that reach the gradient, under this model."""
    data = batch.data
    return dataclasses.replace(
        data, model=model, observed=visit.put(data.observed), masks=visit.put(data.masks)
    )


def in_place(answered: Bool[Array, " batch"]) -> Array:
    """Which observation stands in for each."""
    return jnp.where(answered, jnp.arange(answered.shape[0]), jnp.argmax(answered))


def mean(values: Array, answered: Array) -> Array:
    """The mean over the observations that have an answer."""
    return jnp.sum(jnp.where(answered, values, 0.0)) / jnp.maximum(jnp.sum(answered), 1)


def filled_in(answered: Array, found: FreeEnergy, again: Any) -> FreeEnergy:
    """F where there was an answer, and `again()` where there was none."""

    def like(array: Array) -> Array:
        return answered.reshape(*answered.shape, *[1] * (array.ndim - answered.ndim))

    def both() -> FreeEnergy:
        return jax.tree.map(lambda a, b: jnp.where(like(a), a, b), found, again())

    return jax.lax.cond(jnp.all(answered), lambda: found, both)
