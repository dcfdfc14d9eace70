"""The beliefs learning keeps from visit to visit, in the order of the data."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from vfe.beliefs import AbstractBelief
from vfe.conditioning import Conditioned, condition
from vfe.free_energy import FreeEnergy, align, leading_axes, same_kind
from vfe.learning.contrast import Contrast
from vfe.learning.trainable import is_amortised
from vfe.model import Model
from vfe.perception.perceive import prepare_start, start_belief

LARGEST_GROUP = 32


def count_of(conditioned: Conditioned) -> int:
    """The number of observations."""
    if conditioned.repeats is not None:
        return conditioned.repeats
    return next(iter(conditioned.observed.values())).shape[0]


def batches(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Whole batches; what is left over of an epoch joins the last batch's shape by wrapping round."""
    full = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
    rest = len(order) % size
    if rest:
        full.append(np.concatenate([order[-rest:], order[: size - rest]]))
    return full


def in_groups(found: list[np.ndarray], largest: int = LARGEST_GROUP) -> list[np.ndarray]:
    """The batches in groups of at most `largest`, each (steps, batch).

    Of equal number, so that one program serves all, where that is at least half the largest; elsewhere
    the last group is shorter, which takes a second program.
    """
    count = len(found)
    size = max(n for n in range(1, largest + 1) if count % n == 0)
    if 2 * size < min(count, largest):
        size = -(-count // -(-count // largest))
    return [np.stack(found[i : i + size]) for i in range(0, count, size)]


def first_store(
    conditioned: Conditioned,
    family: Any,
    contrast: Contrast | None,
    key: PRNGKeyArray,
    labels: Array | None,
    node: str | None = None,
) -> dict[str, Any] | None:
    """Beliefs to start from, one per observation (and per label, under contrast).

    Without contrast but with labels, `node` is held at them.
    """
    if is_amortised(family):
        if contrast is None:
            return None
        return {"last": jnp.zeros((count_of(conditioned), conditioned.discrete[contrast.node]))}
    if contrast is None:
        return _begun(_started(conditioned, family, key, labels, node), conditioned)
    belief = _started_by_state(conditioned, family, key, contrast.node)
    return {
        "belief": belief,
        "last": jnp.zeros((count_of(conditioned), conditioned.discrete[contrast.node])),
    }


@eqx.filter_jit
def _started(
    conditioned: Conditioned, family: Any, key: PRNGKeyArray, labels: Array | None, node: str | None
) -> Any:
    if labels is None:
        return conditioned.over(lambda c: start_belief(c, family, key))
    return conditioned.over(lambda c, l: start_belief(c.clamp(node, l), family, key), labels)


@eqx.filter_jit
def _started_by_state(conditioned: Conditioned, family: Any, key: PRNGKeyArray, node: str) -> Any:
    def one(c: Conditioned) -> Any:
        states = jnp.arange(conditioned.discrete[node])
        return eqx.filter_vmap(lambda k: start_belief(c.clamp(node, k), family, key))(states)

    return conditioned.over(one)


def given_store(
    belief: AbstractBelief,
    conditioned: Conditioned,
    observed: Mapping[str, Any],
    model: Model,
    contrast: Contrast | None,
) -> dict[str, Any]:
    """The beliefs that were handed in, one per observation."""
    if contrast is not None:
        raise ValueError("learn: under contrast every label has beliefs of its own; give belief= a class.")
    count = count_of(conditioned)
    _, batch = condition(model, observed)
    flat = leading_axes(align(belief, conditioned)) == (count,)
    return _begun(prepare_start(belief, conditioned, (count,) if flat else batch), conditioned)


def _begun(belief: Any, conditioned: Conditioned) -> dict[str, Any]:
    """Beliefs before the first visit; where latents are shared, visits are counted."""
    counted = {} if conditioned.repeats is None else {"visits": jnp.zeros(())}
    return {"belief": belief, **counted}


def rows_of(tree: Any, index: Array) -> Any:
    """Some rows of every array."""
    return jax.tree.map(lambda a: a[index], tree)


def put_rows(tree: Any, index: Array, new: Any) -> Any:
    """Every array with some of its rows replaced."""
    return jax.tree.map(lambda a, b: a.at[index].set(b), tree, new)


def gather(pieces: list[FreeEnergy], order: np.ndarray, conditioned: Conditioned) -> FreeEnergy:
    """F per observation in the order of the data, from the batches of one epoch.

    The terms of shared nodes are averaged over the batches.
    """
    if conditioned.repeats is not None and len(pieces) == 1:
        return pieces[0]
    _, first = np.unique(order, return_index=True)
    shared = conditioned.shared if conditioned.repeats is not None else ()
    sizes = [np.shape(next(iter(p.observed.values()))) for p in pieces]

    def over_nodes(terms: list[Any]) -> Any:
        if terms[0] is None:
            return None
        # A node with children is hidden in those minibatches only in which some of it is missing.
        names = dict.fromkeys(n for t in terms for n in t)
        return {
            n: one([t.get(n, np.zeros(s)) for t, s in zip(terms, sizes, strict=True)], n in shared)
            for n in names
        }

    def one(parts: list[np.ndarray], once: bool) -> np.ndarray:
        if once:
            return np.mean(parts, axis=0)
        array = np.concatenate([np.atleast_1d(p) for p in parts])
        return array[first] if array.shape[:1] == order.shape else array[0]

    same_kind(*pieces)
    found = jax.device_get(pieces)
    error: Any = None
    if found[0].error is not None:
        errors = [f.error for f in found]
        error = one(errors, False) if not shared else np.sqrt(np.sum(np.square(errors))) / len(errors)
    return FreeEnergy(
        over_nodes([f.observed for f in found]),
        over_nodes([f.hidden for f in found]),
        over_nodes([f.entropies for f in found]),
        error,
        conditioned.weight,
        found[0].kind,
        found[0].shared,
        found[0].order,
    )
