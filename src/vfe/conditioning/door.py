"""The door of the library: data are checked, NaN becomes a mask, nodes are sorted into seen and hidden."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vfe.conditioning.posterior import Conditioned
from vfe.model import Model, NodeInfo


class Masked(eqx.Module):
    """Values some of which are missing; made by [`masked`][vfe.masked]."""

    values: Any
    present: Any


def masked(values: Any, present: Any) -> Masked:
    """Values with a mask that is True where they are present: missing data for integer nodes.

    **Raises:** `ValueError` where the shapes differ.

    **Example:** `vfe.perceive(model, {"x": x, "label": vfe.masked(labels, known)})`.
    """
    if jnp.shape(values) != jnp.shape(present):
        raise ValueError(
            f"masked: values of shape {jnp.shape(values)} and a mask of shape {jnp.shape(present)}; "
            "give one boolean per value."
        )
    return Masked(values, present)


def condition(
    model: Model, observed: Mapping[str, Any], *, weight: float | Array = 1.0, raw: Collection[str] = ()
) -> tuple[Conditioned, tuple[int, ...]]:
    """Check the data, sort the nodes, and return the posterior of a batch and its leading axes.

    The arrays of the result have one leading axis over observations (the leading axes of the data,
    flattened), to be used through `Conditioned.over`. `raw`: nodes whose values will become data only
    (grey values that binary pixels are drawn from): integers or not, in the support or not.

    **Raises:** `ValueError` for unknown nodes, missing inputs, wrong shapes, types or values, empty
    data, infinities, and nodes that cannot be hidden; each names the node.
    """
    found, batch = examine(model, observed, weight=weight, raw=raw)
    observed, masks, common = jax.tree.map(jnp.asarray, (found.observed, found.masks, found.common))
    return dataclasses.replace(found, observed=observed, masks=masks, common=common), batch


def examine(
    model: Model,
    observed: Mapping[str, Any],
    *,
    weight: float | Array = 1.0,
    incomplete: Collection[str] = (),
    raw: Collection[str] = (),
) -> tuple[Conditioned, tuple[int, ...]]:
    """`condition`, with NumPy arrays left on the host: checked there, for a caller to place.

    **Arguments:** `incomplete`: nodes that get a mask even where every value is present; `raw`: as of
    `condition`.
    """
    if not isinstance(model, Model):
        raise TypeError(f"got a {type(model).__name__} for the model; wanted a vfe.Model.")
    if not isinstance(observed, Mapping):
        raise TypeError(f'observed is a {type(observed).__name__}; wanted a dictionary such as {{"x": x}}.')
    arrays: dict[str, Any] = {}
    masks: dict[str, Any] = {}
    for name, given in observed.items():
        if name in model.plates:
            arrays[name] = _index(name, given, model.plates[name])
            continue
        info = model.describe(name)
        arrays[name], mask = _admit(info, given, name in raw)
        if mask is None and name in incomplete:
            mask = np.ones(jnp.shape(arrays[name]), bool)
        if mask is not None:
            masks[name] = mask
    inputs = [i.name for i in model.info if i.given and i.name not in arrays]
    inputs += [p for p in model.plates if p not in arrays and _uses(model, p, arrays)]
    if inputs:
        raise ValueError(f"no values for the inputs {inputs}; a given node must always be observed.")
    batch = model.batch_shape(arrays)
    count = int(np.prod(batch, dtype=int))
    if count == 0:
        raise ValueError(f"no observations: the leading axes are {batch}.")
    seen = tuple(n for n in arrays if n not in model.plates)
    relevant = model.ancestors(tuple(n for n in seen if not model.describe(n).given))
    partial = tuple(n for n in model.order if n in masks and _has_relevant_child(model, n, relevant))
    hidden = tuple(
        i.name
        for i in model.info
        if i.name in relevant and not i.given and (i.name not in arrays or i.name in partial)
    )
    pruned = tuple(n for n in model.order if n not in arrays and n not in relevant)
    for name in hidden:
        _can_be_hidden(model.describe(name), name in partial)
    common = {n: a for n, a in arrays.items() if n not in model.plates and model.describe(n).shared}
    if any(n in masks for n in common):
        raise ValueError(f"the shared nodes {[n for n in common if n in masks]} have missing values.")
    flat = {n: a.reshape(count, *a.shape[len(batch) :]) for n, a in arrays.items() if n not in common}
    flat_masks = {n: m.reshape(count, *m.shape[len(batch) :]) for n, m in masks.items()}
    repeats = count if any(model.describe(n).shared for n in hidden) else None
    conditioned = Conditioned(
        model,
        flat,
        flat_masks,
        common,
        jnp.asarray(weight, float),
        hidden,
        partial,
        (),
        pruned,
        repeats,
    )
    return conditioned, batch


def _uses(model: Model, plate: str, arrays: Mapping[str, Array]) -> bool:
    """Whether a node outside the plate looks a group's value up."""
    inside = {i.name for i in model.info if i.plate is not None and i.plate.name == plate}
    return any(i.plate is None and inside & set(i.parents) for i in model.info)


def _has_relevant_child(model: Model, name: str, relevant: frozenset[str]) -> bool:
    return any(c in relevant for c in model.children(name))


