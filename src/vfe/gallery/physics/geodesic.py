"""Learning is a geodesic: natural gradients go the same way in any parametrisation, plain ones do not.

A Gaussian belief q(z) = N(m, s²) about the cause of one observation descends the same F in three
parametrisations φ: (m, ln s), (m, s²) and the natural parameters (m/s², −1/2s²). Plain gradient:
φ ← φ − h ∂F/∂φ. Natural gradient: φ ← φ − h G⁻¹ ∂F/∂φ, G the Fisher information of q, which is the second
derivative of KL(q ‖ q′) in the parameters of q′.

Expected: as h → 0 natural paths from one start come together, their largest distance at equal times
falling linearly with h; those of the plain gradient stay apart. In natural parameters one step with h = 1
is the posterior, where F = −ln p(x); in the other parametrisations it is not. A conditional whose mean is
affine is learned in one step with h = 1 at fixed beliefs (G by conjugate gradients:
`vfe.natural_descent`), where the plain gradient, with the best step along each direction, needs many.

Refuted by: a distance of natural paths that does not fall with h, or that of plain ones that does; a unit
step in natural parameters that leaves F above −ln p(x).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

import vfe
from vfe.conditioning import condition
from vfe.densities import divergence
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.settings import about


@dataclasses.dataclass(frozen=True)
class Settings:
    """The belief to start from, how finely it moves, and the data a conditional is learned from."""

    mean: float = about("m at the start", -1.5)
    scale: float = about("s at the start", 1.6)
    time: float = about("length of the paths: steps times their size", 1.0)
    finest: int = about("steps of the finest path, a power of two of at least 32", 1024)
    observations: int = about("to learn a conditional from", 200)
    plain_steps: int = about("steps of plain gradient descent on it", 100)

    def __post_init__(self) -> None:
        if not (self.scale > 0 and self.time > 0):
            raise ValueError(
                f"geodesic: got scale={self.scale} and time={self.time}; wanted more than zero."
            )
        if self.finest < 32 or self.finest & (self.finest - 1):
            raise ValueError(f"geodesic: got finest={self.finest}; wanted a power of two of at least 32.")
        if self.observations < 10 or self.plain_steps < 2:
            raise ValueError(
                f"geodesic: got observations={self.observations} and plain_steps={self.plain_steps}; "
                "wanted "
                "at least 10 and 2."
            )


class Parametrisation(NamedTuple):
    """How (m, s) and parameters φ belong to each other."""

    to: Callable[[Array, Array], Array]
    back: Callable[[Array], tuple[Array, Array]]


PARAMETRISATIONS = {
    "(m, ln s)": Parametrisation(
        lambda m, s: jnp.stack([m, jnp.log(s)]), lambda phi: (phi[0], jnp.exp(phi[1]))
    ),
    "(m, s²)": Parametrisation(lambda m, s: jnp.stack([m, s**2]), lambda phi: (phi[0], jnp.sqrt(phi[1]))),
    "natural (m/s², −1/2s²)": Parametrisation(
        lambda m, s: jnp.stack([m / s**2, -0.5 / s**2]),
        lambda phi: (-0.5 * phi[0] / phi[1], jnp.sqrt(-0.5 / phi[1])),
    ),
}
NATURAL = "natural (m/s², −1/2s²)"
OBSERVED = 1.2


def world() -> vfe.Model:
    """z ~ N(0, 1), x ~ N(1.5 z, 0.8²). **Example:** `vfe.exact.posterior(world(), {"x": [1.2]})`."""
    return vfe.Model(
        z=vfe.gaussian(jnp.zeros(1)), x=vfe.gaussian(vfe.Affine(jnp.array([[1.5]])), scale=0.8, parents="z")
    )


def free_energy(m: Array, s: Array) -> Array:
    """F of the belief N(m, s²) given what is observed, nats. **Example:** `free_energy(0.5, 0.4)`."""
    model, x = world(), jnp.array([OBSERVED])
    conditioned, _ = condition(model, {"x": x})
    belief = vfe.DiagonalGaussian(conditioned.layout, jnp.reshape(m, 1), jnp.log(jnp.reshape(s, 1)))
    return vfe.free_energy(model, belief, {"x": x}).total


def direction(name: str, natural: bool) -> Callable[[Array], Array]:
    """The gradient of F at φ, or G⁻¹ times it. **Example:** `direction(NATURAL, True)(phi)`."""
    back = PARAMETRISATIONS[name].back

    def apart(phi: Array, other: Array) -> Array:
        one, two = (dist.Normal(*back(p)) for p in (phi, other))
        return divergence(one, two)

    def along(phi: Array) -> Array:
        slope = jax.grad(lambda p: free_energy(*back(p)))(phi)
        if not natural:
            return slope
        return jnp.linalg.solve(jax.hessian(apart, argnums=1)(phi, phi), slope)

    return along


class Paths(NamedTuple):
    """`sizes`: steps h; `gaps`: the largest distance between paths in (m, ln s) at equal times, by h;
    `finest`: (time, 2), (m, s) along the finest path, by parametrisation."""

    sizes: np.ndarray
    gaps: np.ndarray
    finest: dict[str, np.ndarray]

    @property
    def exponent(self) -> float:
        """k in gap ∝ h^k, from the two finest paths."""
        return float(np.log2(self.gaps[-2] / self.gaps[-1]))


def paths(settings: Settings, natural: bool) -> Paths:
    """Paths in all parametrisations, with 16 steps, 32 and so on to the finest.

    **Example:** `paths(Settings(), natural=True).exponent`.
    """
    counts = [16 * 2**k for k in range(settings.finest.bit_length() - 4)]
    found: dict[str, list[np.ndarray]] = {}
    finest: dict[str, np.ndarray] = {}
    for name, (to, back) in PARAMETRISATIONS.items():
        along = direction(name, natural)

        @jax.jit
        def walk(phi: Array, size: Array, along: Any = along, back: Any = back) -> Array:
            def step(phi: Array, _: None) -> tuple[Array, Array]:
                return phi - size * along(phi), jnp.stack(back(phi))

            return jax.lax.scan(step, phi, None, length=settings.finest)[1]

        start = to(jnp.asarray(settings.mean), jnp.asarray(settings.scale))
        found[name] = []
        for count in counts:
            # Every path takes `finest` steps; of the coarser ones the first `count` are within the time.
            walked = np.asarray(walk(start, jnp.asarray(settings.time / count)))[:count]
            found[name].append(walked[:: count // 16])
            finest[name] = walked
    gaps = []
    for k in range(len(counts)):
        seen = [np.stack([p[k][:, 0], np.log(p[k][:, 1])], -1) for p in found.values()]
        gaps.append(max(np.linalg.norm(a - b, axis=-1).max() for a in seen for b in seen))
    return Paths(settings.time / np.array(counts), np.array(gaps), finest)


class UnitStep(NamedTuple):
    """F before and after one natural step with h = 1, nats; NaN where it leaves the parameters' domain."""

    before: float
    after: dict[str, float]
    surprise: float

    def excess(self, name: str) -> float:
        """F + ln p(x) after the step: zero at the posterior, infinite where there is no belief left."""
        excess = self.after[name] - self.surprise
        return excess if np.isfinite(excess) else np.inf


