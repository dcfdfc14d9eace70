"""What perception returns: a belief, its free energy, and how it was reached."""

from collections import Counter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vfe.conditioning import Conditioned
from vfe.densities import expected
from vfe.free_energy import FreeEnergy, leading_axes
from vfe.perception.status import Status


class Percept(eqx.Module):
    """What was perceived; every array has the leading axes of the data.

    `belief`: q(z); `free_energy`: F in nats; `status`: a `vfe.Status` code per observation; `steps`;
    `trace`: what the solver minimised (nats), at every `stride`-th step (under `vfe.MonteCarlo` over the
    draws it was sought with, which a belief fits: lower than F); `gradient`: the largest
    element left of its gradient; `failed_state`: under `vfe.Enumerated`, the first state whose belief has
    no answer, for which the whole observation then has none, as its F_l could be any; else −1.
    """

    belief: Any
    free_energy: FreeEnergy
    status: Int[Array, "*batch"]
    steps: Int[Array, "*batch"]
    trace: Float[Array, "*batch points"]
    gradient: Float[Array, "*batch"]
    conditioned: Conditioned
    batch: tuple[int, ...] = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    failed_state: Int[Array, "*batch"]

    @property
    def converged(self) -> Array:
        """Whether the gradient came within the tolerance (or the answer is exact, sampled or encoded)."""
        return self.status <= Status.encoded.value

    def report(self) -> str:
        """How many observations ended in which way, in words."""
        counts = Counter(int(s) for s in np.ravel(self.status))
        return "\n".join(
            f"{count} of {int(np.size(self.status))}: {Status(code).sentence}"
            for code, count in sorted(counts.items())
        )

    def _inputs(self) -> dict[str, Array]:
        """What was observed, with the leading axes of the data; missing elements are zero."""
        c = self.conditioned
        return {
            **{n: a.reshape(*self.batch, *a.shape[1:]) for n, a in c.observed.items()},
            **c.common,
        }

    def _held(self, key: PRNGKeyArray) -> dict[str, Array]:
        """One draw from the belief, inputs, and observed elements of partly hidden nodes."""
        c = self.conditioned
        drawn = self.belief.sample(key)
        if not leading_axes(self.belief) and self.batch and c.repeats is None:
            drawn = {n: jnp.broadcast_to(v, (*self.batch, *v.shape)) for n, v in drawn.items()}
        if c.repeats is not None:
            drawn = {
                n: v if c.model.describe(n).shared else v.reshape(*self.batch, *v.shape[1:])
                for n, v in drawn.items()
            }
        inputs = self._inputs()
        for n in c.partial:
            mask = c.masks[n].reshape(inputs[n].shape)
            drawn[n] = jnp.where(mask, inputs[n], drawn[n])
        return {**inputs, **drawn}

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Draws of every hidden node from the posterior, (*shape, *leading axes, *event).

        Nodes without observed descendants follow the model's own conditional.

        **Example:** `percept.sample(jax.random.key(0), (100,))["z"]`.
        """
        return self._drawn((*self.conditioned.hidden, *self.conditioned.pruned), (), key, shape)

    def _drawn(
        self, names: tuple[str, ...], anew: tuple[str, ...], key: PRNGKeyArray, shape: tuple[int, ...]
    ) -> dict[str, Array]:
        if not shape:
            return _draw(self, names, anew, key)
        found = _many_draws(self, names, anew, jax.random.split(key, int(np.prod(shape, dtype=int))))
        return {n: v.reshape(*shape, *v.shape[1:]) for n, v in found.items()}

    def _leaves(self) -> tuple[str, ...]:
        c = self.conditioned
        return tuple(
            i.name
            for i in c.model.info
            if not i.given
            and i.name not in c.hidden
            and i.name not in c.pruned
            and not set(c.model.children(i.name)) - set(c.pruned)
        )

    def predict(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Draws of what would be observed next: x ~ p(x | z), z ~ q (the posterior predictive).

        **Returns:** observed nodes without children, (*shape, *leading axes, *event).
        """
        leaves = self._leaves()
        return self._drawn(leaves, leaves, key, shape)

    def prediction(
        self, node: str, *, samples: int = 64, key: PRNGKeyArray | None = None
    ) -> Float[Array, "..."]:
        """⟨mean of p(node | parents)⟩_q by averaging over draws of the belief: what fills a gap.

        For a discrete node the probabilities of its states, (..., K). Nodes between the belief and a node
        that nothing was observed below are drawn from the model.

        **Example:** `jnp.where(jnp.isnan(x), percept.prediction("x"), x)`.

        **Raises:** `ValueError` for a node that has a belief (`percept.belief[node]`) or observed children,
        and for fewer than one sample.
        """
        if samples < 1:
            raise ValueError(f"prediction: got samples={samples}; wanted at least one.")
        c = self.conditioned
        c.model.require(node)
        if node not in self._leaves() and node not in c.pruned:
            raise ValueError(
                f"prediction: {node!r} is neither an observed node without children nor one without "
                "observed descendants; what is hidden has a belief, percept.belief[...]."
            )
        key = jax.random.key(0) if key is None else key
        return _mean_prediction(self, node, jax.random.split(key, samples))

    def plot(self, **options: Any) -> Any:
        """Draw F by level, the trace and the gradient; returns matplotlib axes."""
        from vfe.results.plots import plot_percept

        return plot_percept(self, **options)

    def to_xarray(self) -> Any:
        """The belief's moments, F by level and how it was reached, as an xarray Dataset."""
        from vfe.results.tables import percept_to_xarray

        return percept_to_xarray(self)

    def __repr__(self) -> str:
        if isinstance(self.status, Tracer):
            return "Percept(traced)"
        return f"Percept of {self.batch or 'one observation'}\n{self.report()}\n{self.free_energy}"


def _is_shared(c: Conditioned, name: str) -> bool:
    return name not in c.model.plates and c.model.describe(name).shared


def _one_draw(
    percept: Percept, names: tuple[str, ...], anew: tuple[str, ...], key: PRNGKeyArray
) -> dict[str, Array]:
    """Nodes drawn given the belief, the nodes `anew` from the model though they were observed."""
    first, second = jax.random.split(key)
    held = {n: v for n, v in percept._held(first).items() if n not in anew}
    found = percept.conditioned.model.sample(second, given=held)
    return {n: found[n] for n in names}


# Compiled once for all percepts of a kind, not once a call.
_draw = eqx.filter_jit(_one_draw)


@eqx.filter_jit
def _many_draws(
    percept: Percept, names: tuple[str, ...], anew: tuple[str, ...], keys: PRNGKeyArray
) -> dict[str, Array]:
    return jax.lax.map(lambda key: _one_draw(percept, names, anew, key), keys)


@eqx.filter_jit
def _mean_prediction(percept: Percept, node: str, keys: PRNGKeyArray) -> Array:
    c = percept.conditioned

    def one(key: PRNGKeyArray) -> Array:
        held = percept._held(key)
        if node in c.pruned:
            held = c.model.sample(jax.random.fold_in(key, 1), given=held)
        shared = {n: v for n, v in held.items() if _is_shared(c, n)}
        local = {n: v for n, v in held.items() if n not in shared}

        def mean(local: dict[str, Array]) -> Array:
            return expected(c.model.density(node, {**shared, **local}))

        for _ in percept.batch:
            mean = jax.vmap(mean)
        return mean(local)

    return jax.lax.map(one, keys).mean(0)
