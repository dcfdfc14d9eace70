"""Data that are made afresh at every visit: checked before the first one."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from vfe.conditioning import Conditioned, masked
from vfe.conditioning.door import examine

LOOKED_AT = 64


def check_augmented(conditioned: Conditioned, augment: Callable[..., Any]) -> tuple[str, ...]:
    """Look at what `augment` makes of the first observations; the nodes that it makes.

    **Raises:** `ValueError` where that is no data for the model.
    """
    if conditioned.repeats is not None:
        return ()
    first, made = _looked_at(conditioned, augment)
    unknown = [n for n in made if n not in first]
    if unknown:
        raise ValueError(
            f"learn: augment returned {unknown}, which were not among the observed nodes {list(first)}."
        )
    arrays = {**first, **made}
    values = {
        n: masked(np.asarray(a), np.asarray(conditioned.masks[n][:LOOKED_AT]))
        if n in conditioned.masks
        else np.asarray(a)
        for n, a in arrays.items()
    }
    for name in made:
        if made[name].shape != first[name].shape:
            raise ValueError(
                f"learn: augment changed the shape of {name!r} to {made[name].shape[1:]}; wanted that of "
                "one observation."
            )
    others = [n for n in values if n not in made]
    try:
        examine(conditioned.model, {**values, **conditioned.common}, raw=others)
    except ValueError as error:
        error.add_note("(learn: of what augment returns)")
        raise
    return tuple(made)


def hidden_by(conditioned: Conditioned, augment: Callable[..., Any] | None) -> tuple[str, ...]:
    """The nodes of which `augment` leaves elements out, as NaN, in the first observations.

    Discrete nodes count as well wherever it returns numbers that could be NaN, as no integer can show later
    that it was one.

    **Raises:** `ValueError` where they have children: what is missing there would be hidden.
    """
    if augment is None or conditioned.repeats is not None:
        return ()
    made = _looked_at(conditioned, augment)[1]
    model = conditioned.model
    floating = [n for n, a in made.items() if np.issubdtype(np.asarray(a).dtype, np.floating)]
    discrete = {n for n in floating if n not in model.plates and model.describe(n).discrete}
    hides = tuple(n for n in floating if n in discrete or np.isnan(np.asarray(made[n])).any())
    for name in hides:
        if not model.children(name):
            continue
        if name in discrete:
            raise ValueError(
                f"learn: augment returned type {made[name].dtype} for {name!r}, which is discrete and has "
                "children; wanted integers, .astype(int)."
            )
        raise ValueError(
            f"learn: augment leaves out elements of {name!r} (NaN), which has children: they would be "
            "hidden in one visit and not in another; wanted NaN in nodes without children only."
        )
    return hides


def _looked_at(
    conditioned: Conditioned, augment: Callable[..., Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first observations as they are, and as `augment` returns them."""
    first = dict(jax.tree.map(lambda a: a[:LOOKED_AT], conditioned.observed))
    count = next(iter(first.values())).shape[0]
    made = jax.vmap(augment)(jax.random.split(jax.random.key(0), count), dict(first))
    if not isinstance(made, Mapping):
        raise TypeError(
            f"learn: augment returned {type(made).__name__}; wanted a dictionary of arrays, such as "
            '{"x": x}.'
        )
    return first, dict(made)