def unit_steps(settings: Settings) -> UnitStep:
    """One natural step of h = 1 in each parametrisation. **Example:** `unit_steps(Settings()).after`."""
    m, s = jnp.asarray(settings.mean), jnp.asarray(settings.scale)
    after = {}
    for name, (to, back) in PARAMETRISATIONS.items():
        along = direction(name, True)

        @jax.jit
        def stepped(phi: Array, back: Any = back, along: Any = along) -> Array:
            return free_energy(*back(phi - along(phi)))

        after[name] = float(stepped(to(m, s)))
    surprise = -float(vfe.exact.log_evidence(world(), {"x": jnp.array([OBSERVED])}))
    return UnitStep(float(free_energy(m, s)), after, surprise)


class Conjugates(NamedTuple):
    """F of conjugate models before and after one natural step with h = 1, and −ln p(x), nats, by belief."""

    before: dict[str, float]
    after: dict[str, float]
    surprise: dict[str, float]

    @property
    def excess(self) -> float:
        """The largest F + ln p(x) after the step."""
        return max(abs(self.after[name] - self.surprise[name]) for name in self.after)


def conjugates() -> Conjugates:
    """One step of `vfe.NaturalGradient` in four conjugate models. **Example:** `conjugates().excess`.

    Surprise in closed form: by the library where it has one, else from ratios of gamma functions.
    """
    from scipy.special import gammaln

    normal = vfe.Model(
        z=vfe.gaussian(jnp.zeros(2)),
        x=vfe.gaussian(vfe.Affine(jnp.array([[1.0, 0.5], [-0.3, 2.0]])), scale=0.6, parents="z"),
    )
    states = vfe.Model(
        s=vfe.categorical(np.array([0.2, 0.3, 0.5])),
        x=vfe.categorical(np.array([[0.7, 0.2, 0.1], [0.3, 0.8, 0.9]]), parents="s"),
    )
    alpha, seen = np.array([1.0, 2.0, 0.5]), np.array([0, 0, 2, 1, 0, 2, 0])
    table = vfe.Model(t=vfe.dirichlet(alpha, shared=True), x=vfe.categorical(lambda t: t, parents="t"))
    counts, events = np.bincount(seen), np.array([3, 1, 4, 1, 5])
    rate = vfe.Model(
        t=vfe.gamma(2.0, 0.5, shared=True), x=vfe.conditional(lambda t: dist.Poisson(t), parents="t")
    )
    a, b = 2.0 + events.sum(), 0.5 + len(events)
    two = jnp.array([1.0, -2.0])
    cases: dict[str, tuple[vfe.Model, Any, Any, float]] = {
        "normal": (normal, two, vfe.JointGaussian, -float(vfe.exact.log_evidence(normal, {"x": two}))),
        "categorical": (states, 1, vfe.Categorical, -float(vfe.exact.log_evidence(states, {"x": 1}))),
        "Dirichlet": (table, seen, vfe.Conjugate(), float(_ln_beta(alpha) - _ln_beta(alpha + counts))),
        "gamma": (
            rate,
            events,
            vfe.Conjugate(),
            float(gammaln(2.0) - 2 * np.log(0.5) - gammaln(a) + a * np.log(b) + gammaln(events + 1).sum()),
        ),
    }
    before, after, surprise = {}, {}, {}
    for name, (model, x, belief, exact) in cases.items():
        percept = vfe.perceive(
            model,
            {"x": x},
            belief=belief,
            solver=vfe.NaturalGradient(),
            # Few draws are enough for averages that are exact.
            expectation=vfe.MonteCarlo(16) if isinstance(belief, vfe.Conjugate) else None,
            max_steps=1,
            throw=False,
        )
        before[name], after[name] = float(percept.trace[0]), float(percept.free_energy.total)
        surprise[name] = exact
    return Conjugates(before, after, surprise)


