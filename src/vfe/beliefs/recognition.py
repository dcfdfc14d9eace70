"""A recognition network of the right size for a model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from vfe.beliefs.continuous import AbstractGaussian
from vfe.beliefs.families import Amortised, Present, family_size
from vfe.beliefs.gaussian import DiagonalGaussian
from vfe.conditioning import Conditioned, condition, masked
from vfe.maps import MLP
from vfe.model import Model


def recognition(
    model: Model,
    *,
    key: PRNGKeyArray,
    family: Any = DiagonalGaussian,
    inputs: Sequence[str | Present] = ("x",),
    observed: Mapping[str, Any] | None = None,
    width: int = 64,
    depth: int = 2,
    activation: Callable[[Array], Array] = jnp.tanh,
    skip: bool = False,
    initial_sd: float | None = None,
) -> Amortised:
    """A recognition density q_φ(z | x) about everything that the inputs leave hidden: a multilayer
    perceptron that gives the numbers of a belief.

    **Arguments:** `family`: of the belief (see `vfe.Amortised`); `inputs`: the nodes it sees, flattened and
    joined, integers as they are, and `vfe.Present(node)` for which of their elements are there; `observed`:
    some of the data, where these hold more than the encoder sees or have gaps in nodes with children:
    what they leave hidden is what it answers for (by default what the inputs leave hidden); `width`,
    `depth`, `activation`, `skip`: of the network (`vfe.MLP`); `initial_sd`: the standard deviation, in
    unconstrained coordinates, of its first answers, which are then near the prior's mean whatever it sees
    (for Gaussian families; by default what the network happens to give, about one). Where the model is
    precise a wide first answer has a slope so steep that a wide network saturates: take a tenth.

    **Returns:** a `vfe.Amortised` for `vfe.learn(belief=...)`, which learns it together with the model.

    **Raises:** `ValueError` for nodes that the model has not, inputs that leave nothing hidden, latents
    that all observations share, and families that do not hold what is hidden.

    **Example:**
    ```python
    belief = vfe.recognition(model, width=200, key=key)
    learned = vfe.learn(model, {"x": x}, belief=belief, batch_size=100)
    vfe.perceive(learned.model, {"x": new}, belief=learned.family)      # refined from the encoder's guess
    ```

    **Source:** equation (3) of the essay; Kingma and Welling 2014; Rezende et al. 2014.
    """
    if isinstance(inputs, str):
        raise TypeError(f"recognition: got inputs={inputs!r}; wanted a tuple of nodes, ({inputs!r},).")
    if not isinstance(key, jax.Array):
        raise TypeError(f"recognition: got key={key!r}; wanted jax.random.key(0), or another one.")
    if not callable(activation):
        raise TypeError(f"recognition: got activation={activation!r}; wanted a function such as jnp.tanh.")
    if type(width) is not int or type(depth) is not int or width < 1 or depth < 0:
        raise ValueError(
            f"recognition: got width={width!r}, depth={depth!r}; wanted whole numbers, at least 1 and 0."
        )
    inputs = tuple(inputs)
    names = dict.fromkeys(n.node if isinstance(n, Present) else n for n in inputs)
    for name in names:
        model.require(name)
    shapes = {n: model.describe(n).shape for n in names}
    shown: Mapping[str, Any] = {
        n: masked(np.zeros((1, *shape)), np.zeros((1, *shape), bool))
        if any(isinstance(i, Present) and i.node == n for i in inputs) and not model.children(n)
        else np.zeros((1, *shape))
        for n, shape in shapes.items()
    }
    seen = shown if observed is None else observed
    if not set(names) <= set(seen):
        raise ValueError(
            f"recognition: the encoder sees {list(names)}, and observed= holds {list(seen)}; wanted all it "
            "sees, and what else is observed."
        )
    conditioned, _ = condition(model, seen, raw=tuple(seen))
    if not conditioned.hidden:
        raise ValueError(f"recognition: nothing is hidden where {list(seen)} are observed.")
    if conditioned.repeats is not None:
        raise ValueError(
            f"recognition: latents are shared by all observations (hidden: {list(conditioned.hidden)}), so "
            "an encoder would see all the data at once; give vfe.Amortised(...) one of that size."
        )
    size = sum(int(np.prod(shapes[n.node if isinstance(n, Present) else n])) for n in inputs)
    encoder = MLP(
        size, family_size(family, conditioned), width, depth, key=key, activation=activation, skip=skip
    )
    if initial_sd is not None:
        encoder = _settled(encoder, _first_answer(family, conditioned, initial_sd))
    return Amortised(encoder, family, inputs)


def _first_answer(family: Any, conditioned: Conditioned, sd: float) -> Array:
    if not (isinstance(family, type) and issubclass(family, AbstractGaussian)):
        raise ValueError(
            f"recognition: got initial_sd={sd} and family={getattr(family, '__name__', repr(family))}; "
            "wanted a Gaussian family (vfe.DiagonalGaussian, vfe.NodeGaussian, vfe.JointGaussian), or no "
            "initial_sd."
        )
    if not isinstance(sd, int | float) or not 0 < sd < float("inf"):
        raise ValueError(f"recognition: got initial_sd={sd!r}; wanted a positive number.")
    start, n = conditioned.start(), conditioned.layout.size
    belief = family.from_factor(conditioned.layout, start, sd * jnp.eye(n, dtype=start.dtype))
    return ravel_pytree(belief)[0]


def _settled(encoder: MLP, answer: Array) -> MLP:
    """The network with answers near this one: its last weights are a tenth."""
    last = encoder.weights[-1], encoder.biases[-1]
    return eqx.tree_at(lambda e: (e.weights[-1], e.biases[-1]), encoder, (0.1 * last[0], answer))
