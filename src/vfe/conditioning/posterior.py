"""−ln p(x, z) of one observation as a function of what is hidden."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.conditionals import AbstractGaussianNode, Gaussian
from vfe.conditioning.layout import Layout
from vfe.conditioning.residuals import (
    AbstractFisherRoot,
    fisher_root,
    located,
    log_size,
    predicted,
    standardised,
)
from vfe.model import Model, NodeInfo


class Energies(eqx.Module):
    """−ln p by node: what is observed of each node, and what is hidden of it, in nats."""

    observed: dict[str, Array]
    hidden: dict[str, Array]

    def total(
        self, weight: Array | float = 1.0, shared: tuple[str, ...] = (), nudge: float = 1.0
    ) -> Float[Array, ""]:
        """E, with the terms of single observations multiplied by `weight`, what is observed by `nudge`."""
        result = jnp.zeros(())
        for part, strength in ((self.observed, nudge), (self.hidden, 1.0)):
            for name, value in part.items():
                result = result + jnp.sum(value) * (strength if name in shared else strength * weight)
        return result


class Conditioned(eqx.Module):
    """The unnormalised posterior of one observation (or of a data set that shares latents).

    `observed`, `masks`: values and which of their elements are present; `common`: observed shared
    nodes; `weight`: what the terms of single observations are multiplied by (N/B in a minibatch).
    `hidden`: nodes with a belief, in topological order; `partial`: those among them of which some
    elements are observed; `clamped`: hidden nodes held at a value; `pruned`: nodes without observed
    descendants; `repeats`: the number of observations inside, where latents are shared; `nudge`: what
    the energies of observed nodes are multiplied by in E, 1 but in the phases of `vfe.CentredNudging`.
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
    nudge: float = eqx.field(static=True, default=1.0)

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

        return self.at(u, reduce, dict(probabilities or {}), self._parts)

    def sensitivity(
        self, place: Callable[[Array], Array], at: Float[Array, " n"]
    ) -> dict[str, Float[Array, "m n"]]:
        """J by observed node: how its prediction moves with v, u = place(v), in units of its noise.

        Jᵀ J is the Gauss–Newton curvature (Fisher information) of the node's weighted energy; zero where a
        negative `nudge` turns that energy round, as no real J squares to what is negative. It is
        differentiable in the parameters, the Fisher information's dependence on them included. Taken by
        rows or by columns, whichever are fewer.

        **Raises:** `ValueError` for observed densities whose Fisher information is not known. Members of
        plates have no rows.
        """

        def outputs(v: Array) -> Any:
            return self._outputs(place(v))

        shapes, _ = jax.eval_shape(outputs, at)
        count = sum(int(np.prod(s.shape, dtype=int)) for s in shapes.values())
        take = jax.jacrev if count < at.shape[0] else jax.jacfwd
        derivative, roots = take(outputs, has_aux=True)(at)
        return self._rooted(roots, derivative)

    def linear_sensitivity(
        self, place: Callable[[Array], Array], at: Float[Array, " n"]
    ) -> Callable[[Float[Array, " n"]], Float[Array, " m"]]:
        """J as a linear function of a direction, all observed nodes in one vector: one pass down."""
        _, along, roots = jax.linearize(lambda v: self._outputs(place(v)), at, has_aux=True)

        def apply(direction: Array) -> Array:
            columns = jax.tree.map(lambda a: a[..., None], along(direction))
            rows = self._rooted(roots, columns)
            return jnp.concatenate([*(r[:, 0] for r in rows.values()), jnp.zeros(0)])

        return apply

    def _outputs(self, u: Array) -> tuple[dict[str, Array], dict[str, AbstractFisherRoot]]:
        """What is predicted of every observed node (see `predicted`), and the roots in whose units."""

        def measure(i: NodeInfo, values: Any, masks: Any, originals: Any, dummies: Any) -> Any:
            zero = jnp.zeros(0)
            if i.name in self.hidden or i.name in self.clamped or i.plate is not None:
                return None, zero
            node = self.model.nodes[i.name]
            constant = isinstance(node, Gaussian) and node.has_constant_noise
            density = self.model.density(i.name, values)
            return (predicted(density, constant), fisher_root(density, masks.get(i.name), constant)), zero

        found = self.at(u, lambda names, table, q: table, {}, measure, jacobians=False).observed
        pairs = {n: pair for n, pair in found.items() if pair is not None}
        return {n: p for n, (p, _) in pairs.items()}, {n: r for n, (_, r) in pairs.items()}

    def _rooted(
        self, roots: dict[str, AbstractFisherRoot], derivative: dict[str, Array]
    ) -> dict[str, Array]:
        """Derivatives of what is predicted, in units of the noise."""
        found = {}
        for name, root in roots.items():
            rows = derivative[name]
            if self.repeats is None or name in self.shared:
                found[name] = root(rows)
            else:
                each = jax.vmap(lambda a, d: a(d))(root, rows)
                found[name] = jnp.sqrt(self.weight) * each.reshape(-1, rows.shape[-1])
        if self.nudge == 1.0:
            return found
        return {n: max(self.nudge, 0.0) ** 0.5 * rows for n, rows in found.items()}

    def multiplicity(self) -> Float[Array, " n"]:
        """How often the energy of each hidden element counts: once where shared, else `weight` times."""
        parts = [
            jnp.full(s.stop - s.start, 1.0) * (1.0 if s.name in self.shared else self.weight)
            for s in self.layout.slots
        ]
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

        found = self.at(u, lambda names, table, q: table, {}, measure, jacobians=False)
        return {n: found.hidden[n] for n in self.layout.names}

    def error_energies(self, e: Float[Array, " n"]) -> Energies:
        """E by node at z = g(parents) + s ∘ e, written in the errors: one visit, from the top down.

        E_i = ½ |e_i|² + ln |s_i| + ½ n_i ln 2π for the hidden Gaussian nodes, −ln p for observed ones: the
        same numbers as `energies(push(e))`, whose derivative would pass through every mean twice.
        """
        layout = self.layout
        errors = layout.unpack(e)

        def measure(i: NodeInfo, values: Any, masks: Any, originals: Any, dummies: Any) -> Any:
            if i.name not in layout.names or i.name in self.partial:
                return self._parts(i, values, masks, originals, dummies)
            parents = self.model.parent_values(i.name, values)
            node = self.model.nodes[i.name]
            if i.plate is None:
                size = log_size(node(*parents), i.shape)
            else:
                shape = i.shape[1:]
                size = self.model.over_members(i.name, lambda _, *p: log_size(node(*p), shape))(
                    jnp.zeros(i.shape[0]), *parents
                ).sum()
            return jnp.zeros(()), size

        found = self.at(self.push(errors), lambda names, table, q: table, {}, measure)
        hidden = dict(found.hidden)
        for s in layout.slots:
            if s.name not in self.partial:
                hidden[s.name] = hidden[s.name] + _half_square(errors[s.name], s.repeated)
        return Energies(found.observed, hidden)

    def error_energy(self, e: Float[Array, " n"]) -> Float[Array, ""]:
        """E at z = g(parents) + s ∘ e: the sum of `error_energies`, weighted."""
        return self.error_energies(e).total(self.weight, self.shared, self.nudge)

    def error_energy_that_moves(self, e: Float[Array, " n"]) -> Float[Array, ""]:
        """`error_energy` less `error_constant`: in deep networks, whose digits would drown its changes."""
        found = self.error_energies(e)
        errors = self.layout.unpack(e)
        moving = {
            s.name: _half_square(errors[s.name], s.repeated)
            for s in self.layout.slots
            if self._has_constant_size(s.name)
        }
        energies = Energies(found.observed, {**found.hidden, **moving})
        return energies.total(self.weight, self.shared, self.nudge)

    def error_constant(self) -> Float[Array, ""]:
        """Σ_i ln |s_i| + ½ n_i ln 2π of the hidden Gaussian nodes whose scale depends on nothing hidden."""
        found = self.error_energies(jnp.zeros(self.layout.size)).hidden
        sizes = {n: e for n, e in found.items() if n in self.layout.names and self._has_constant_size(n)}
        return Energies({}, sizes).total(self.weight, self.shared, self.nudge)

    def _has_constant_size(self, name: str) -> bool:
        node = self.model.nodes[name]
        constant = isinstance(node, AbstractGaussianNode) and node.has_constant_noise
        return constant and name not in self.partial

    def tables(self) -> dict[str, tuple[tuple[str, ...], Array]]:
        """E_i(k) for every state of the discrete family of each node; all hidden nodes discrete."""

        def keep(names: tuple[str, ...], table: Array, q: Mapping[str, Array]) -> Array:
            return table

        found = self.at(jnp.zeros(0), keep, {}, self._parts)
        tables = dict(found.observed)
        for n, hidden in found.hidden.items():
            tables[n] = tables[n] + hidden if n in tables else hidden
        return {n: (self.family(n), table) for n, table in tables.items()}

    def at(
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
        return self.energies(u, **options).total(self.weight, self.shared, self.nudge)

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
            return seen, whole - seen + self._idle(i, masks, dummies)
        return self.model.node_energy(i.name, values, masks.get(i.name)), zero

    def _idle(self, i: NodeInfo, masks: Mapping[str, Array], dummies: Mapping[str, Array]) -> Array:
        """−ln N of the coordinates of what is present of a node.

        They are idle, with a standard normal density whose optimum has no divergence: so shapes stay the
        same for every observation.
        """
        mask = masks[i.name]
        idle = jnp.where(mask, dummies[i.name], 0.0)
        return 0.5 * jnp.sum(idle**2) + 0.5 * jnp.log(2 * jnp.pi) * jnp.sum(mask)

    def idle_energies(self, u: Float[Array, " n"]) -> dict[str, Array]:
        """What idle coordinates add to `energies`, by node; alone, without an entropy, it must go."""
        names = [n for n in self.partial if n in self.layout.names]

        def measure(i: NodeInfo, values: Any, masks: Any, originals: Any, dummies: Any) -> Any:
            zero = jnp.zeros(())
            return zero, self._idle(i, masks, dummies) if i.name in names else zero

        # It does not depend on discrete parents.
        found = self.at(u, lambda _, table, q: table.reshape(-1)[0], {}, measure, jacobians=False)
        return {n: found.hidden[n] for n in names}

    def over(self, function: Callable[..., Any], *arguments: Any, chunk: int | None = None) -> Any:
        """Map `function(one, *arguments)` over the leading axis of observations and of `arguments`.

        Where latents are shared there is one problem, and the function is called once. `chunk`: how
        many observations at most are worked on at once (all by default), to bound memory.
        """
        if self.repeats is not None:
            return function(self, *arguments)

        def one(observed: Any, masks: Any, rest: Any) -> Any:
            return function(dataclasses.replace(self, observed=observed, masks=masks), *rest)

        leaves = jax.tree.leaves((self.observed, self.masks, arguments))
        if leaves and leaves[0].shape[0] == 1:
            # One observation alone needs no map, and loops inside compile several times faster without.
            arrays, rest = eqx.partition((self.observed, self.masks, arguments), eqx.is_array)
            found = one(*eqx.combine(jax.tree.map(lambda a: a[0], arrays), rest))
            return jax.tree.map(lambda a: a[None] if eqx.is_array(a) else a, found)
        if chunk is None:
            return eqx.filter_vmap(one)(self.observed, self.masks, arguments)
        return jax.lax.map(
            lambda each: one(*each), (self.observed, self.masks, arguments), batch_size=int(chunk)
        )


def _half_square(error: Array, repeated: bool) -> Array:
    """½ |e|², by repetition where there are several."""
    squares = error**2
    return 0.5 * (squares.reshape(squares.shape[0], -1).sum(-1) if repeated else squares.sum())


def outer(probabilities: Mapping[str, Array], names: tuple[str, ...]) -> Array:
    """Π_n q(k_n): the joint of independent discrete beliefs."""
    joint = probabilities[names[0]]
    for n in names[1:]:
        joint = joint[..., None] * probabilities[n]
    return joint


def average(weights: Array, energies: Array) -> Array:
    """Σ_k w_k e_k, where a state without weight does not count however large its energy."""
    return jnp.sum(jnp.where(weights > 0, weights * jnp.where(weights > 0, energies, 0.0), 0.0))