def _ln_beta(alpha: np.ndarray) -> float:
    from scipy.special import gammaln

    return gammaln(alpha).sum() - gammaln(alpha.sum())


class Learning(NamedTuple):
    """F − its minimum over weight and bias at fixed beliefs, nats per observation.

    `plain`: by step of the plain gradient with the best rate for each; `natural`: after 0 steps and 1.
    """

    plain: np.ndarray
    natural: np.ndarray


def learning(settings: Settings, seed: int) -> Learning:
    """A conditional learned at fixed beliefs by both gradients. **Example:** `learning(Settings(), 0)`."""
    rng = np.random.default_rng(seed)
    # Causes of unequal size: what makes plain descent slow.
    mixing = rng.normal(size=(6, 3)) * np.array([3.0, 1.0, 0.3])
    data = rng.normal(size=(settings.observations, 3)) @ mixing.T + rng.normal(size=6)
    data = data + 0.5 * rng.normal(size=data.shape)
    x = {"x": jnp.asarray(data)}
    model = vfe.Model(
        z=vfe.gaussian(jnp.zeros(3)),
        x=vfe.gaussian(vfe.Affine(mixing + rng.normal(size=(6, 3))), scale=0.5, parents="z"),
    )
    belief = vfe.exact.posterior(model, x)
    learned = vfe.learn(
        model,
        x,
        epochs=1,
        belief=belief,
        solver=vfe.NaturalGradient(),
        rtol=0.0,
        atol=1e-6,
        optimiser=vfe.natural_descent(tolerance=1e-12),
    )

    def total(weight: Array, bias: Array) -> Array:
        node = vfe.gaussian(vfe.Affine(weight, bias), scale=0.5, parents="z")
        return vfe.free_energy(vfe.Model(z=model["z"], x=node), belief, x).total.mean()

    @jax.jit
    def descent(weight: Array, bias: Array) -> Array:
        slope = jax.grad(total, argnums=(0, 1))

        def step(theta: Any, _: None) -> Any:
            back = slope(*theta)
            along = jax.jvp(lambda *t: slope(*t), theta, back)[1]
            # F is quadratic in weight and bias, so the best rate along the slope is known.
            rate = sum(jnp.vdot(g, g) for g in back) / sum(
                jnp.vdot(g, a) for g, a in zip(back, along, strict=True)
            )
            return tuple(t - rate * g for t, g in zip(theta, back, strict=True)), total(*theta)

        return jax.lax.scan(step, (weight, bias), None, length=settings.plain_steps + 1)[1]

    def of(found: vfe.Model) -> tuple[Array, Array]:
        affine: Any = found["x"].mean  # pyright: ignore[reportAttributeAccessIssue]
        return affine.weight, affine.bias

    plain = np.asarray(descent(*of(model)))
    least = _least(belief, data, total)
    return Learning(plain - least, np.array([plain[0], float(total(*of(learned.model)))]) - least)


def _least(belief: Any, data: np.ndarray, total: Callable[[Array, Array], Array]) -> float:
    """The minimum over weight and bias, in closed form: regression on the beliefs."""
    means = np.c_[np.asarray(belief["z"].mean), np.ones(len(data))]
    moments = means.T @ means
    moments[:-1, :-1] += np.asarray(belief["z"].covariance).sum(0)
    both = np.linalg.solve(moments, means.T @ data).T
    return float(total(jnp.asarray(both[:, :-1]), jnp.asarray(both[:, -1])))


class Found(NamedTuple):
    """Everything the experiment measured."""

    natural: Paths
    plain: Paths
    unit: UnitStep
    conjugate: Conjugates
    learning: Learning


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Paths of a belief and of a conditional under both gradients: figure paths.png; result.nc holds the
    paths, their distances by step size, and F by step of learning.

    **Example:** `vfe run geodesic`.
    """
    from vfe.gallery.physics.geodesic_page import write_up

    with jax.enable_x64(True):
        progress.start("paths and steps", 5)
        parts: list[Any] = []
        for part in (
            lambda: paths(settings, True),
            lambda: paths(settings, False),
            lambda: unit_steps(settings),
            conjugates,
            lambda: learning(settings, seed),
        ):
            parts.append(part())
            progress.step()
        progress.done()
    return write_up(settings, Found(*parts))
