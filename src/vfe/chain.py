"""Chain: a generative model of a sequence, its conditionals stored once and repeated in time."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs import AbstractGaussian
from vfe.conditionals import AbstractConditional, Given, given
from vfe.conditioning import Energies, Layout, condition
from vfe.expectation import AbstractExpectation, standard_error
from vfe.free_energy import FreeEnergy, Kind, default_expectation, kind_of
from vfe.model import Model

LONGEST_UNROLLED = 256
PRIME = "'"


class Chain(eqx.Module):
    """p(s, x) = p(s₀) Π_t p(s_t | s_{t−1}) p(x_t | s_t): conditionals of one step, for any number of steps.

    E = −ln p(s₀) − Σ_{t≥1} ln p(s_t | s_{t−1}) − Σ_t ln p(x_t | s_t), in nats.

    **Arguments:** `initial`, `transition`, `emission`: each a node, or a dictionary of named nodes
    (several state factors, several modalities); a single state is named "z", a single observation "x".
    `inputs`: a dictionary of `vfe.given` nodes, known at every step.

    What the parents' names mean:

    - in `initial`: the other states at step 0;
    - in `transition`: "z" is z at the step before, "z'" (with a prime) is z at this step;
    - in `emission`: "z" is z at this step, as are other observed nodes;
    - an input, anywhere: its value at this step (u_t enters the transition *into* step t).

    **Raises:** `ValueError` that names the node: for states that differ between `initial` and
    `transition`, shapes or supports that do not fit, unknown parents, cycles, shared nodes.

    **Example:**
    ```python
    chain = vfe.Chain(
        vfe.gaussian(jnp.zeros(2)),
        vfe.gaussian(vfe.Affine(0.9 * jnp.eye(2)), scale=0.1, parents="z"),
        vfe.gaussian(vfe.Affine(jnp.ones((3, 2))), scale=0.5, parents="z"),
    )
    values = chain.sample(jax.random.key(0), 1000)
    chain.energies(values)["z"].shape  # (1000,)
    ```

    **Source:** Rabiner 1989 (discrete states), Kalman 1960 (Gaussian ones).
    """

    first: Model
    step: Model
    emit: Model
    states: tuple[str, ...] = eqx.field(static=True)
    inputs: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        initial: AbstractConditional | Mapping[str, AbstractConditional],
        transition: AbstractConditional | Mapping[str, AbstractConditional],
        emission: AbstractConditional | Mapping[str, AbstractConditional],
        *,
        inputs: Mapping[str, Given] | None = None,
    ):
        first = _named(initial, "z")
        step = _named(transition, "z")
        emit = _named(emission, "x")
        known = dict(inputs or {})
        _check_names(first, step, emit, known)
        self.states = tuple(first)
        self.inputs = tuple(known)
        self.first = _model("initial", {**known, **first})
        before = {n: given(self.first.describe(n).shape, integer=_integer(self.first, n)) for n in first}
        now = {n + PRIME: c for n, c in step.items()}
        self.step = _model("transition", {**known, **before, **now})
        self.emit = _model("emission", {**known, **before, **emit})
        for n in first:
            one, two = self.first.describe(n), self.step.describe(n + PRIME)
            start, then = (one.shape, one.support, one.states), (two.shape, two.support, two.states)
            if start != then:
                raise ValueError(
                    f"Chain: the state {n!r} has shape {one.shape} and support {one.support.name} in "
                    f"initial, and shape {two.shape} and support {two.support.name} in transition (or "
                    "another number of states); they must be the same."
                )

    @property
    def initial(self) -> dict[str, AbstractConditional]:
        """p(s₀), by state."""
        return {n: self.first.nodes[n] for n in self.states}

    @property
    def transition(self) -> dict[str, AbstractConditional]:
        """p(s_t | s_{t−1}), by state."""
        return {n: self.step.nodes[n + PRIME] for n in self.states}

    @property
    def emission(self) -> dict[str, AbstractConditional]:
        """p(x_t | s_t), by observed node."""
        return {n: c for n, c in self.emit.nodes.items() if n not in (*self.states, *self.inputs)}

    @property
    def names(self) -> tuple[str, ...]:
        """Every node that has a density: states, then observed nodes, each in topological order."""
        now = [n.removesuffix(PRIME) for n in self.step.order if n.endswith(PRIME)]
        return (*now, *(n for n in self.emit.order if n in self.emission))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one node at one step. **Raises:** `ValueError` for an unknown node."""
        self._require(name)
        return (self.first if name in self.states else self.emit).describe(name).shape

    def _require(self, name: str) -> None:
        known = (*self.inputs, *self.names)
        if name not in known:
            raise ValueError(f"Chain: no node {name!r}; its nodes are {list(known)}.")

    def energies(self, values: Mapping[str, Any]) -> dict[str, Float[Array, "*batch time"]]:
        """−ln p(node_t | parents) for every node and step, in nats: by vmap over time.

        **Arguments:** `values`: for every node and input, (*batch, time, *event).

        **Returns:** one array per node with a density, (*batch, time); for states the first step's
        entry comes from `initial`.

        **Raises:** `ValueError` for a missing or an unknown node, or shapes that do not fit.

        **Example:** `sum(chain.energies(values).values()).sum(-1)` is E of the whole sequence.
        """
        arrays = {n: jnp.asarray(v) for n, v in values.items()}
        lead = self._leading_axes(arrays)
        missing = [n for n in (*self.inputs, *self.names) if n not in arrays]
        if missing:
            raise ValueError(f"energies: no value for {missing}; give one for every node.")
        found = self.step_energies(arrays, {}, self.names, len(lead) - 1)
        return {n: found[n] for n in self.names}

    def step_energies(
        self, values: Mapping[str, Array], masks: Mapping[str, Array], names: tuple[str, ...], batch: int
    ) -> dict[str, Array]:
        """As `energies`, of some nodes only, after `batch` leading axes; `masks`: what is present."""

        def at(array: Array, where: slice | int) -> Array:
            return array[(*[slice(None)] * batch, where)]

        def over(model: Model, name: str, here: dict[str, Array], mask: Array | None, axes: int) -> Array:
            def function(here: dict[str, Array], mask: Array | None) -> Array:
                return model.node_energy(name, here, mask)

            for _ in range(axes):
                function = jax.vmap(function)
            return function(here, mask)

        def needed(model: Model, name: str) -> tuple[str, ...]:
            return (name, *model.describe(name).parents)

        found = {}
        for name in names:
            if name not in self.states:
                here = {n: values[n] for n in needed(self.emit, name)}
                found[name] = over(self.emit, name, here, masks.get(name), batch + 1)
                continue
            start = {n: at(values[n], 0) for n in needed(self.first, name)}
            energy = over(self.first, name, start, None, batch)[..., None]
            if values[name].shape[batch] > 1:
                now = {n + PRIME: at(values[n], slice(1, None)) for n in self.states if n in values}
                now |= {n: at(values[n], slice(1, None)) for n in self.inputs if n in values}
                now |= {n: at(values[n], slice(None, -1)) for n in self.states if n in values}
                now = {n: now[n] for n in needed(self.step, name + PRIME)}
                later = over(self.step, name + PRIME, now, None, batch + 1)
                energy = jnp.concatenate([energy, later], -1)
            found[name] = energy
        return found

    def _leading_axes(self, arrays: Mapping[str, Array]) -> tuple[int, ...]:
        """The leading axes that all values share, the last of them time."""
        leads = {}
        for name, value in arrays.items():
            event = self.shape(name) if name not in self.inputs else self.emit.describe(name).shape
            cut = value.ndim - len(event)
            if cut < 1 or value.shape[cut:] != event or value.shape[cut - 1] < 1:
                raise ValueError(
                    f"Chain: node {name!r} has an array of shape {value.shape}; wanted "
                    f"{('...', 'time', *event)}: any leading axes, then time, then {event} for one step."
                )
            leads[name] = value.shape[:cut]
        if len(set(leads.values())) != 1:
            raise ValueError(f"Chain: the leading axes of the nodes differ: {leads}; the last is time.")
        return next(iter(leads.values()))

    def sample(
        self,
        key: PRNGKeyArray,
        length: int,
        *,
        given: Mapping[str, Any] | None = None,
        shape: tuple[int, ...] = (),
    ) -> dict[str, Array]:
        """Sequences drawn from the model, step after step under `lax.scan`.

        **Arguments:** `length`: how many steps; `given`: values of the inputs, and of any nodes to
        hold (an intervention at every step), (length, *event); `shape`: leading axes of independent
        sequences.

        **Returns:** one array per node and input, (*shape, length, *event).

        **Raises:** `ValueError` for missing inputs or shapes that do not fit.

        **Example:** `chain.sample(jax.random.key(0), 100)["x"]`, (100, *event).
        """
        held = {n: jnp.asarray(v) for n, v in (given or {}).items()}
        if length < 1:
            raise ValueError(f"sample: got length={length}; wanted at least 1.")
        missing = [n for n in self.inputs if n not in held]
        if missing:
            raise ValueError(f"sample: no value for the inputs {missing}; give them in given=.")
        if held and self._leading_axes(held) != (length,):
            raise ValueError(
                f"sample: the arrays in given have leading axes {self._leading_axes(held)}; wanted "
                f"({length},), one value per step."
            )
        found = _sample(self, key, length, held, shape)
        return {n: found[n] for n in (*self.inputs, *self.names)}

    def unroll(self, length: int) -> Model:
        """The same density as a graph: nodes "z_0", "x_0", "z_1", … that share their parameters.

        For a few steps, where everything that works on a `vfe.Model` can check or perceive it.

        **Raises:** `ValueError` for more than 256 steps.

        **Example:** `vfe.exact.posterior(chain.unroll(4), chain.split({"x": x}))`.
        """
        if not 1 <= length <= LONGEST_UNROLLED:
            raise ValueError(
                f"unroll: got length={length}; wanted 1 … {LONGEST_UNROLLED}. Chain.energies, "
                "Chain.sample and Chain.free_energy take any length."
            )
        nodes: dict[str, AbstractConditional] = {}

        def put(name: str, node: AbstractConditional, t: int, before: bool) -> None:
            parents = []
            for p in node.parents:
                past = before and p in self.states
                parents.append(f"{p}_{t - 1}" if past else f"{p.removesuffix(PRIME)}_{t}")
            nodes[f"{name}_{t}"] = dataclasses.replace(node, parents=tuple(parents))

        for t in range(length):
            for n in self.inputs:
                put(n, self.emit.nodes[n], t, False)
            for n in self.states:
                put(n, self.transition[n] if t else self.initial[n], t, t > 0)
            for n, node in self.emission.items():
                put(n, node, t, False)
        return Model(**nodes)

    def split(self, values: Mapping[str, Any]) -> dict[str, Array]:
        """Values with a time axis, (*batch, time, *event), as those of the nodes of `unroll`."""
        arrays = {n: jnp.asarray(v) for n, v in values.items()}
        lead = self._leading_axes(arrays)
        axis = len(lead) - 1
        return {f"{n}_{t}": jnp.take(v, t, axis=axis) for n, v in arrays.items() for t in range(lead[-1])}

    def stack(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """The inverse of `split`: values of nodes "z_0", "z_1", … with a time axis."""
        found: dict[str, dict[int, Array]] = {}
        for key, value in values.items():
            name, _, t = key.rpartition("_")
            self._require(name)
            found.setdefault(name, {})[int(t)] = jnp.asarray(value)
        stacked = {}
        for name, steps in found.items():
            if sorted(steps) != list(range(len(steps))):
                raise ValueError(f"Chain: node {name!r} has values at the steps {sorted(steps)} only.")
            axis = steps[0].ndim - len(self.shape(name))
            stacked[name] = jnp.stack([steps[t] for t in range(len(steps))], axis)
        return stacked

    def free_energy(
        self,
        belief: AbstractGaussian,
        observed: Mapping[str, Any],
        *,
        expectation: AbstractExpectation | None = None,
        key: PRNGKeyArray | None = None,
    ) -> FreeEnergy:
        """F of a Gaussian belief about all states at all steps, by node and step, in nats.

        F_t = ⟨−ln p(s_t | s_{t−1}) − ln p(x_t | s_t)⟩ − S(s_t | s_0 … s_{t−1}); the sum over time is
        that of the unrolled model.

        **Arguments:** `belief`: about the nodes "z_0", "z_1", … of `unroll`, for one sequence (use
        `jax.vmap` for many); `observed`: (time, *event) per observed node and input, NaN where
        missing; `expectation`, `key`: as in `vfe.free_energy`.

        **Returns:** a `FreeEnergy` with time as its leading axis. Under Monte Carlo every step has its
        standard error; all steps share their draws, so these errors are not independent.

        **Raises:** `TypeError` for other beliefs; `ValueError` for data that do not fit.

        **Example:**
        ```python
        belief = vfe.exact.posterior(chain.unroll(4), chain.split(data))
        chain.free_energy(belief, data).by_level["z"]  # (4,)
        ```
        """
        if not isinstance(belief, AbstractGaussian) or belief.location.ndim != 1:
            raise TypeError(
                f"Chain.free_energy: got a {type(belief).__name__}; wanted one Gaussian belief without "
                "leading axes, such as vfe.JointGaussian, about the nodes of chain.unroll(time). For "
                "others use vfe.free_energy(chain.unroll(time), ...)."
            )
        values, masks = self._observe(observed)
        length = self._leading_axes(values)[0]
        names = tuple(n for n in self.names if n in self.states or n in values)
        belief = belief.aligned(self._layout(belief, length))
        # What is declared about two steps holds for all of them.
        few = min(length, 2)
        start = {n: v[:few] for n, v in observed.items()}
        small, _ = condition(self.unroll(few), self.split(start))
        chosen = default_expectation(small, belief) if expectation is None else expectation
        kind = kind_of(small, belief, chosen)
        key = jax.random.key(0) if key is None else key
        energies, draws = _expected(self, chosen, belief, values, masks, names, length, key)
        error = None
        if draws is not None and kind is Kind.monte_carlo:
            totals = sum(jax.tree.leaves(draws), jnp.zeros(()))
            error = jax.vmap(standard_error, in_axes=1)(totals)
        each = belief.entropies()
        entropies = {
            n: jnp.stack([each[f"{n}_{t}"] for t in range(length)]) for n in names if n in self.states
        }
        one = jnp.ones(())
        return FreeEnergy(energies.observed, energies.hidden, entropies, error, one, kind, (), names)

    def _observe(self, observed: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Clean arrays of observed nodes and inputs, and masks of what is present."""
        for name in observed:
            self._require(name)
            if name in self.states:
                raise ValueError(
                    f"Chain.free_energy: the state {name!r} is observed; use the unrolled model for that: "
                    "vfe.free_energy(chain.unroll(time), ...)."
                )
        lead = self._leading_axes({n: jnp.asarray(v) for n, v in observed.items()})
        if len(lead) != 1:
            raise ValueError(
                f"Chain.free_energy: the data have leading axes {lead}; wanted (time,), one sequence; use "
                "jax.vmap for many."
            )
        held = {n: jnp.zeros((*lead, *self.shape(n)), _type(self.first, n)) for n in self.states}
        conditioned, _ = condition(self.emit, {**observed, **held})
        if conditioned.hidden:
            raise ValueError(
                f"Chain.free_energy: the nodes {list(conditioned.hidden)} have observed children and are "
                "not (fully) observed; use the unrolled model: vfe.free_energy(chain.unroll(time), ...)."
            )
        return {n: conditioned.observed[n] for n in observed}, conditioned.masks

    def _layout(self, belief: AbstractGaussian, length: int) -> Layout:
        """The belief's nodes in order of time, and of the model within a step."""
        wanted = [f"{n}_{t}" for t in range(length) for n in self.names if n in self.states]
        if set(wanted) != set(belief.names):
            raise ValueError(
                f"Chain.free_energy: the belief is about {list(belief.names)}; wanted the states at every "
                f"step: {wanted}."
            )
        entries = []
        for name in wanted:
            slot = belief.layout.slot(name)
            entries.append((name, slot.shape, slot.support, False))
        return Layout.of(entries)

    def __repr__(self) -> str:
        lines = []
        for word, model, names in (
            ("initial", self.first, self.states),
            ("transition", self.step, tuple(n + PRIME for n in self.states)),
            ("emission", self.emit, tuple(self.emission)),
        ):
            for n in names:
                info = model.describe(n)
                under = f" | {', '.join(info.parents)}" if info.parents else ""
                lines.append(f"  {word}: p({n}{under}), shape {info.shape}")
        return "Chain(\n" + "\n".join(lines) + "\n)"


@eqx.filter_jit
def _sample(
    chain: Chain, key: PRNGKeyArray, length: int, held: dict[str, Array], shape: tuple[int, ...]
) -> dict[str, Array]:
    above = {n: v for n, v in held.items() if n in chain.inputs or n in chain.states}

    def one(key: PRNGKeyArray) -> dict[str, Array]:
        start_key, walk_key, emit_key = jax.random.split(key, 3)
        drawn = chain.first.sample(start_key, given={n: v[0] for n, v in above.items()})
        start = {n: drawn[n] for n in chain.states}

        def advance(before: dict[str, Array], inputs: Any) -> Any:
            key, here = inputs
            now = {n + PRIME if n in chain.states else n: v for n, v in here.items()}
            drawn = chain.step.sample(key, given={**before, **now})
            after = {n: drawn[n + PRIME].astype(before[n].dtype) for n in chain.states}
            return after, after

        rest = {n: v[1:] for n, v in above.items()}
        _, later = jax.lax.scan(advance, start, (jax.random.split(walk_key, length - 1), rest))
        path = {n: jnp.concatenate([start[n][None], later[n]]) for n in chain.states}
        return chain.emit.sample(emit_key, given={**held, **path})

    function = one
    for _ in shape:
        function = jax.vmap(function)
    return function(jax.random.split(key, shape) if shape else key)


@eqx.filter_jit
def _expected(
    chain: Chain,
    expectation: AbstractExpectation,
    belief: AbstractGaussian,
    values: dict[str, Array],
    masks: dict[str, Array],
    names: tuple[str, ...],
    length: int,
    key: PRNGKeyArray,
) -> tuple[Energies, Any]:
    """⟨−ln p⟩ by node and step, and the same at every draw (None without draws)."""
    layout = belief.layout

    def function(u: Array) -> Energies:
        parts = layout.unpack(u)
        states = chain.stack({s.name: s.support.decode(parts[s.name]) for s in layout.slots})
        found = chain.step_energies({**values, **states}, masks, names, 0)
        jacobians = {s.name: s.support.log_jacobian(parts[s.name]) for s in layout.slots}
        hidden = {
            n: found[n] - jnp.stack([jacobians[f"{n}_{t}"] for t in range(length)])
            for n in names
            if n in chain.states
        }
        return Energies({n: e for n, e in found.items() if n not in hidden}, hidden)

    return expectation.average(function, belief, key)


def _named(part: Any, name: str) -> dict[str, AbstractConditional]:
    if isinstance(part, AbstractConditional):
        return {name: part}
    if isinstance(part, Mapping):
        return dict(part)
    raise TypeError(
        f"Chain: got a {type(part).__name__}; wanted a node such as vfe.gaussian(...), or a dictionary of "
        "named nodes."
    )


def _check_names(first: Any, step: Any, emit: Any, inputs: Any) -> None:
    if set(first) != set(step):
        raise ValueError(
            f"Chain: initial has the states {list(first)} and transition {list(step)}; they must be the "
            "same."
        )
    names = [*first, *emit, *inputs]
    if len(set(names)) != len(names):
        raise ValueError(f"Chain: the names {names} are not distinct; name every node once.")
    for name, node in (*first.items(), *step.items(), *emit.items(), *inputs.items()):
        if not isinstance(node, AbstractConditional):
            raise TypeError(
                f"Chain: node {name!r} is a {type(node).__name__}; make it with vfe.gaussian, "
                "vfe.categorical, … or vfe.conditional."
            )
        if PRIME in name:
            raise ValueError(f"Chain: the name {name!r} has a prime, which marks the present step.")
        if isinstance(node, Given) != (name in inputs):
            raise ValueError(f"Chain: {name!r}: put vfe.given nodes, and only those, into inputs=.")
        if node.shared or node.plate is not None:
            raise ValueError(
                f"Chain: node {name!r} is shared or in a plate; a chain's nodes have one value per step. "
                "Make it a learned parameter (vfe.learnable), or use chain.unroll."
            )


def _integer(model: Model, name: str) -> bool:
    return model.describe(name).discrete


def _type(model: Model, name: str) -> Any:
    return int if _integer(model, name) else float


def _model(word: str, nodes: dict[str, AbstractConditional]) -> Model:
    try:
        return Model(**nodes)
    except ValueError as error:
        hint = '; "z" is the step before, "z\'" this step' if word == "transition" else ""
        raise ValueError(f"Chain: in {word}: {error} (parents here: states and inputs{hint})") from error
