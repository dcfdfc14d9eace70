"""A model together with what was observed: −ln p(x, z) as a function of what is hidden.

This is the door of the library. Everything that perceives, learns or compares first turns a model and
a dictionary of observations into a `Conditioned`: data are checked, NaN becomes a mask, nodes are
sorted into observed and hidden, and hidden values get unconstrained coordinates.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array, Float

from vfe.model import Model, NodeInfo
from vfe.supports import Support


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


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where one hidden continuous node lies in the vector of unconstrained coordinates.

    `shape` is that of its value and `coordinates` that of its coordinates; both have a leading axis
    over observations where `repeated`.
    """

    name: str
    shape: tuple[int, ...]
    coordinates: tuple[int, ...]
    support: Support
    start: int
    stop: int
    repeated: bool = False

    @property
    def where(self) -> slice:
        return slice(self.start, self.stop)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The order of hidden continuous nodes in one vector u, parents before children."""

    slots: tuple[Slot, ...]

    @staticmethod
    def of(entries: list[tuple[str, tuple[int, ...], Support, bool]]) -> "Layout":
        """Lay out (name, shape of the value, support, repeated) one after the other."""
        slots, start = [], 0
        for name, shape, support, repeated in entries:
            coordinates = support.unconstrained_shape(shape)
            stop = start + int(np.prod(coordinates, dtype=int))
            slots.append(Slot(name, shape, coordinates, support, start, stop, repeated))
            start = stop
        return Layout(tuple(slots))

    @property
    def size(self) -> int:
        return self.slots[-1].stop if self.slots else 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(s.name for s in self.slots)

    def slot(self, name: str) -> Slot:
        for s in self.slots:
            if s.name == name:
                return s
        raise ValueError(f"no hidden continuous node {name!r}; there are {list(self.names)}.")

    def unpack(self, u: Float[Array, "*batch n"]) -> dict[str, Array]:
        """The coordinates of each node, in its own shape, behind any leading axes."""
        return {s.name: u[..., s.where].reshape(*u.shape[:-1], *s.coordinates) for s in self.slots}

    def decode(self, u: Float[Array, "*batch n"]) -> dict[str, Array]:
        """The value of each node."""
        parts = self.unpack(u)
        return {s.name: s.support.decode(parts[s.name]) for s in self.slots}

    def encode(self, values: Mapping[str, Array]) -> Float[Array, "*batch n"]:
        """The coordinates of the values of all nodes, as one vector behind any leading axes."""
        parts = []
        for s in self.slots:
            value = jnp.asarray(values[s.name], dtype=float)
            lead = value.shape[: value.ndim - len(s.shape)]
            parts.append(s.support.encode(value).reshape(*lead, s.stop - s.start))
        return jnp.concatenate(parts, -1) if parts else jnp.zeros(0)


class Energies(eqx.Module):
    """−ln p by node: what is observed of each node, and what is hidden of it, in nats."""

    observed: dict[str, Array]
    hidden: dict[str, Array]

    def total(self, weight: Array | float = 1.0, shared: tuple[str, ...] = ()) -> Float[Array, ""]:
        """E, with the terms of single observations multiplied by `weight`."""
        result = jnp.zeros(())
        for part in (self.observed, self.hidden):
            for name, value in part.items():
                result = result + jnp.sum(value) * (1.0 if name in shared else weight)
        return result


class Conditioned(eqx.Module):
    """The unnormalised posterior of one observation (or of a data set that shares latents).

    `observed`, `masks`: values and which of their elements are present; `common`: observed shared
    nodes; `weight`: what the terms of single observations are multiplied by (N/B in a minibatch).
    `hidden`: nodes with a belief, in topological order; `partial`: those among them of which some
    elements are observed; `clamped`: hidden nodes held at a value; `pruned`: nodes without observed
    descendants; `repeats`: the number of observations inside, where latents are shared.
    """

    model: Model
    observed: dict[str, Array]
    masks: dict[str, Array]
    common: dict[str, Array]
    weight: Array
    hidden: tuple[str, ...] = eqx.field(static=True)
    partial: tuple[str, ...] = eqx.field(static=True)
    clamped: tuple[str, ...] = eqx.field(static=True)
    pruned: tuple[str, ...] = eqx.field(static=True)
    repeats: int | None = eqx.field(static=True)

    @property
    def layout(self) -> Layout:
        """The coordinates of the hidden continuous nodes."""
        entries = []
        for name in self.hidden:
            info = self.model.describe(name)
            if not info.discrete:
                repeated = self.repeats is not None and not info.shared
                lead = (self.repeats,) if repeated else ()
                entries.append((name, (*lead, *info.shape), info.support, repeated))
        return Layout.of(entries)

    @property
    def discrete(self) -> dict[str, int]:
        """The number of states of each hidden discrete node, in topological order."""
        infos = {n: self.model.describe(n) for n in self.hidden}
        return {n: i.states for n, i in infos.items() if i.discrete and i.states is not None}

    @property
    def shared(self) -> tuple[str, ...]:
        """Nodes whose terms enter once for the whole data set."""
        return tuple(i.name for i in self.model.info if i.shared)

    def family(self, name: str) -> tuple[str, ...]:
        """The hidden discrete nodes on which −ln p(node | parents) depends, in topological order."""
        wanted = {name, *self.model.describe(name).parents}
        return tuple(n for n in self.discrete if n in wanted)

    def clamp(self, name: str, state: Array) -> "Conditioned":
        """The same with one hidden discrete node held at a state (its energy still counts as hidden)."""
        observed = {**self.observed, f"{name}: clamped": state}
        return dataclasses.replace(
            self,
            observed=observed,
            hidden=tuple(n for n in self.hidden if n != name),
            clamped=(*self.clamped, name),
        )

    def energies(
        self,
        u: Float[Array, " n"],
        weigh: Callable[[tuple[str, ...]], Array] | None = None,
        probabilities: Mapping[str, Array] | None = None,
    ) -> Energies:
        """E by node at the coordinates u, averaged over the hidden discrete nodes.

        ⟨E_i⟩ = Σ_k q(k) E_i(u, k), k running over the states of the discrete nodes in the family of
        node i only. The log-Jacobian of constrained coordinates is part of the energy.

        **Arguments:** `u`: unconstrained coordinates, (n,); `probabilities`: q(k) per discrete node,
        (K,), or (repeats, K); `weigh`: instead of them, a function from a tuple of discrete names to
        their joint probabilities.
        """

        def reduce(names: tuple[str, ...], table: Array, q: Mapping[str, Array]) -> Array:
            return average(weigh(names) if weigh is not None else outer(q, names), table)

        return self._at(u, reduce, dict(probabilities or {}), self._parts)

    def residuals(self, u: Float[Array, " n"]) -> Float[Array, " m"]:
        """The observed nodes' whitened residuals (logits, for discrete nodes) at u, in one vector.

        Its Jacobian J gives the Gauss–Newton curvature Jᵀ J of the observed nodes' energy. No hidden
        discrete nodes may be left (clamp them first).
        """

        def measure(i: NodeInfo, values: Any, masks: Any, originals: Any, dummies: Any) -> Any:
            zero = jnp.zeros(0)
            if i.name in self.hidden or i.name in self.clamped or i.plate is not None:
                return zero, zero
            density = self.model.density(i.name, values)
            return whitened(density, values[i.name], masks.get(i.name)).reshape(-1), zero

        found = self._at(u, lambda names, table, q: table, {}, measure, jacobians=False)
        parts = [found.observed[n].reshape(-1) for n in self.model.order if n in found.observed]
        return jnp.concatenate([*parts, jnp.zeros(0)])

    def errors(self, u: Float[Array, " n"]) -> dict[str, Array]:
        """The standardised prediction errors e = s⁻¹ (z − g(parents)) of hidden Gaussian nodes at u."""

        def measure(i: NodeInfo, values: Any, masks: Any, originals: Any, dummies: Any) -> Any:
            zero = jnp.zeros(0)
            if i.name not in self.layout.names:
                return zero, zero
            parents = self.model.parent_values(i.name, values)
            node = self.model.nodes[i.name]
            if i.plate is None:
                error = standardised(node(*parents), values[i.name])
            else:
                error = self.model.over_members(i.name, lambda v, *p: standardised(node(*p), v))(
                    values[i.name], *parents
                )
            if i.name in dummies:
                error = jnp.where(masks[i.name], dummies[i.name], error)
            return zero, error

        found = self._at(u, lambda names, table, q: table, {}, measure, jacobians=False)
        return {n: found.hidden[n] for n in self.layout.names}

    def tables(self) -> dict[str, tuple[tuple[str, ...], Array]]:
        """E_i(k) for every state of the discrete family of each node; all hidden nodes discrete."""

        def keep(names: tuple[str, ...], table: Array, q: Mapping[str, Array]) -> Array:
            return table

        found = self._at(jnp.zeros(0), keep, {}, self._parts)
        tables = dict(found.observed)
        for n, hidden in found.hidden.items():
            tables[n] = tables[n] + hidden if n in tables else hidden
        return {n: (self.family(n), table) for n, table in tables.items()}

    def _at(
        self,
        u: Array,
        reduce: Any,
        probabilities: dict[str, Array],
        measure: Any,
        jacobians: bool = True,
    ) -> Energies:
        """Visit every node at u: `measure` gives its two numbers, `reduce` deals with its family."""
        layout = self.layout
        parts = layout.unpack(u)
        common = dict(self.common)
        jacobian: dict[str, Array] = {}
        local: dict[str, Array] = {}
        for s in layout.slots:
            value = s.support.decode(parts[s.name])
            if s.repeated:
                local[s.name] = value
                jacobian[s.name] = jax.vmap(s.support.log_jacobian)(parts[s.name])
            else:
                common[s.name] = value
                jacobian[s.name] = s.support.log_jacobian(parts[s.name])
        common_q = {n: p for n, p in probabilities.items() if self.model.describe(n).shared}
        local_q = {n: p for n, p in probabilities.items() if n not in common_q}

        def one(observed: Any, masks: Any, hidden: Any, q: Any) -> Energies:
            infos = [i for i in self.model.info if not i.shared]
            values = {**self.states(observed), **common, **hidden}
            originals = {n: observed[n] for n in self.partial}
            return self._nodes(infos, values, masks, reduce, {**common_q, **q}, originals, measure)

        if self.repeats is None:
            # Local nodes are in `common` here: without repeats no slot is repeated.
            found = one(self.observed, self.masks, {}, local_q)
        else:
            found = jax.vmap(one)(self.observed, self.masks, local, local_q)
        above = [i for i in self.model.info if i.shared]
        shared = self._nodes(above, common, {}, reduce, common_q, {}, measure)
        hidden = {**found.hidden, **shared.hidden}
        if jacobians:
            hidden = {n: e - jacobian[n] if n in jacobian else e for n, e in hidden.items()}
        return Energies({**found.observed, **shared.observed}, hidden)

    def energy(self, u: Float[Array, " n"], **options: Any) -> Float[Array, ""]:
        """E(u) in nats: the sum of `energies`, weighted."""
        return self.energies(u, **options).total(self.weight, self.shared)

    def start(self) -> Float[Array, " n"]:
        """Where perception starts: every hidden node at the mean of its prior, from the top down."""
        return self.push({})

    def push(self, errors: Mapping[str, Array]) -> Float[Array, " n"]:
        """The coordinates that standardised prediction errors stand for: z = g(parents) + s ∘ e.

        Nodes that are not in `errors` are put at the mean of their prior (real supports), or at the
        centre of their coordinates.
        """
        layout = self.layout
        shared = [i for i in self.model.info if i.shared]
        local = [i for i in self.model.info if not i.shared]
        common = self._push_nodes(shared, dict(self.common), errors, {})
        if self.repeats is None:
            values = self._push_nodes(local, {**common, **self.states(self.observed)}, errors, self.masks)
        else:

            def one(observed: Any, masks: Any, errors: Any) -> dict[str, Array]:
                found = self._push_nodes(local, {**common, **self.states(observed)}, errors, masks)
                return {n: found[n] for n in layout.names if n not in common}

            inner = {n: e for n, e in errors.items() if n not in self.shared}
            values = {**common, **jax.vmap(one)(self.observed, self.masks, inner)}
        return jnp.concatenate([values[s.name].reshape(-1) for s in layout.slots] or [jnp.zeros(0)])

    def _push_nodes(
        self,
        infos: list[NodeInfo],
        values: dict[str, Array],
        errors: Mapping[str, Array],
        masks: Mapping[str, Array],
    ) -> dict[str, Array]:
        """Values of real nodes (coordinates of constrained ones are kept beside as returned)."""
        coordinates = dict(values)
        values = dict(values)
        for i in infos:
            if i.given or i.name in self.pruned or (i.name in values and i.name not in self.partial):
                continue
            if i.discrete:
                values.setdefault(i.name, jnp.zeros(i.shape, int))
                continue
            if not i.support.is_real:
                u = jnp.zeros(i.support.unconstrained_shape(i.shape))
                coordinates[i.name] = u
                values[i.name] = i.support.decode(u)
                continue
            parents = self.model.parent_values(i.name, values)
            node = self.model.nodes[i.name]
            error = errors.get(i.name)
            if i.plate is None:
                value = located(node(*parents), error)
            elif error is None:
                value = self.model.over_members(i.name, lambda _, *p: located(node(*p), None))(  # noqa: B023
                    jnp.zeros(i.shape[0]), *parents
                )
            else:
                value = self.model.over_members(i.name, lambda e, *p: located(node(*p), e))(  # noqa: B023
                    error, *parents
                )
            value = jnp.broadcast_to(value, i.shape)
            coordinates[i.name] = value
            if i.name in self.partial:
                free = jnp.zeros(i.shape) if error is None else error
                coordinates[i.name] = jnp.where(masks[i.name], free, value)
                value = jnp.where(masks[i.name], values[i.name], value)
            values[i.name] = value
        return coordinates

    def states(self, observed: Mapping[str, Array]) -> dict[str, Array]:
        """Observed values, with clamped states in the place of their nodes."""
        values = {n: v for n, v in observed.items() if not n.endswith(": clamped")}
        return values | {n: observed[f"{n}: clamped"] for n in self.clamped}

    def _nodes(
        self,
        infos: list[NodeInfo],
        values: Mapping[str, Array],
        masks: Mapping[str, Array],
        reduce: Any,
        probabilities: Mapping[str, Array],
        originals: Mapping[str, Array],
        measure: Any,
    ) -> Energies:
        """Energies of some nodes for one observation, their discrete families dealt with by `reduce`."""
        values = dict(values)
        dummies = {}
        for n in self.partial:
            if not self.model.describe(n).discrete and n in originals:
                dummies[n] = values[n]
                values[n] = jnp.where(masks[n], originals[n], values[n])
        found = Energies({}, {})
        for i in infos:
            if i.given or i.name in self.pruned:
                continue
            names = self.family(i.name)

            def parts(*states: Array, i: NodeInfo = i, names: Any = names) -> tuple[Array, Array]:
                here = {**values, **dict(zip(names, states, strict=True))}
                return measure(i, here, masks, originals, dummies)

            function = parts
            for axis in reversed(range(len(names))):
                axes = tuple(0 if j == axis else None for j in range(len(names)))
                function = jax.vmap(function, in_axes=axes)
            each = function(*[jnp.arange(self.discrete[n]) for n in names])
            seen, unseen = (reduce(names, e, probabilities) if names else e for e in each)
            if i.name in self.hidden or i.name in self.clamped:
                found.hidden[i.name] = unseen
                if i.name in self.partial:
                    found.observed[i.name] = seen
            else:
                found.observed[i.name] = seen
        return found

    def _parts(
        self,
        i: NodeInfo,
        values: Mapping[str, Array],
        masks: Mapping[str, Array],
        originals: Mapping[str, Array],
        dummies: Mapping[str, Array],
    ) -> tuple[Array, Array]:
        """What is observed of −ln p(node | parents), and the rest of it."""
        zero = jnp.zeros(())
        if i.name in self.hidden or i.name in self.clamped:
            if i.name not in self.partial:
                return zero, self.model.node_energy(i.name, values)
            mask = masks[i.name]
            if i.discrete:
                wrong = mask & (values[i.name] != originals[i.name])
                whole = self.model.node_energy(i.name, values)
                seen = self.model.node_energy(i.name, {**values, i.name: originals[i.name]})
                return (
                    jnp.where(mask, seen, 0.0),
                    jnp.where(wrong, jnp.inf, jnp.where(mask, 0.0, whole)),
                )
            whole = self.model.node_energy(i.name, values)
            seen = self.model.node_energy(i.name, values, mask)
            # Elements that are present keep idle coordinates, with a standard normal density whose
            # optimum has no divergence: shapes stay the same for every observation.
            idle = jnp.where(mask, dummies[i.name], 0.0)
            filler = 0.5 * jnp.sum(idle**2) + 0.5 * jnp.log(2 * jnp.pi) * jnp.sum(mask)
            return seen, whole - seen + filler
        return self.model.node_energy(i.name, values, masks.get(i.name)), zero

    def over(self, function: Callable[..., Any], *arguments: Any, chunk: int | None = None) -> Any:
        """Map `function(one, *arguments)` over the leading axis of observations and of `arguments`.

        Where latents are shared there is one problem, and the function is called once. `chunk`: how
        many observations at most are worked on at once (all by default), to bound memory.
        """
        if self.repeats is not None:
            return function(self, *arguments)

        def one(observed: Any, masks: Any, rest: Any) -> Any:
            return function(dataclasses.replace(self, observed=observed, masks=masks), *rest)

        if chunk is None:
            return eqx.filter_vmap(one)(self.observed, self.masks, arguments)
        return jax.lax.map(
            lambda each: one(*each), (self.observed, self.masks, arguments), batch_size=int(chunk)
        )


def located(density: Any, error: Array | None) -> Array:
    """The mean of a density, or mean + scale ∘ error for a Gaussian."""
    if error is None:
        return density.mean
    factor = getattr(density, "scale_tril", None)
    if factor is not None:
        return density.loc + factor @ error
    return density.loc + density.scale * error


def standardised(density: Any, value: Array) -> Array:
    """(value − mean) / scale for a Gaussian: the inverse of `located`."""
    factor = getattr(density, "scale_tril", None)
    if factor is not None:
        return jax.scipy.linalg.solve_triangular(factor, value - density.loc, lower=True)
    return (value - density.loc) / density.scale


def whitened(density: Any, value: Array, mask: Array | None) -> Array:
    """A vector whose Jacobian J in the parents gives the Fisher curvature Jᵀ J of −ln p(value).

    Gaussian: L⁻¹ (value − mean); Bernoulli: √(p (1 − p)) logits; categorical: Bᵀ logits with
    B Bᵀ = diag(p) − p pᵀ (p held fixed).

    **Raises:** `ValueError` for other densities.
    """
    while isinstance(density, dist.Independent):
        density = density.base_dist
    if isinstance(density, dist.MultivariateNormal):
        if mask is None:
            return standardised(density, value)
        both = mask[:, None] & mask[None, :]
        # numpyro's lazy_property is a plain attribute once read; its annotation says otherwise.
        covariance: Array = density.covariance_matrix  # pyright: ignore[reportAssignmentType]
        block = jnp.where(both, covariance, jnp.eye(mask.shape[0]))
        residual = jnp.where(mask, value - density.loc, 0.0)
        return jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(block), residual, lower=True)
    if isinstance(density, dist.Normal):
        result = standardised(density, value)
    elif isinstance(density, dist.BernoulliLogits):
        p = jax.lax.stop_gradient(jax.nn.sigmoid(density.logits))
        result = jnp.sqrt(p * (1 - p)) * density.logits
    elif isinstance(density, dist.CategoricalLogits):
        p = jax.lax.stop_gradient(jax.nn.softmax(density.logits, -1))
        result = jnp.sqrt(p) * (density.logits - (p * density.logits).sum(-1, keepdims=True))
        mask = None if mask is None else mask[..., None]
    else:
        raise ValueError(
            f"a {type(density).__name__} has no Gauss–Newton form here; use solver=vfe.Descent()"
        )
    return result if mask is None else jnp.where(mask, result, 0.0)


def outer(probabilities: Mapping[str, Array], names: tuple[str, ...]) -> Array:
    """Π_n q(k_n): the joint of independent discrete beliefs."""
    joint = probabilities[names[0]]
    for n in names[1:]:
        joint = joint[..., None] * probabilities[n]
    return joint


def average(weights: Array, energies: Array) -> Array:
    """Σ_k w_k e_k, where a state without weight does not count however large its energy."""
    return jnp.sum(jnp.where(weights > 0, weights * jnp.where(weights > 0, energies, 0.0), 0.0))


def condition(
    model: Model, observed: Mapping[str, Any], *, weight: float | Array = 1.0
) -> tuple[Conditioned, tuple[int, ...]]:
    """Check the data, sort the nodes, and return the posterior of a batch and its leading axes.

    The arrays of the result have one leading axis over observations (the leading axes of the data,
    flattened), to be used through `Conditioned.over`.

    **Raises:** `ValueError` for unknown nodes, missing inputs, wrong shapes, types or values, empty
    data, infinities, and nodes that cannot be hidden; each names the node.
    """
    if not isinstance(model, Model):
        raise TypeError(f"got a {type(model).__name__} for the model; wanted a vfe.Model.")
    if not isinstance(observed, Mapping):
        raise TypeError(f'observed is a {type(observed).__name__}; wanted a dictionary such as {{"x": x}}.')
    arrays: dict[str, Array] = {}
    masks: dict[str, Array] = {}
    for name, raw in observed.items():
        if name in model.plates:
            arrays[name] = _index(name, raw, model.plates[name])
            continue
        info = model.describe(name)
        arrays[name], mask = _admit(info, raw)
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


def _numbers(array: Array) -> np.ndarray | None:
    return None if isinstance(array, Tracer) else np.asarray(array)


def _index(name: str, raw: Any, size: int) -> Array:
    array = jnp.asarray(raw)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"plate {name!r}: got type {array.dtype}; wanted integers 0 … {size - 1}.")
    numbers = _numbers(array)
    if numbers is not None and numbers.size and (numbers.min() < 0 or numbers.max() >= size):
        raise ValueError(
            f"plate {name!r}: indices from {numbers.min()} to {numbers.max()}; wanted 0 … {size - 1}."
        )
    return array


def _admit(info: NodeInfo, raw: Any) -> tuple[Array, Array | None]:
    """A clean array and a mask (None where everything is present), or an error with the node's name."""
    mask = None
    where = f"node {info.name!r} (parents: {list(info.parents)})"
    if isinstance(raw, Masked):
        mask = jnp.asarray(raw.present, bool)
        raw = raw.values
    try:
        if not isinstance(raw, jax.Array):
            raw = np.asarray(raw)
            if raw.dtype.kind not in "buif":
                raise TypeError(f"type {raw.dtype}")
        array = jnp.asarray(raw)
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise TypeError(f"type {array.dtype}")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: got data of {error}; wanted an array of numbers.") from None
    if jnp.issubdtype(array.dtype, jnp.floating) and isinstance(raw, np.ndarray):
        numbers: np.ndarray | None = raw
    else:
        numbers = _numbers(array)
    if numbers is not None and numbers.dtype.kind == "f":
        missing = np.isnan(numbers)
        hidden_inf = np.isinf(numbers) if mask is None else np.isinf(numbers) & np.asarray(mask)
        if hidden_inf.any():
            raise ValueError(
                f"{where}: {int(hidden_inf.sum())} elements are infinite; remove them, or write NaN "
                "where a value is missing."
            )
        if missing.any():
            mask = ~missing if mask is None else np.asarray(mask) & ~missing
            mask = jnp.asarray(mask)
    if mask is not None and _numbers(mask) is not None and np.asarray(mask).all():
        mask = None
    if mask is not None:
        array = jnp.where(mask, array, jnp.zeros((), array.dtype))
        if info.given:
            raise ValueError(f"{where}: a given node has missing values; inputs must be known.")
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
        array = array.astype(float)
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
    if mask is not None and not info.splits and info.shape:
        whole = mask.all(-1) == mask.any(-1)
        if _numbers(whole) is not None and not np.asarray(whole).all():
            raise ValueError(
                f"{where}: single elements are missing, but its density is of whole vectors; make "
                "every vector complete or wholly missing."
            )
    return array, mask
