"""Parameters of every subject: the most probable ones, how sure, and F; all subjects in one program."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from vfe.discrete.behaviour.parameters import Coordinates, ParameterPrior
from vfe.free_energy import FreeEnergy, Kind
from vfe.perception.status import DivergenceError

LogLikelihood = Callable[[dict[str, Array], Any], Array]


class FittedSubjects(eqx.Module):
    """Parameters of subjects, by Laplace's method.

    `value`: by name (subjects,), the most probable ones; `coordinates` (subjects, k): where they lie in
    unconstrained coordinates, in the order of `names`, with `covariance` (subjects, k, k); `log_likelihood`
    (subjects,): ln p of the choices there, nats; `free_energy`: by subject, of choices and parameters,
    about −ln p(choices) with the parameters integrated out (`vfe.compare` ranks several); `gradient`
    (subjects,): its largest element left, in units of the prior's standard deviations; `converged`.
    """

    value: dict[str, Float[Array, " subjects"]]
    coordinates: Float[Array, "subjects k"]
    covariance: Float[Array, "subjects k k"]
    log_likelihood: Float[Array, " subjects"]
    free_energy: FreeEnergy
    gradient: Float[Array, " subjects"]
    converged: Bool[Array, " subjects"]
    kept: Coordinates = eqx.field(static=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters, in the order of `coordinates`."""
        return self.kept.names

    @property
    def sd(self) -> dict[str, Any]:
        """Standard deviations by name (subjects,), in unconstrained coordinates."""
        found = np.sqrt(np.diagonal(np.asarray(self.covariance), axis1=-2, axis2=-1))
        return {name: found[..., i] for i, name in enumerate(self.names)}

    def interval(self, level: float = 0.95) -> dict[str, tuple[Any, Any]]:
        """Central intervals by name, each end (subjects,): Gaussian in unconstrained coordinates.

        **Raises:** `ValueError` for a level outside (0, 1).
        """
        from statistics import NormalDist

        if not 0 < level < 1:
            raise ValueError(f"interval: got level={level}; wanted a probability between 0 and 1.")
        reach = NormalDist().inv_cdf(0.5 + 0.5 * level)
        with jax.enable_x64(True):
            sd = np.sqrt(np.diagonal(np.asarray(self.covariance), axis1=-2, axis2=-1))
            low = self.kept.decode(jnp.asarray(self.coordinates - reach * sd))
            high = self.kept.decode(jnp.asarray(self.coordinates + reach * sd))
            return {n: (np.asarray(low[n]), np.asarray(high[n])) for n in self.names}


def fit_subjects(
    log_likelihood: LogLikelihood,
    data: Any,
    *,
    prior: Mapping[str, ParameterPrior],
    starts: int = 1,
    key: PRNGKeyArray | None = None,
    max_steps: int = 200,
    tolerance: float = 1e-6,
    devices: Sequence[Any] | None = None,
    throw: bool = True,
) -> FittedSubjects:
    """The most probable parameters of every subject, their uncertainty, and F, by Laplace's method.

    F = −ln p(data | θ*) − ln p(θ*) + ½ ln |H| − ½ k ln 2π, H the curvature of the first two at θ*, all in
    unconstrained coordinates. θ* by Newton's method, damped so that no step rises, all subjects in one
    compiled program in float64.

    **Arguments:**

    - `log_likelihood`: a function of a dictionary of parameters and of one subject's data, in JAX.
    - `data`: a pytree of arrays, all with the subjects as their first axis.
    - `prior`: by name, `vfe.discrete.behaviour.real`, `positive` or `probability`.
    - `starts`: from how many places, the first the centre of the prior, the others drawn from it (with
      `key`); the best end is kept.
    - `tolerance`: the largest element of the gradient, nats per standard deviation of the prior, that
      counts as a minimum.
    - `devices`: JAX devices that share the subjects: `jax.devices()`, of all processes where there are
      several, which then all call this with the same data and get the same numbers.
    - `throw`: raise where a subject has no minimum; else its numbers are NaN and `converged` says so.

    **Raises:** `ValueError` for data without subjects and starts without a key; `vfe.DivergenceError`
    with the subjects that did not come to a minimum.

    **Example:**
    ```python
    def ln_p(parameters, chosen):
        return jax.nn.log_sigmoid((2 * chosen - 1) * parameters["bias"]).sum()
    prior = {"bias": vfe.discrete.behaviour.real(0.0, 2.0)}
    vfe.discrete.behaviour.fit_subjects(ln_p, np.array([[1, 1, 0], [0, 0, 1]]), prior=prior).value
    ```

    **Source:** MacKay 2003, chapter 27.
    """
    kept = Coordinates.of(prior)
    count = subjects_of(data)
    if starts < 1 or (starts > 1 and key is None):
        raise ValueError(f"fit_subjects: got starts={starts}, key={key}; wanted one, or several and a key.")
    centre = np.array([p.coordinate for p in prior.values()])
    spread = np.array([p.sd for p in prior.values()])
    with jax.enable_x64(True):
        begin = np.zeros((starts, len(centre)))
        if key is not None:
            begin[1:] = np.asarray(jax.random.normal(key, (starts - 1, len(centre))))
        found = laplace(
            log_likelihood, data, kept, centre, spread, begin, max_steps, tolerance, devices=devices
        )
        bad = np.flatnonzero(~np.asarray(found.converged))
        if throw and len(bad):
            left = np.asarray(found.gradient)[bad]
            raise DivergenceError(
                f"fit_subjects: no minimum for subjects {bad.tolist()[:20]} of {count}: gradients left "
                f"{[float(f'{g:.3g}') for g in left[:20]]}, wanted {tolerance:g}. Start from more places "
                "(starts=, key=), allow more steps (max_steps=), give narrower priors, or write "
                "throw=False to go on without them."
            )
        return found


