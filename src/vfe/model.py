"""Model: a generative model p(x, z), as a directed acyclic graph of named conditional densities."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.conditionals import AbstractConditional, Given, Plate, table_axes
from vfe.densities import axes_missing_together, energy
from vfe.supports import REAL, Support, describe


@dataclasses.dataclass(frozen=True)
class NodeInfo:
    """What is fixed about a node when the model is built: hashable, so that jit may depend on it.

    `shape`: of one value (with a leading axis for the members of a plate); `states`: the number of
    states of a discrete node with a scalar event, else None; `together`: how many
    trailing axes of a value can only be missing as a whole (0: single elements may be).
    """

    name: str
    parents: tuple[str, ...]
    shape: tuple[int, ...]
    discrete: bool
    states: int | None
    support: Support
    given: bool
    shared: bool
    plate: Plate | None
    together: int

    @property
    def size(self) -> int:
        """How many numbers one value has."""
        size = 1
        for n in self.shape:
            size *= n
        return size


class Model(eqx.Module):
    """A generative model p(x, z) = Π_i p(node_i | parents_i): named nodes, in any order.

    E(x, z) = Σ_i −ln p(i | parents(i)), in nats. Which nodes are observed is said at each call.

    **Arguments:** one keyword per node, each made by `vfe.gaussian`, `vfe.categorical`, `vfe.given`,
    `vfe.conditional`, … A cycle, an unknown parent, or shapes that do not fit are errors here.

    **Raises:** `ValueError` that names the node, its parents and the shapes.

    **Example:**
    ```python
    model = vfe.Model(
        z=vfe.gaussian(jnp.zeros(2)),
        x=vfe.gaussian(vfe.Affine(jnp.ones((3, 2))), scale=0.5, parents="z"),
    )
    model.energies({"z": jnp.zeros(2), "x": jnp.zeros(3)})
    ```
    """

    nodes: dict[str, AbstractConditional]
    order: tuple[str, ...] = eqx.field(static=True)
    info: tuple[NodeInfo, ...] = eqx.field(static=True)

    def __init__(self, **nodes: AbstractConditional):
        if not nodes:
            raise ValueError("Model: no nodes; give at least one, as a keyword.")
        for name, node in nodes.items():
            if not isinstance(node, AbstractConditional):
                raise TypeError(
                    f"Model: node {name!r} is a {type(node).__name__}; make it with vfe.gaussian, "
                    "vfe.categorical, vfe.given, …, or vfe.conditional(function, parents=...)."
                )
        self.order = _topological(nodes)
        infos: dict[str, NodeInfo] = {}
        for name in self.order:
            infos[name] = _inspect(name, nodes[name], infos)
        plates: dict[str, int] = {}
        for info in infos.values():
            if info.plate is not None:
                size = plates.setdefault(info.plate.name, info.plate.size)
                if size != info.plate.size or info.plate.name in nodes:
                    raise ValueError(
                        f"Model: the plate {info.plate.name!r} must have one size and a name that no "
                        "node has."
                    )
        self.nodes = dict(nodes)
        self.info = tuple(infos[name] for name in self.order)

    def __getitem__(self, name: str) -> AbstractConditional:
        self.require(name)
        return self.nodes[name]

    def require(self, name: str) -> None:
        """Raise the error for an unknown node, with the names there are."""
        if name not in self.nodes:
            raise ValueError(f"no node {name!r} in this model; its nodes are {list(self.order)}.")

    def describe(self, name: str) -> NodeInfo:
        """What is known of a node without numbers: its shape, its parents, its support."""
        self.require(name)
        return self.info[self.order.index(name)]

    @property
    def plates(self) -> dict[str, int]:
        """The size of each plate."""
        return {i.plate.name: i.plate.size for i in self.info if i.plate is not None}

    def children(self, name: str) -> tuple[str, ...]:
        """The nodes that have this one among their parents, in topological order."""
        return tuple(i.name for i in self.info if name in i.parents)

    def ancestors(self, names: tuple[str, ...]) -> frozenset[str]:
        """Every node with a directed path to one of `names`, those included."""
        found = set(names)
        for info in reversed(self.info):
            if info.name in found:
                found.update(info.parents)
        return frozenset(found)

    def parent_values(self, name: str, values: Mapping[str, Array]) -> tuple[Array, ...]:
        """The values of a node's parents; a parent in a plate is looked up by the group's index."""
        info = self.describe(name)
        found = []
        for parent in info.parents:
            value = values[parent]
            plate = self.describe(parent).plate
            if plate is not None and info.plate is None:
                value = value[values[plate.name]]
            found.append(value)
        return tuple(found)

    def over_members(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Map `function(extra, *parent_values)` over the members of the plate a node lives in."""
        info = self.describe(name)
        if info.plate is None:
            return function
        axes = tuple(0 if self.describe(p).plate is not None else None for p in info.parents)

        def mapped(extra: Any, *parents: Array) -> Any:
            return jax.vmap(function, in_axes=(0, *axes))(extra, *parents)

        return mapped

    def density(self, name: str, values: Mapping[str, Array]) -> dist.Distribution:
        """The distribution of one node given its parents' values, for one observation."""
        return self.nodes[name](*self.parent_values(name, values))

    def node_energy(
        self, name: str, values: Mapping[str, Array], mask: Array | None = None
    ) -> Float[Array, ""]:
        """−ln p(node | parents) in nats, for one observation; summed over a plate's members."""
        node = self.nodes[name]
        parents = self.parent_values(name, values)
        if self.describe(name).plate is None:
            return energy(node(*parents), values[name], mask)

        def member(extra: tuple[Array, Array | None], *inner: Array) -> Array:
            return energy(node(*inner), extra[0], extra[1])

        return jnp.sum(self.over_members(name, member)((values[name], mask), *parents))

    def energies(self, values: Mapping[str, Any]) -> dict[str, Float[Array, "*batch"]]:
        """−ln p(node | parents) for every node, in nats.

        **Arguments:** `values`: a value for every node, with any common leading axes (none for
        shared nodes); index arrays for plates.

        **Returns:** one array per node that has a density, with the leading axes.

        **Raises:** `ValueError` for a missing or an unknown node, or shapes that do not fit.
        """
        arrays = {name: jnp.asarray(v) for name, v in values.items()}
        for name in arrays:
            if name not in self.plates:
                self.require(name)
        missing = [n for n in (*self.order, *self.plates) if n not in arrays]
        if missing:
            raise ValueError(f"energies: no value for {missing}; give one for every node.")
        batch = self.batch_shape(arrays)
        function = lambda local, common: {  # noqa: E731
            i.name: self.node_energy(i.name, {**common, **local})
            for i in self.info
            if not i.given and not i.shared
        }
        common = {i.name: arrays[i.name] for i in self.info if i.shared}
        local = {n: v for n, v in arrays.items() if n not in common}
        for _ in batch:
            function = jax.vmap(function, in_axes=(0, None))
        found = function(local, common)
        found |= {n: self.node_energy(n, common) for n in common}
        return {n: found[n] for n in self.order if n in found}

    def batch_shape(self, arrays: Mapping[str, Array]) -> tuple[int, ...]:
        """The leading axes that all values share; shared nodes have none.

        **Raises:** `ValueError` that names the node, its parents, and the shapes got and wanted.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for name, value in arrays.items():
            event = () if name in self.plates else self.describe(name).shape
            shape = tuple(jnp.shape(value))
            cut = len(shape) - len(event)
            if cut < 0 or shape[cut:] != event:
                parents = () if name in self.plates else self.describe(name).parents
                raise ValueError(
                    f"node {name!r} (parents: {list(parents)}): got an array of shape {shape}; "
                    f"wanted {('...', *event)}: any leading axes, then {event} for one observation."
                )
            if name not in self.plates and self.describe(name).shared:
                if cut:
                    raise ValueError(
                        f"node {name!r} is shared: got shape {shape}; wanted {event}, with no leading axes."
                    )
                continue
            shapes[name] = shape[:cut]
        if len(set(shapes.values())) > 1:
            raise ValueError(
                f"the leading axes of the nodes differ: {shapes}; give every node the same number of "
                "observations."
            )
        return next(iter(shapes.values()), ())

    def sample(
        self,
        key: PRNGKeyArray,
        *,
        given: Mapping[str, Any] | None = None,
        shape: tuple[int, ...] = (),
    ) -> dict[str, Array]:
        """Ancestral samples: each node drawn after its parents, from the top down.

        z_i ~ p(z_i | parents_i); nodes in `given` are held at their values (an intervention, not
        an observation: their ancestors are still drawn from the prior).

        **Arguments:** `key`; `given`: values of some nodes (exogenous inputs and plates' indices
        must be among them), whose leading axes the samples carry; `shape`: leading axes of
        independent samples, before those of `given`.

        **Returns:** one array per node, (*shape, *leading axes, *event); shared nodes without the
        leading axes.

        **Example:** `model.sample(jax.random.key(0), shape=(10,))["x"]`.
        """
        held = {name: jnp.asarray(v) for name, v in (given or {}).items()}
        for name in held:
            if name not in self.plates:
                self.require(name)
        needed = [i.name for i in self.info if i.given and i.name not in held]
        needed += [p for p in self.plates if p not in held]
        if needed:
            raise ValueError(f"sample: no value for the inputs {needed}; give them in given=.")
        batch = self.batch_shape(held)
        common = {n: v for n, v in held.items() if n not in self.plates and self.describe(n).shared}
        local = {n: v for n, v in held.items() if n not in common}

        def one_set(key: PRNGKeyArray) -> dict[str, Array]:
            shared_key, local_key = jax.random.split(key)
            drawn = dict(common)
            for i, info in enumerate(self.info):
                if info.shared and info.name not in drawn:
                    drawn[info.name] = self.draw(info.name, jax.random.fold_in(shared_key, i), drawn)

            def one(key: PRNGKeyArray, held_here: dict[str, Array]) -> dict[str, Array]:
                values = {**drawn, **held_here}
                for i, info in enumerate(self.info):
                    if info.name not in values:
                        values[info.name] = self.draw(info.name, jax.random.fold_in(key, i), values)
                return {n: v for n, v in values.items() if n not in drawn}

            function = one
            for _ in batch:
                function = jax.vmap(function)
            keys = jax.random.split(local_key, batch) if batch else local_key
            return {**drawn, **function(keys, local)}

        function = one_set
        for _ in shape:
            function = jax.vmap(function)
        keys = jax.random.split(key, shape) if shape else key
        found = function(keys)
        return {n: found[n] for n in self.order}

    def draw(self, name: str, key: PRNGKeyArray, values: Mapping[str, Array]) -> Array:
        """One sample of one node given its parents' values, for one observation."""
        parents = self.parent_values(name, values)
        info = self.describe(name)
        if info.plate is None:
            return jnp.asarray(self.nodes[name](*parents).sample(key))

        def member(key: PRNGKeyArray, *inner: Array) -> Array:
            return jnp.asarray(self.nodes[name](*inner).sample(key))

        return self.over_members(name, member)(jax.random.split(key, info.plate.size), *parents)

    def __repr__(self) -> str:
        lines = []
        for i in self.info:
            condition = f" | {', '.join(i.parents)}" if i.parents else ""
            kind = "given" if i.given else type(self.nodes[i.name]).__name__
            where = f", plate {i.plate.name!r}" if i.plate else (", shared" if i.shared else "")
            lines.append(f"  p({i.name}{condition}): {kind}, shape {i.shape}{where}")
        return "Model(\n" + "\n".join(lines) + "\n)"


