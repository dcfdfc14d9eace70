"""Choices of somebody who learns: parameters of a learner as hidden nodes, what was chosen below them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.conditionals import bernoulli, gaussian, given
from vfe.dynamics.volatility.volatility import EDGE, BinaryInput, HierarchicalGaussianFilter
from vfe.model import Model


class ChoiceLogits(eqx.Module):
    """ζ ln(p̂_t / (1 − p̂_t)) for every trial: how strongly a learner leans to option 1."""

    learner: HierarchicalGaussianFilter = eqx.field(static=False)
    trials: int = eqx.field(static=True)

    def __call__(
        self, inputs: Float[Array, " trials"], volatility: Float[Array, " n"], log_temperature: Array
    ) -> Float[Array, " trials"]:
        learner = eqx.tree_at(lambda found: found.tonic_volatility, self.learner, volatility)
        learner = jax.tree.map(lambda a: jnp.asarray(a, volatility.dtype), learner)
        found = learner.run(inputs, jnp.ones(self.trials, volatility.dtype))
        p = jnp.clip(found["predicted_input"], EDGE, 1 - EDGE)
        logits = jnp.exp(log_temperature) * (jnp.log(p) - jnp.log1p(-p))
        # No energy where `vfe.filter` would refuse: inputs of another kind, and beliefs that broke down.
        sound = jnp.all((inputs == 0) | (inputs == 1)) & jnp.all(found["precision"] > 0)
        return jnp.where(sound, logits, jnp.nan)


def choice_model(
    learner: HierarchicalGaussianFilter,
    trials: int,
    *,
    tonic_volatility_sd: Any = 1.0,
    log_inverse_temperature: tuple[float, float] = (0.0, 1.0),
) -> Model:
    """Choices between two options by a hierarchical Gaussian filter, as a model of the chooser.

    p(choice_t = 1) = p̂_t^ζ / (p̂_t^ζ + (1 − p̂_t)^ζ), p̂_t what the learner expects of input t before it
    comes. Nodes: `inputs` (given, (trials,): 1 where option 1 was the right one), `tonic_volatility` ω
    ~ N(that of `learner`, sd²) (n,), `log_inverse_temperature` ln ζ, and `choice` (trials,), NaN where
    none was made. To fit subjects is to perceive them: `vfe.perceive(model, data, belief=vfe.Laplace)`
    gives every subject's parameters with their uncertainty, and −F, which compares learners.

    **Arguments:** `learner`: with a `BinaryInput`; what is not fitted keeps its values;
    `tonic_volatility_sd`: a number, or one for every state; `log_inverse_temperature`: prior mean and sd.

    The choices have no energy (NaN, which `vfe.perceive` reports) where an input is neither 0 nor 1, and
    where the learner's beliefs break down, as those of `StandardUpdate` may.

    **Raises:** `ValueError` for a learner of continuous inputs, or scales that are not positive.

    **Example:**
    ```python
    learner = vfe.dynamics.HierarchicalGaussianFilter(
        input=vfe.dynamics.BinaryInput(), tonic_volatility=[-2.0, -4.0]
    )
    model = vfe.dynamics.choice_model(learner, trials=100)
    fit = vfe.perceive(model, {"inputs": inputs, "choice": choice}, belief=vfe.Laplace)
    ```

    **Source:** Mathys et al. 2011 (unit-square sigmoid).
    """
    if not isinstance(learner.input, BinaryInput):
        raise ValueError(
            f"choice_model: the learner's input is a {type(learner.input).__name__}; wanted BinaryInput()."
        )
    if trials < 1:
        raise ValueError(f"choice_model: got trials={trials}; wanted at least one.")
    sd = np.broadcast_to(np.asarray(tonic_volatility_sd, float), (learner.states,))
    mean, spread = log_inverse_temperature
    if not ((sd > 0).all() and spread > 0):
        raise ValueError(
            f"choice_model: got scales {sd} of tonic_volatility and {spread} of log_inverse_temperature; "
            "wanted positive numbers. A parameter that is known: a small scale."
        )
    return Model(
        inputs=given(trials),
        tonic_volatility=gaussian(np.asarray(learner.tonic_volatility), scale=sd),
        log_inverse_temperature=gaussian(float(mean), scale=float(spread)),
        choice=bernoulli(
            ChoiceLogits(learner, trials), parents=("inputs", "tonic_volatility", "log_inverse_temperature")
        ),
    )