def _can_be_hidden(info: NodeInfo, partial: bool) -> None:
    if info.discrete and info.states is None:
        raise ValueError(
            f"node {info.name!r} is discrete with shape {info.shape} and hidden; the library sums "
            "over scalar nodes with finitely many states. Make it one scalar node per element, or "
            "observe it."
        )
    if info.support.kind == "other":
        raise ValueError(
            f"node {info.name!r} is hidden and its support ({info.support.name}) has no unconstrained "
            "coordinates here, or depends on its parents; write it as a function of a node with a "
            "fixed support."
        )
    if partial and not (info.support.is_real or info.discrete):
        raise ValueError(
            f"node {info.name!r} has children and missing elements, and its support "
            f"({info.support.name}) is constrained; observe it in full or not at all."
        )
    if partial and info.shared:
        raise ValueError(f"node {info.name!r} is shared and has missing elements.")


def _numbers(array: Any) -> np.ndarray | None:
    return None if isinstance(array, Tracer) else np.asarray(array)


def _index(name: str, raw: Any, size: int) -> Any:
    array = raw if isinstance(raw, jax.Array) else np.asarray(raw)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"plate {name!r}: got type {array.dtype}; wanted integers 0 … {size - 1}.")
    numbers = _numbers(array)
    if numbers is not None and numbers.size and (numbers.min() < 0 or numbers.max() >= size):
        raise ValueError(
            f"plate {name!r}: indices from {numbers.min()} to {numbers.max()}; wanted 0 … {size - 1}."
        )
    return array


def _admit(info: NodeInfo, given: Any, raw: bool) -> tuple[Any, Any]:
    """A clean array and a mask (None where everything is present), or an error with the node's name.

    What JAX holds stays there; everything else is checked as a NumPy array, without a visit to a device.
    """
    mask = None
    where = f"node {info.name!r} (parents: {list(info.parents)})"
    if isinstance(given, Masked):
        mask = given.present if isinstance(given.present, jax.Array) else np.asarray(given.present, bool)
        given = given.values
    try:
        array = given if isinstance(given, jax.Array) else np.asarray(given)
        if array.dtype != bool and not any(
            jnp.issubdtype(array.dtype, kind) for kind in (jnp.integer, jnp.floating)
        ):
            raise TypeError(f"type {array.dtype}")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: got data of {error}; wanted an array of numbers.") from None
    xp: Any = jnp if isinstance(array, jax.Array) or isinstance(mask, jax.Array) else np
    numbers = _numbers(array)
    if numbers is not None and jnp.issubdtype(numbers.dtype, jnp.floating):
        missing = np.isnan(numbers)
        hidden_inf = np.isinf(numbers) if mask is None else np.isinf(numbers) & np.asarray(mask)
        if hidden_inf.any():
            raise ValueError(
                f"{where}: {int(hidden_inf.sum())} elements are infinite; remove them, or write NaN "
                "where a value is missing."
            )
        if missing.any():
            mask = ~missing if mask is None else np.asarray(mask) & ~missing
    if mask is not None and _numbers(mask) is not None and np.asarray(mask).all():
        mask = None
    if mask is not None:
        array = xp.where(mask, array, xp.zeros((), array.dtype))
        if info.given:
            raise ValueError(f"{where}: a given node has missing values; inputs must be known.")
    if raw:
        whole = array.dtype == bool or jnp.issubdtype(array.dtype, jnp.integer)
        return array.astype(int if whole and info.discrete else jnp.result_type(float)), mask
    numbers = _numbers(array)
    present = None if numbers is None else (numbers if mask is None else numbers[np.asarray(mask)])
    if info.discrete:
        if array.dtype == bool:
            array = array.astype(int)
        elif jnp.issubdtype(array.dtype, jnp.floating):
            if present is None or not (present == np.round(present)).all():
                raise ValueError(
                    f"{where}: it is discrete and got fractional values; wanted integers (grey values "
                    "want a Gaussian node)."
                )
            array = array.astype(int)
        if present is not None and present.size:
            low, high = present.min(), present.max()
            name = info.support.name.lower()
            limit = info.states - 1 if info.states is not None else (1 if "bool" in name else None)
            if (not info.given and low < 0) or (limit is not None and high > limit):
                raise ValueError(
                    f"{where}: got values from {low} to {high}; wanted 0 … "
                    f"{'' if limit is None else limit}."
                )
    else:
        precision = jnp.result_type(float)
        with np.errstate(over="ignore"):
            array = array.astype(precision)
        numbers = _numbers(array)
        if numbers is not None and np.isinf(numbers).any():
            raise ValueError(
                f"{where}: values beyond {jnp.finfo(precision).max:.3g} are infinite in {precision}; "
                "rescale the data, or set jax_enable_x64."
            )
        present = None if numbers is None else (numbers if mask is None else numbers[np.asarray(mask)])
        if present is not None and present.size:
            low, high = info.support.lower, info.support.upper
            bad = (info.support.kind == "positive" and (present <= low).any()) or (
                info.support.kind == "interval" and ((present < low) | (present > high)).any()
            )
            if bad:
                raise ValueError(
                    f"{where}: values from {present.min()} to {present.max()} leave its support "
                    f"({info.support.name})."
                )
    if mask is not None and info.together:
        axes = tuple(range(-info.together, 0))
        whole = mask.all(axes) == mask.any(axes)
        if _numbers(whole) is not None and not np.asarray(whole).all():
            raise ValueError(
                f"{where}: single elements are missing, but its density is of whole vectors; make "
                f"every value of shape {info.shape[-info.together :]} complete or wholly missing."
            )
    return array, mask
