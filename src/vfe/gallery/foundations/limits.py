"""Two limits of recognition: the posterior itself, and a single value.

*The posterior in the family.* Then F = −ln p(x), and minimising F over the model's parameters maximises the
marginal likelihood.

*Deterministic recognition.* A Kronecker delta over states has no entropy: F = −ln p(x, ẑ), exactly, and
it bounds surprise. A Dirac delta over numbers has the entropy −∞: beliefs of width w around ẑ have
F ≈ E(ẑ) − ½ ln 2πe w², which grows without bound as w → 0. What is called F in that limit is an energy,
E(ẑ) = −ln p(x, ẑ): maximum a posteriori, maximum likelihood where the prior is flat. It is no bound on
surprise, its minimum moves with the coordinates, it lacks the ln |det J| of a deterministic map, and
minimising it over parameters may have no end. With its curvature (Laplace) it is −ln p(x) again where
all is linear and Gaussian.

It would be refuted by an F at the posterior other than surprise, by narrow beliefs whose F stays finite,
or by an energy that bounds surprise or has its minimum over parameters where the marginal likelihood
has its maximum.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import vfe
from vfe.gallery.foundations.toys import discrete_model, gaussian_hierarchy
from vfe.gallery.job import JobResult, Progress, Workspace

NOISE = 0.5


@dataclasses.dataclass(frozen=True)
class Settings:
    """How many observations, and the curved model's."""

    observations: int = dataclasses.field(default=200, metadata={"help": "from which a gain is learned"})
    x: float = dataclasses.field(default=4.0, metadata={"help": "what is observed of z², to within 0.3"})

    def __post_init__(self) -> None:
        if self.observations < 10 or not self.x > 0:
            raise ValueError(
                f"limits: got observations={self.observations} and x={self.x}; wanted ten or more, "
                "and x above zero."
            )


class Gain(NamedTuple):
    """x ~ N(w z, ½²), z ~ N(0, 1). By gain `w` (n,): `free`: mean F at the posterior, `surprise`, `energy`
    at the mode (nats per observation); `closed`, `found`: the gain of maximum marginal likelihood in
    closed form, and where F is least; `slope`: of the energy there."""

    w: np.ndarray
    free: np.ndarray
    surprise: np.ndarray
    energy: np.ndarray
    closed: float
    found: float
    slope: float


class States(NamedTuple):
    """Kronecker deltas on every state for every sensation (5, 7): `free`, `joint` = −ln p(x, z),
    `entropy`, and `surprise` (7,)."""

    free: np.ndarray
    joint: np.ndarray
    entropy: np.ndarray
    surprise: np.ndarray


class Curved(NamedTuple):
    """z ~ N(0, 1), x ~ N(z², 0.3²). `root`: √x, which explains x without error; `energy`, there; `modes` by
    sd of the prior, of which 1 is the model's; `lowest`: the energy at the mode; `surprise`, by quadrature;
    `widths` of beliefs around √x, their `free`, and `by_entropy`: the energy at √x less their entropy."""

    root: float
    modes: dict[float, float]
    lowest: float
    energy: float
    surprise: float
    widths: np.ndarray
    free: np.ndarray
    by_entropy: np.ndarray


class Coordinates(NamedTuple):
    """z = exp u, u ~ N(0, 1), x ~ N(z, ½²). Modes found in `u` and in `z`, both as u; `free`: F of one
    density written in either. `jacobian`: for x = sinh z with noise of 0.001, −ln p(x), the energy
    without the noise's constant, Laplace's F, and ln |dx/dz|."""

    u: float
    z: float
    free: tuple[float, float]
    jacobian: tuple[float, float, float, float]


class Found(NamedTuple):
    """All of it. `laplace`: F of Laplace in the Gaussian hierarchy, and surprise, by observation."""

    gain: Gain
    states: States
    curved: Curved
    coordinates: Coordinates
    laplace: tuple[np.ndarray, np.ndarray]