def subjects_of(data: Any) -> int:
    """How many subjects the arrays of a pytree have along their first axis.

    **Raises:** `ValueError` for none, or where arrays differ.

    **Example:** `subjects_of(np.zeros((3, 10)))` is 3.
    """
    counts = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(counts) != 1 or counts <= {(), (0,)}:
        raise ValueError(
            f"data: got arrays with first axes {sorted(counts)}; wanted one axis of subjects for all."
        )
    return counts.pop()[0]


def laplace(
    log_likelihood: LogLikelihood,
    data: Any,
    kept: Coordinates,
    centre: Any,
    spread: Any,
    begin: Any,
    max_steps: int,
    tolerance: float,
    *,
    devices: Sequence[Any] | None = None,
) -> FittedSubjects:
    """As `fit_subjects`, with the prior as arrays (k,) and starts (starts, k) in units of the prior.

    `begin` may be (starts, subjects, k).

    **Example:** see `fit_subjects`, which calls it.
    """
    count = subjects_of(data)
    centre, spread, begin = (np.asarray(a, float) for a in (centre, spread, begin))
    if begin.ndim == 2:
        begin = np.broadcast_to(begin[:, None], (len(begin), count, begin.shape[-1]))
    mesh = None if devices is None else _mesh(devices)
    data, begin = _spread(mesh, data, count, 0), _spread(mesh, begin, count, 1)
    numbers = (centre, spread, begin, np.asarray(max_steps), np.asarray(tolerance, float))
    ends = _minima(log_likelihood, data, kept, *numbers)
    place, value, gradient, curvature = (np.asarray(a)[:, :count] for a in _gathered(mesh, ends))
    best = np.argmin(np.where(np.isfinite(value), value, np.inf), axis=0)
    chosen = (best, np.arange(count))
    place, value, gradient, curvature = place[chosen], value[chosen], gradient[chosen], curvature[chosen]
    sound = np.isfinite(value) & np.isfinite(curvature).all((1, 2)) & (gradient <= tolerance)
    k = place.shape[1]
    safe = np.where(sound[:, None, None], curvature, np.eye(k))
    sound &= np.linalg.eigvalsh(safe).min(-1) > 0
    gone = np.where(sound, 0.0, np.nan)
    safe = np.where(sound[:, None, None], curvature, np.eye(k))
    covariance = np.linalg.inv(safe) + gone[:, None, None]
    prior_energy = 0.5 * (place**2).sum(-1)
    surprise = value - prior_energy + gone
    width = np.trace(covariance, axis1=-2, axis2=-1)
    log_volume = 0.5 * k * np.log(2 * np.pi)
    terms: dict[str, Any] = {
        "observed": {"choices": surprise + 0.5 * (k - width)},
        "hidden": {"parameters": prior_energy + log_volume + 0.5 * width},
        "entropies": {
            "parameters": log_volume + 0.5 * k - 0.5 * np.linalg.slogdet(safe)[1] + gone,
        },
        "weight": np.ones(()),
    }
    free = FreeEnergy(
        error=None, kind=Kind.approximation, shared=(), order=("parameters", "choices"), **terms
    )
    u = np.asarray(centre) + np.asarray(spread) * (place + gone[:, None])
    values = jax.tree.map(np.asarray, kept.decode(jnp.asarray(u)))
    scale = np.asarray(spread)[:, None] * np.asarray(spread)
    found: dict[str, Any] = {
        "value": values,
        "coordinates": u,
        "covariance": covariance * scale,
        "log_likelihood": -surprise,
        "gradient": gradient,
        "converged": sound,
    }
    return FittedSubjects(free_energy=free, kept=kept, **found)