def _topological(nodes: Mapping[str, AbstractConditional]) -> tuple[str, ...]:
    """The nodes, parents before children, otherwise as they were written; shared nodes first."""
    for name, node in nodes.items():
        for parent in node.parents:
            if parent not in nodes:
                raise ValueError(
                    f"Model: node {name!r} has the parent {parent!r}, which is not a node; the nodes "
                    f"are {list(nodes)}."
                )
            if node.shared and not nodes[parent].shared:
                raise ValueError(
                    f"Model: the shared node {name!r} has the parent {parent!r}, which is not shared; "
                    "one value for the whole data set cannot depend on one per observation."
                )
            inner, outer = nodes[parent].plate, node.plate
            if inner is not None and node.shared and (outer is None or outer.name != inner.name):
                raise ValueError(
                    f"Model: node {name!r} is shared by groups of the plate {inner.name!r} that its "
                    f"parent {parent!r} lives in; put it into the same plate."
                )
    remaining = sorted(nodes, key=lambda n: not nodes[n].shared)
    order: list[str] = []
    while remaining:
        ready = [n for n in remaining if all(p in order for p in nodes[n].parents)]
        if not ready:
            raise ValueError(
                f"Model: the nodes {remaining} form a cycle; a node cannot be its own ancestor."
            )
        order.append(ready[0])
        remaining.remove(ready[0])
    return tuple(order)