def of_gain(settings: Settings, seed: int) -> Gain:
    """F, surprise and energy as functions of the gain. **Example:** `of_gain(Settings(), 0).found`."""
    from scipy.optimize import minimize_scalar

    random = np.random.default_rng(seed)
    n = settings.observations
    x = 1.5 * random.normal(size=n) + NOISE * random.normal(size=n)

    @eqx.filter_jit
    def terms(w: Any) -> Any:
        model = vfe.Model(
            z=vfe.gaussian(jnp.zeros(1)),
            x=vfe.gaussian(vfe.Affine(w[None, None]), scale=NOISE, parents="z"),
        )
        data = {"x": x[:, None]}
        belief: Any = vfe.exact.posterior(model, data)
        point = vfe.Point.from_values(model, {"z": belief.location})
        free, energy = (vfe.free_energy(model, b, data).total.mean() for b in (belief, point))
        return free, -vfe.exact.log_evidence(model, data).mean(), energy

    with jax.enable_x64(True):
        w = np.geomspace(0.3, 12.0, 40)
        values = np.array([[float(v) for v in terms(jnp.asarray(each))] for each in w])
        found: Any = minimize_scalar(lambda v: float(terms(jnp.asarray(v))[0]), (0.5, 2.0), tol=1e-10)
        step = 1e-4
        ends = [float(terms(jnp.asarray(found.x + s))[2]) for s in (-step, step)]
    closed = math.sqrt(np.square(x).mean() - NOISE**2)
    free, surprise, energy = values.T
    slope = (ends[1] - ends[0]) / (2 * step)
    return Gain(w, free, surprise, energy, closed, float(found.x), slope)


def of_states() -> States:
    """All certainties about five causes. **Example:** `of_states().free.min()`."""
    with jax.enable_x64(True):
        model = discrete_model()
        z, x = np.indices((5, 7))
        belief = vfe.Categorical.from_probabilities({"z": np.eye(5)[z]})
        free = vfe.free_energy(model, belief, {"x": x})
        joint = sum(np.asarray(e) for e in model.energies({"z": z, "x": x}).values())
        surprise = -np.asarray(vfe.exact.log_evidence(model, {"x": np.arange(7)}))
        return States(np.asarray(free.total), np.asarray(joint), np.asarray(free.entropy), surprise)


def curved_model(prior: float = 1.0) -> vfe.Model:
    """z ~ N(0, prior²), x ~ N(z², 0.3²). **Example:** `curved_model().order`."""
    return vfe.Model(
        z=vfe.gaussian(0.0, scale=prior),
        x=vfe.gaussian(jnp.square, scale=0.3, parents="z"),
    )