@eqx.filter_jit
def _minima(
    log_likelihood: LogLikelihood,
    data: Any,
    kept: Coordinates,
    centre: Any,
    spread: Any,
    begin: Float[Array, "starts subjects k"],
    max_steps: Any,
    tolerance: Any,
) -> tuple[Array, Array, Array, Array]:
    def one(begin: Array, data: Any) -> tuple[Array, Array, Array, Array]:
        def energy(v: Array) -> Array:
            parameters = kept.decode(centre + spread * v)
            return 0.5 * (v**2).sum() - log_likelihood(parameters, data)

        return newton(energy, begin, max_steps, tolerance)

    return jax.vmap(jax.vmap(one), in_axes=(0, None))(begin, data)


def newton(
    energy: Callable[[Array], Array], begin: Array, max_steps: Any, tolerance: Any
) -> tuple[Array, Array, Array, Array]:
    """A minimum (k,), the value, the largest element of the gradient, and the curvature there.

    Each step solves (|H| + λ) δ = −g with the curvature's eigenvalues made positive, so that saddles repel;
    λ grows until the energy falls. One evaluation per step, which suits many minima at once.

    **Example:** `newton(lambda x: ((x - 1) ** 2).sum(), jnp.zeros(2), 100, 1e-6)`.

    **Source:** Nocedal and Wright 2006, chapter 3.4; Dauphin et al. 2014 (the eigenvalues).
    """

    def twice(v: Array) -> tuple[Array, Array]:
        value = energy(v)
        return value, value

    # Forward twice: of a few numbers, five times as fast as backwards through a long series.
    def look(v: Array) -> tuple[Array, Array, Array]:
        def slope(v: Array) -> tuple[Array, tuple[Array, Array]]:
            gradient, value = jax.jacfwd(twice, has_aux=True)(v)
            return gradient, (value, gradient)

        curvature, (value, gradient) = jax.jacfwd(slope, has_aux=True)(v)
        return value, gradient, 0.5 * (curvature + curvature.T)

    def go_on(carry: Any) -> Array:
        step, _, _, (value, gradient, _), damping = carry
        left = jnp.abs(gradient).max()
        # Without a finite value at the first place there is nothing to descend from.
        hope = jnp.isfinite(value) | (step == 0)
        return (step < max_steps) & hope & (left > tolerance) & (damping < 1e12)

    # The energy is written once in the program: compiling it is what a first call waits for.
    def advance(carry: Any) -> Any:
        step, trial, place, now, damping = carry
        there = look(trial)
        sound = jnp.isfinite(there[0]) & jnp.isfinite(there[1]).all() & jnp.isfinite(there[2]).all()
        # Near the minimum the energy no longer resolves the fall that the gradient still shows.
        better = sound & (there[0] <= now[0] + 1e-13 * (1 + jnp.abs(there[0])))

        def keep(a: Array, b: Array) -> Array:
            return jnp.where(better, a, b)

        place, now = keep(trial, place), jax.tree.map(keep, there, now)
        damping = jnp.where(better, damping / 10, jnp.maximum(10 * damping, 1e-2))
        damping = jnp.where(damping < 1e-4, 0.0, damping)
        sizes, axes = jnp.linalg.eigh(now[2])
        sizes = jnp.maximum(jnp.abs(sizes), 1e-6) + damping
        trial = place - axes @ ((axes.T @ now[1]) / sizes)
        return step + 1, trial, place, now, damping

    nothing = (jnp.full((), jnp.inf, begin.dtype), jnp.full_like(begin, jnp.inf), jnp.eye(len(begin)))
    carry = (jnp.zeros((), int), begin, begin, nothing, jnp.zeros((), begin.dtype))
    _, _, place, (value, gradient, curvature), _ = jax.lax.while_loop(go_on, advance, carry)
    return place, value, jnp.abs(gradient).max(), curvature


def _mesh(devices: Sequence[Any]) -> Mesh:
    found = list(devices)
    if not found or not all(isinstance(d, jax.Device) for d in found) or len(set(found)) < len(found):
        raise ValueError(
            f"fit_subjects: got devices={devices!r}; wanted different JAX devices, such as jax.devices()."
        )
    return Mesh(np.asarray(found), ("subjects",), axis_types=(AxisType.Auto,))


def _spread(mesh: Mesh | None, tree: Any, count: int, axis: int) -> Any:
    """Arrays with the subjects of an axis spread over devices, the last repeated until they divide evenly.

    Of several processes each has all the arrays, and gives its devices their part.
    """
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, "subjects"))
    take = np.minimum(np.arange(-(-count // mesh.size) * mesh.size), count - 1)

    def put(leaf: Any) -> Array:
        whole = np.take(np.asarray(leaf), take, axis)
        whole = whole.astype(jax.dtypes.canonicalize_dtype(whole.dtype))
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(put, tree)


def _gathered(mesh: Mesh | None, arrays: Any) -> Any:
    """The whole arrays, in every process."""
    if mesh is None:
        return arrays
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))(arrays)