def _inspect(name: str, node: AbstractConditional, known: Mapping[str, NodeInfo]) -> NodeInfo:
    """Learn a node's shape and support from its parents' shapes, without computing a number."""
    if isinstance(node, Given):
        return NodeInfo(name, (), node.shape, node.integer, None, REAL, True, False, None, 0)
    structs = []
    for parent in node.parents:
        info = known[parent]
        shape = info.shape[1:] if info.plate is not None else info.shape
        structs.append(jax.ShapeDtypeStruct(shape, jnp.result_type(int if info.discrete else float)))
    states = [known[parent].states for parent in node.parents]
    for sizes in table_axes(node):
        if len(sizes) != len(states) or any(
            s is not None and s != n for s, n in zip(states, sizes, strict=True)
        ):
            raise ValueError(
                f"Model: node {name!r} has a table for parents with {list(sizes)} states; its parents "
                f"{list(node.parents)} have {states} (an index outside a table would read a wrong entry)."
            )
    seen: dict[str, Any] = {}

    def probe(node: AbstractConditional, *parents: Array) -> Array:
        density = node(*parents)
        if not isinstance(density, dist.Distribution):
            raise TypeError(f"it returned a {type(density).__name__}; wanted a numpyro distribution")
        seen["support"] = describe(density.support)
        seen["together"] = axes_missing_together(density)
        value = jnp.asarray(density.sample(jax.random.key(0)))
        if density.is_discrete and density.has_enumerate_support and value.ndim == 0:
            seen["states"] = density.enumerate_support(expand=False).shape[0]
        density.log_prob(value)
        return value

    dynamic, static = eqx.partition(node, eqx.is_array)
    try:
        struct = jax.eval_shape(lambda d, *p: probe(eqx.combine(d, static), *p), dynamic, *structs)
    except Exception as error:
        shapes = ", ".join(f"{p}: {s.shape}" for p, s in zip(node.parents, structs, strict=True))
        raise ValueError(
            f"Model: node {name!r} does not fit its parents ({shapes or 'none'}): {error}"
        ) from error
    shape = struct.shape if node.plate is None else (node.plate.size, *struct.shape)
    return NodeInfo(
        name,
        node.parents,
        tuple(shape),
        seen["support"].kind == "discrete",
        seen.get("states"),
        seen["support"],
        False,
        node.shared,
        node.plate,
        seen["together"],
    )
