"""A dynamic model as the schemes see it: per sample, its levels stacked, its free parameters in one
vector."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from vfe.dynamics.levels.dependence import depends_on
from vfe.dynamics.levels.smoothness import derivative_operator, smoothness_precision


class Learned(NamedTuple):
    """What is believed of parameters and log-precisions while the states move."""

    p: Float[Array, " p"]
    p_covariance: Float[Array, "p p"]
    log_precisions: Float[Array, " h"]
    log_precision_covariance: Float[Array, "h h"]


class Block(eqx.Module):
    """One noise of one level: R ⊗ (V + Σ_j exp(λ_j) Q_j), per sample, on some rows of the errors."""

    orders: Float[np.ndarray, "n n"]
    fixed: Float[np.ndarray, "k k"]
    components: Float[np.ndarray, "m k k"]
    rows: np.ndarray
    name: str = eqx.field(static=True)
    start: int = eqx.field(static=True)
    first: int = eqx.field(static=True)

    def precision(self, log_precisions: Float[Array, " all"]) -> Float[Array, "k k"]:
        own = jnp.exp(log_precisions[self.first : self.first + len(self.components)])
        return jnp.asarray(self.fixed) + jnp.tensordot(own, self.components, 1)

    @property
    def own(self) -> slice:
        return slice(self.first, self.first + len(self.components))


class Problem(eqx.Module):
    """The arrays and sizes that a scheme needs; made once, with the model.

    u stacks the orders of all states, then the orders of all causes; ẽ the orders of (y, causes) − (g, η),
    then the orders of dx/dt − f. Parameters are E + B p, with B an orthonormal basis of the range of their
    prior covariance.
    """

    observes: tuple[Callable, ...]
    flows: tuple[Callable | None, ...]
    blocks: tuple[Block, ...]
    parameters: Float[np.ndarray, " all"]
    basis: Float[np.ndarray, "all p"]
    prior_precision: Float[np.ndarray, "p p"]
    log_precision_mean: Float[np.ndarray, " h"]
    log_precision_variance: Float[np.ndarray, " h"]
    states: Float[np.ndarray, " x"]
    top_causes: Float[np.ndarray, " c"]
    data_errors: Float[np.ndarray, "e ny"]
    prior_errors: Float[np.ndarray, "e nc"]
    state_shift: Float[np.ndarray, "u u"]
    data_shift: Float[np.ndarray, "m m"]
    counted: np.ndarray
    believed: np.ndarray
    structures: tuple[Any, ...] = eqx.field(static=True)
    state_sizes: tuple[int, ...] = eqx.field(static=True)
    cause_sizes: tuple[int, ...] = eqx.field(static=True)
    data_size: int = eqx.field(static=True)
    n: int = eqx.field(static=True)
    d: int = eqx.field(static=True)
    dt: float = eqx.field(static=True)
    constant: bool = eqx.field(static=True)

    @property
    def nx(self) -> int:
        return sum(self.state_sizes)

    @property
    def nv(self) -> int:
        return sum(self.cause_sizes)

    @property
    def ny(self) -> int:
        return self.data_size

    @property
    def nc(self) -> int:
        return self.cause_sizes[-1]

    @property
    def nz(self) -> int:
        return self.ny + self.nv

    @property
    def nu(self) -> int:
        return self.n * self.nx + self.d * self.nv

    @property
    def ne(self) -> int:
        return self.n * (self.nz + self.nx)

    @property
    def np(self) -> int:
        return self.basis.shape[1]

    @property
    def nh(self) -> int:
        return len(self.log_precision_mean)

    def prior(self) -> Learned:
        """The prior means of parameters and log-precisions, as if they were known."""
        one, two = jnp.zeros((self.np, self.np)), jnp.zeros((self.nh, self.nh))
        return Learned(jnp.zeros(self.np), one, jnp.asarray(self.log_precision_mean), two)

    def full(self, p: Float[Array, " p"]) -> Float[Array, " all"]:
        """All parameters, from the free ones."""
        return jnp.asarray(self.parameters) + self.basis @ p

    def unravel(self, parameters: Float[Array, " all"]) -> tuple[Any, ...]:
        """The parameters of every level, as the pytrees that its functions take."""
        start, levels = 0, []
        for tree, shapes in self.structures:
            leaves = []
            for shape in shapes:
                size = int(np.prod(shape))
                leaves.append(parameters[start : start + size].reshape(shape))
                start += size
            levels.append(jax.tree.unflatten(tree, leaves))
        return tuple(levels)

    def equations(
        self, x: Float[Array, " x"], v: Float[Array, " v"], p: Float[Array, " p"]
    ) -> Float[Array, " rows"]:
        """(g, 0) − (0, v), then f per sample, all levels: what is subtracted from (y, −η) and dx."""
        parameters = self.unravel(self.full(p))
        xs = _split(x, self.state_sizes)
        vs = _split(v, self.cause_sizes)
        g = [o(a, b, c) for o, a, b, c in zip(self.observes, xs, vs, parameters, strict=True)]
        f = [
            self.dt * flow(a, b, c)
            for flow, a, b, c in zip(self.flows, xs, vs, parameters, strict=True)
            if flow is not None
        ]
        predicted = jnp.concatenate([*g, jnp.zeros(self.nc)])
        return jnp.concatenate([predicted - jnp.concatenate([jnp.zeros(self.ny), v]), *f])

    def jacobian(
        self, x: Float[Array, " x"], v: Float[Array, " v"], p: Float[Array, " p"]
    ) -> Float[Array, "rows xv"]:
        """Of `equations` in (x, v)."""
        if not self.nv:
            # Derivatives in nothing at all: XLA fails on empty arrays in a loop with a factorisation.
            return jax.jacfwd(self.equations)(x, v, p)
        return jnp.concatenate(jax.jacfwd(self.equations, (0, 1))(x, v, p), 1)

    def precision_matrix(self, log_precisions: Float[Array, " h"]) -> Float[Array, "e e"]:
        """Π of all orders of all errors."""
        whole = jnp.zeros((self.ne, self.ne))
        for block in self.blocks:
            value = jnp.kron(block.orders, block.precision(log_precisions))
            whole = whole.at[block.rows[:, None], block.rows].set(value)
        return whole

    def start(self) -> Float[Array, " u"]:
        """u at the first sample: the given start, causes below the top as predicted, higher orders zero."""
        xs, parameters = (
            _split(jnp.asarray(self.states), self.state_sizes),
            self.unravel(jnp.asarray(self.parameters)),
        )
        v, vs = jnp.asarray(self.top_causes), [jnp.asarray(self.top_causes)]
        for number in range(len(xs) - 1, 0, -1):
            v = self.observes[number](xs[number], v, parameters[number])
            vs.insert(0, v)
        x = jnp.zeros((self.n, self.nx)).at[0].set(self.states)
        causes = jnp.zeros((self.d, self.nv)).at[0].set(jnp.concatenate(vs))
        return jnp.concatenate([x.ravel(), causes.ravel()])

    def errors_of(self, block: Block, errors: Float[Array, "*time e"]) -> Float[Array, "*time n k"]:
        """The errors of one noise, by order: those of `block.rows`."""
        cut, k = self.n * self.nz, len(block.fixed)
        data = block.start < self.nz
        own = errors[..., :cut] if data else errors[..., cut:]
        own = own.reshape(*errors.shape[:-1], self.n, self.nz if data else self.nx)
        start = block.start if data else block.start - self.nz
        return own[..., start : start + k]

    def orders(self, u: Float[Array, " u"]) -> tuple[Float[Array, "n x"], Float[Array, "n v"]]:
        """States and causes by order, the orders that causes lack being zero."""
        cut = self.n * self.nx
        x, v = u[:cut].reshape(self.n, self.nx), u[cut:].reshape(self.d, self.nv)
        return x, jnp.concatenate([v, jnp.zeros((self.n - self.d, self.nv))])


def _split(value: Array, sizes: tuple[int, ...]) -> list[Array]:
    bounds = np.cumsum((0, *sizes))
    return [value[a:b] for a, b in itertools.pairwise(bounds)]


# Noise of a precision this high is taken for none: its errors are left out of F, its states have no
# variance.
EXACT = np.exp(16)


def make_problem(model: Any) -> Problem:
    """The problem of a `vfe.DynamicModel`."""
    levels = model.levels
    n, d = model.order + 1, model.cause_order + 1
    nx, nv, ny = sum(model.state_sizes), sum(model.cause_sizes), model.data_size
    nz, nc = ny + nv, model.cause_sizes[-1]
    blocks, means, variances = [], [], []

    def add(name, precision, size, smoothness, start, per_sample=1.0):
        if not size:
            return
        fixed, components = precision.expand(size, name)
        offset, width = (0, nz) if start < nz else (n * nz - nz, nx)
        rows = (offset + start + np.arange(n)[:, None] * width + np.arange(size)).ravel()
        first = sum(len(m) for m in means)
        means.append(precision.mean)
        variances.append(precision.variance)
        R = smoothness_precision(n, smoothness)
        blocks.append(Block(R, fixed * per_sample, components * per_sample, rows, name, start, first))

    at = 0
    for number, level in enumerate(levels):
        size = ny if number == 0 else model.cause_sizes[number - 1]
        smoothness = model.smoothness_in_samples(number)[0]
        add(f"observation {number + 1}", level.observation_precision, size, smoothness, at)
        at += size
    add("causes", levels[-1].cause_precision, nc, model.smoothness_in_samples(len(levels))[0], at)
    at = nz
    for number, level in enumerate(levels):
        size, smoothness = level.states.size, model.smoothness_in_samples(number)[1]
        add(f"states {number + 1}", level.state_precision, size, smoothness, at, model.dt**-2)
        at += size
    diagonal = np.zeros(n * (nz + nx))
    for block in blocks:
        diagonal[block.rows] = np.kron(np.diag(block.orders), np.diag(block.fixed))

    leaves = [jax.tree.flatten(level.parameters) for level in levels]
    parameters = np.concatenate([np.zeros(0), *(np.ravel(a) for own, _ in leaves for a in own)])
    covariance = _diagonal(*(level.parameter_covariance for level in levels))
    covariance = covariance.reshape(len(parameters), len(parameters))
    basis = _basis(covariance)
    prior = np.linalg.inv(basis.T @ covariance @ basis)

    order = np.arange(n)
    data_errors = np.zeros((n * (nz + nx), n * ny))
    data_errors[(order[:, None] * nz + np.arange(ny)).ravel(), np.arange(n * ny)] = 1
    prior_errors = np.zeros((n * (nz + nx), d * nc))
    prior_errors[(order[:d, None] * nz + nz - nc + np.arange(nc)).ravel(), np.arange(d * nc)] = -1

    def build(constant: bool) -> Problem:
        return Problem(
            observes=tuple(level.observe for level in levels),
            flows=tuple(level.flow for level in levels),
            blocks=tuple(blocks),
            parameters=parameters,
            basis=basis,
            prior_precision=prior,
            log_precision_mean=np.concatenate([np.zeros(0), *means]),
            log_precision_variance=np.concatenate([np.zeros(0), *variances]),
            states=np.concatenate([level.states for level in levels]),
            top_causes=levels[-1].causes,
            data_errors=data_errors,
            prior_errors=prior_errors,
            state_shift=_diagonal(derivative_operator(n, nx), derivative_operator(d, nv)),
            data_shift=_diagonal(derivative_operator(n, ny), derivative_operator(d, nc)),
            counted=diagonal < EXACT,
            believed=np.concatenate([diagonal[n * nz :] < EXACT, np.ones(d * nv, bool)]),
            structures=tuple((tree, tuple(a.shape for a in own)) for own, tree in leaves),
            state_sizes=model.state_sizes,
            cause_sizes=model.cause_sizes,
            data_size=ny,
            n=n,
            d=d,
            dt=model.dt,
            constant=constant,
        )

    problem = build(False)
    with jax.enable_x64(True):
        x, v, p = np.zeros(nx), np.zeros(nv), np.zeros(basis.shape[1])
        in_x, in_v, _ = depends_on(problem.jacobian, x, v, p)
    return build(not (in_x or in_v))


def _diagonal(*blocks: np.ndarray) -> np.ndarray:
    return np.asarray(scipy.linalg.block_diag(*blocks))


def _basis(covariance: np.ndarray) -> np.ndarray:
    variance = np.diag(covariance)
    if not (covariance - np.diag(variance)).any():
        return np.eye(len(variance))[:, variance > 0]
    values, vectors = np.linalg.eigh(covariance)
    free = values > 1e-14 * values.max()
    return vectors[:, free][:, ::-1]