def of_curve(settings: Settings) -> Curved:
    """The mode, and ever narrower beliefs around it. **Example:** `of_curve(Settings()).energy`."""
    with jax.enable_x64(True):
        model, data = curved_model(), {"x": np.float64(settings.x)}
        root = math.sqrt(settings.x)
        modes, energies = {}, []
        for prior in (1.0, 10.0, 100.0):
            each = curved_model(prior)
            start = vfe.Point.from_values(each, {"z": np.float64(root)})
            percept = vfe.perceive(each, data, belief=start, rtol=1e-13)
            modes[prior] = float(percept.belief["z"].mode)
            energies.append(float(percept.free_energy.total))
        grid = np.append(np.linspace(-10, 10, 200_001), root)
        by_node = model.energies({"z": grid, "x": np.full_like(grid, settings.x)})
        energy = np.asarray(by_node["z"]) + np.asarray(by_node["x"])
        widths = np.array([1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
        n = len(widths)
        mean = {"z": np.full(n, root)}
        beliefs = vfe.DiagonalGaussian.from_moments(model, mean, np.square(widths)[:, None, None])
        free = vfe.free_energy(model, beliefs, {"x": np.full(n, settings.x)}, expectation=vfe.Taylor())
        return Curved(
            root,
            modes,
            energies[0],
            float(energy[-1]),
            float(-np.log(np.trapezoid(np.exp(-energy[:-1]), grid[:-1]))),
            widths,
            np.asarray(free.total),
            energy[-1] - np.asarray(free.entropy),
        )


def of_coordinates() -> Coordinates:
    """One model in two coordinates, and a map without noise. **Example:** `of_coordinates().u`."""
    from scipy.optimize import minimize_scalar

    with jax.enable_x64(True):
        x = 2.0
        in_u = vfe.Model(u=vfe.gaussian(0.0), x=vfe.gaussian(jnp.exp, scale=NOISE, parents="u"))
        in_z = vfe.Model(
            z=vfe.conditional(lambda: dist.LogNormal(0.0, 1.0)),
            x=vfe.gaussian(lambda z: z, scale=NOISE, parents="z"),
        )

        def mode(model: vfe.Model, name: str, bounds: tuple[float, float]) -> float:
            @jax.jit
            def energy(value: Any) -> Any:
                return sum(model.energies({name: value, "x": jnp.asarray(x)}).values())

            options = {"xatol": 1e-10}
            found: Any = minimize_scalar(
                lambda v: float(energy(jnp.asarray(v))), bounds=bounds, method="bounded", options=options
            )
            return float(found.x)

        free = []
        for model, name in ((in_u, "u"), (in_z, "z")):
            # A Gaussian over u, which is z's unconstrained coordinate.
            layout = vfe.Point.from_values(model, {name: 1.0}).layout
            belief = vfe.DiagonalGaussian(layout, jnp.array([0.4]), jnp.array([-1.0]))
            free.append(float(vfe.free_energy(model, belief, {"x": np.float64(x)}).total))
        return Coordinates(
            mode(in_u, "u", (-5, 5)),
            math.log(mode(in_z, "z", (1e-4, 10))),
            (free[0], free[1]),
            _without_noise(),
        )


def _without_noise() -> tuple[float, float, float, float]:
    noise, x = 1e-3, 2.0
    model = vfe.Model(z=vfe.gaussian(0.0), x=vfe.gaussian(jnp.sinh, scale=noise, parents="z"))
    percept = vfe.perceive(model, {"x": np.float64(x)}, belief=vfe.Laplace)
    z = math.asinh(x)
    prior = 0.5 * z**2 + 0.5 * math.log(2 * math.pi)
    energies = model.energies({"z": np.float64(percept.belief["z"].mean), "x": np.float64(x)})
    energy = float(sum(energies.values())) - 0.5 * math.log(2 * math.pi * noise**2)
    volume = math.log(math.cosh(z))
    return prior + volume, energy, float(percept.free_energy.total), volume


def of_laplace(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Laplace where it is exact. **Example:** `of_laplace(0)[0]`."""
    with jax.enable_x64(True):
        model = gaussian_hierarchy()
        x = np.random.default_rng(seed).normal(size=(8, 4)) * 3
        percept = vfe.perceive(model, {"x": x}, belief=vfe.Laplace)
        surprise = -np.asarray(vfe.exact.log_evidence(model, {"x": x}))
        return np.asarray(percept.free_energy.total), surprise


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """The posterior, certainties, and modes, with what each is and is not: figure limits.png.

    **Example:** `vfe run limits`.
    """
    from vfe.gallery.foundations.limits_page import write_up

    progress.start("limits", 1)
    found = find(settings, seed)
    progress.step(energy=found.curved.energy)
    progress.done()
    return write_up(settings, found)


def find(settings: Settings, seed: int) -> Found:
    """All parts of the experiment. **Example:** `find(Settings(), 0).curved.energy`."""
    return Found(
        of_gain(settings, seed), of_states(), of_curve(settings), of_coordinates(), of_laplace(seed)
    )
