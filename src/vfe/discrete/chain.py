"""The same world in the core's language: as a `vfe.Chain`, and as the graph of a few steps."""

from typing import Any

import numpy as np

from vfe.chain import Chain
from vfe.conditionals import categorical, given
from vfe.discrete.pomdp import POMDP
from vfe.model import Model


def chain(model: POMDP) -> Chain:
    """The `vfe.Chain` that a `POMDP` is: its factors are states, its modalities observed nodes.

    The control of a factor with several is an input, named after it: "place.control", a whole number; its
    value at step t moves the factor *into* step t (at the first step it moves nothing).

    **Returns:** a chain whose nodes have the names of `model.labels`.

    **Example:**
    ```python
    twin = vfe.discrete.chain(model)
    twin.sample(jax.random.key(0), 4, given=vfe.discrete.chain_values(model, actions=[0, 1, 0]))
    ```
    """
    names = model.labels.factors
    inputs = {
        control_name(name): given(integer=True)
        for name, table in zip(names, model.B, strict=True)
        if table.shape[-1] > 1
    }
    initial = {name: categorical(table) for name, table in zip(names, model.D, strict=True)}
    transition = {}
    for name, table, depends in zip(names, model.B, model.B_dependencies, strict=True):
        parents = tuple(names[g] for g in depends)
        if table.shape[-1] > 1:
            transition[name] = categorical(table, parents=(*parents, control_name(name)))
        else:
            transition[name] = categorical(table[..., 0], parents=parents)
    emission = {
        name: categorical(table, parents=tuple(names[g] for g in depends))
        for name, table, depends in zip(model.labels.modalities, model.A, model.A_dependencies, strict=True)
    }
    return Chain(initial, transition, emission, inputs=inputs)


def control_name(factor: str) -> str:
    """The name of the input that holds a factor's control. **Example:** `control_name("place")`."""
    return f"{factor}.control"


def chain_values(model: POMDP, y: Any = None, actions: Any = None) -> dict[str, np.ndarray]:
    """Outcomes (time, modalities) and actions (time − 1, factors) as values of `chain`'s nodes.

    **Example:** `vfe.discrete.chain_values(model, [0, 1], actions=[1])`.
    """
    values = {}
    if y is not None:
        outcomes = np.asarray(y, float).reshape(-1, len(model.A))
        whole = not np.isnan(outcomes).any()
        for m, name in enumerate(model.labels.modalities):
            values[name] = outcomes[:, m].astype(int) if whole else outcomes[:, m]
    if actions is not None:
        controls = np.asarray(actions, int).reshape(-1, len(model.B))
        for f, name in enumerate(model.labels.factors):
            if model.controls[f] > 1:
                values[control_name(name)] = np.concatenate([[0], controls[:, f]])
    return values


def unrolled(model: POMDP, steps: int) -> Model:
    """The `vfe.Model` of a few steps: nodes "s0_0", "o0_0", "s0_1", …, for everything that takes a graph.

    **Raises:** `ValueError` for more than 256 steps.

    **Example:** `vfe.exact.log_evidence(vfe.discrete.unrolled(model, 4), data)`.
    """
    return chain(model).unroll(steps)
