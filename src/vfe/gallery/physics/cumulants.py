"""Free energy generates cumulants: derivatives of ln Z in a source are what is connected.

A source J tilts a density, Z(J) = Σ_z p(z) exp(J z). As a model: evidence s = 1 with p(s = 1 | z) =
exp(J z − c) has −F = ln p(s = 1) = ln Z(J) − c at the exact belief, so derivatives of minus the free energy
in J, by automatic differentiation, are the cumulants of z:

    ∂ⁿ ln Z/∂Jⁿ = κ_n,   ∂² ln Z/∂J_i ∂J_j = ⟨z_i z_j⟩ − ⟨z_i⟩⟨z_j⟩, and so on (connected functions).

Sensory input is a source too: where x = z + noise of variance σ², ln p(x) + x²/2σ² is ln Z up to a constant
with J = x/σ², so its derivatives are the cumulants of the *posterior*: the mean, the variance, the skew of
what is believed.

Expected: agreement to 1e-10 in double precision with cumulants from sums over all states (of moments up to
order 6; of products of deviations for three nodes), and with the exact posterior; zero for connected
functions with a node that is independent, and for the third cumulant of a Gaussian.

Refuted by: any of these differences above 1e-10. Derivatives of Z in the place of ln Z, which are moments,
fail.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import vfe
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.settings import about

# Five states 0 … 4.
PRIOR = np.array(
    [
        0.29927266982747547,
        0.4487766273694334,
        0.008717921248874971,
        0.000998846282454981,
        0.2422339352717613,
    ]
)
# What keeps exp(J z − c) a probability for all sources used here.
MOST = 12.0
# A common cause a of b and c; d by itself.
CAUSE = np.array([0.3, 0.7])
B_GIVEN_A = np.array([[0.9, 0.35], [0.1, 0.65]])
C_GIVEN_A = np.array([[0.6, 0.15], [0.4, 0.85]])
ALONE = np.array([0.45, 0.55])
NODES = ("a", "b", "c", "d")
NOISE = 0.6


@dataclasses.dataclass(frozen=True)
class Settings:
    """How far derivatives go, and where the posterior is looked at."""

    orders: int = about("derivatives of ln Z, 3 to 8", 6)
    inputs: int = about("values of x at which the posterior is looked at", 41)

    def __post_init__(self) -> None:
        if not 3 <= self.orders <= 8:
            raise ValueError(f"cumulants: got orders={self.orders}; wanted 3 to 8.")
        if self.inputs < 3:
            raise ValueError(f"cumulants: got inputs={self.inputs}; wanted at least 3.")


def log_partition(source: Array) -> Array:
    """ln Z(J) of the prior over five states, as evidence of a model. **Example:** `log_partition(0.5)`."""
    model = vfe.Model(z=vfe.categorical(PRIOR), s=_source(source * jnp.arange(5.0), "z"))
    return vfe.exact.log_evidence(model, {"s": 1}) + MOST


def joint_log_partition(sources: Array) -> Array:
    """ln Z(J_a, J_b, J_c, J_d) of four binary nodes. **Example:** `joint_log_partition(jnp.zeros(4))`."""
    nodes: dict[str, Any] = {
        "a": vfe.categorical(CAUSE),
        "b": vfe.categorical(B_GIVEN_A, parents="a"),
        "c": vfe.categorical(C_GIVEN_A, parents="a"),
        "d": vfe.categorical(ALONE),
    }
    for k, name in enumerate(NODES):
        nodes[f"source of {name}"] = _source(sources[k] * jnp.arange(2.0), name)
    seen = {f"source of {name}": 1 for name in NODES}
    return vfe.exact.log_evidence(vfe.Model(**nodes), seen) + len(NODES) * MOST


def _source(exponent: Array, parent: str) -> Any:
    """Evidence that counts exp(exponent) for each state of its parent, up to a constant."""
    seen = exponent - MOST
    return vfe.categorical(
        logits=vfe.learnable(jnp.stack([jnp.log1p(-jnp.exp(seen)), seen])), parents=parent
    )


def sensor(spread: Any) -> vfe.Model:
    """z around −1 or 1 (spread 0: one Gaussian), x = z + noise. **Example:** `sensor(1.0)`."""
    return vfe.Model(
        k=vfe.categorical(np.array([0.35, 0.65])),
        z=vfe.gaussian(vfe.Table(spread * jnp.array([[-1.0], [1.0]])), scale=0.5, parents="k"),
        x=vfe.gaussian(vfe.Affine(jnp.eye(1)), scale=NOISE, parents="z"),
    )


def derivatives(function: Callable[[Array], Array], orders: int) -> Callable[[Array], Array]:
    """The first derivatives of a function of one number, (orders,), as a function of it.

    **Example:** `derivatives(log_partition, 3)(jnp.zeros(()))`.
    """

    def differentiated(lower: Callable[[Array], Array]) -> Callable[[Array], Array]:
        def both(at: Array) -> Array:
            values, slopes = jax.jvp(lower, (at,), (jnp.ones_like(at),))
            return jnp.append(values, slopes[-1])

        return both

    found: Callable[[Array], Array] = lambda at: function(at)[None]  # noqa: E731
    for _ in range(orders):
        found = differentiated(found)
    return lambda at: found(at)[1:]


def cumulants_of(values: np.ndarray, weights: np.ndarray, orders: int) -> np.ndarray:
    """κ_1 … κ_n from sums: κ_n = m_n − Σ_k C(n − 1, k − 1) κ_k m_{n − k}, m moments.

    **Example:** `cumulants_of(np.arange(5), PRIOR, 3)`.
    """
    moments = [float((weights * values**n).sum()) for n in range(orders + 1)]
    found: list[float] = []
    for n in range(1, orders + 1):
        lower = sum(math.comb(n - 1, k - 1) * found[k - 1] * moments[n - k] for k in range(1, n))
        found.append(moments[n] - lower)
    return np.array(found)


class Connected(NamedTuple):
    """Derivatives of ln Z in the sources of a, b, c and d, and what sums over all 16 states say."""

    pairs: np.ndarray
    pairs_by_sums: np.ndarray
    triple: float
    triple_by_sums: float


def connected() -> Connected:
    """⟨z_i z_j⟩ − ⟨z_i⟩⟨z_j⟩ for all pairs, and ⟨δa δb δc⟩. **Example:** `connected().pairs`."""
    pairs = np.asarray(jax.jit(jax.hessian(joint_log_partition))(jnp.zeros(4)))

    def along(k: int, function: Callable[[Array], Array]) -> Callable[[Array], Array]:
        return lambda j: jax.jvp(function, (j,), (jnp.eye(4)[k],))[1]

    triple = jax.jit(along(0, along(1, along(2, joint_log_partition))))(jnp.zeros(4))
    joint = np.einsum("a,ba,ca,d->abcd", CAUSE, B_GIVEN_A, C_GIVEN_A, ALONE)
    states = np.indices(joint.shape).astype(float)
    deviation = states - (states * joint).sum((1, 2, 3, 4), keepdims=True)
    covariance = np.einsum("iabcd,jabcd,abcd->ij", deviation, deviation, joint)
    return Connected(pairs, covariance, float(triple), float((deviation[:3].prod(0) * joint).sum()))


class Posterior(NamedTuple):
    """By value of x: cumulants 1 to 3 of the posterior, (inputs, 3), from derivatives of ln p(x), and
    those of the exact belief."""

    x: np.ndarray
    derived: np.ndarray
    exact: np.ndarray


def posterior(settings: Settings, spread: float) -> Posterior:
    """What ln p(x) knows of the belief. **Example:** `posterior(Settings(), 1.0).derived`."""
    model, x = sensor(spread), np.linspace(-3, 3, settings.inputs)
    belief: Any = vfe.exact.posterior(model, {"x": x[:, None]})
    weight, parts = np.asarray(belief.probabilities), belief["z"].parts
    mean, variance = (np.asarray(a)[..., 0] for a in (parts.mean, parts.variance))
    centre = (weight * mean).sum(-1)
    off = mean - centre[:, None]
    exact = [
        centre,
        (weight * (variance + off**2)).sum(-1),
        (weight * (off**3 + 3 * off * variance)).sum(-1),
    ]
    return Posterior(x, np.asarray(_by_source(jnp.asarray(x / NOISE**2), spread)), np.stack(exact, -1))


@jax.jit
def _by_source(sources: Array, spread: Array) -> Array:
    """Derivatives of ln p(x) + x²/2σ² in x/σ², (inputs, 3)."""

    def generating(source: Array) -> Array:
        seen = source * NOISE**2
        return vfe.exact.log_evidence(sensor(spread), {"x": seen[None]}) + 0.5 * seen**2 / NOISE**2

    return jax.vmap(derivatives(generating, 3))(sources)


class Found(NamedTuple):
    """Everything the experiment measured. `derived`: derivatives of ln Z at J = 0; `summed`: cumulants."""

    derived: np.ndarray
    summed: np.ndarray
    connected: Connected
    mixture: Posterior
    gaussian: Posterior
    sources: np.ndarray
    log_partition: np.ndarray


def measure(settings: Settings, generating: Callable[[Array], Array] = log_partition) -> Found:
    """All of it; `generating`: the function whose derivatives are said to be cumulants.

    **Example:** `measure(Settings()).derived`.
    """
    sources = np.linspace(-2, 2, 81)
    return Found(
        np.asarray(jax.jit(derivatives(generating, settings.orders))(jnp.zeros(()))),
        cumulants_of(np.arange(5.0), PRIOR, settings.orders),
        connected(),
        posterior(settings, 1.0),
        posterior(settings, 0.0),
        sources,
        np.asarray(jax.jit(jax.vmap(log_partition))(jnp.asarray(sources))),
    )


def partition(source: Array) -> Array:
    """Z itself, whose derivatives are moments: what fails here. **Example:** `partition(0.0)`."""
    return jnp.exp(log_partition(source))


def series(found: Found, order: int) -> np.ndarray:
    """Σ_n κ_n Jⁿ/n! up to an order, at the sources. **Example:** `series(found, 2)`."""
    terms = [found.derived[n - 1] * found.sources**n / math.factorial(n) for n in range(1, order + 1)]
    return functools.reduce(np.add, terms)


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Derivatives of free energies, and the cumulants that they are: figure generating.png; result.nc holds
    both, connected functions, and the posterior's cumulants by input.

    **Example:** `vfe run cumulants`.
    """
    from vfe.gallery.physics.cumulants_page import write_up

    with jax.enable_x64(True):
        progress.start("derivatives", 1)
        found = measure(settings)
        progress.step()
        progress.done()
    return write_up(settings, found)
