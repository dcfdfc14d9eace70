"""Predictive coding: error units and state units whose local updates descend free energy.

Every level has state units μ_i and error units ε_i = μ_i − g_i(μ_{i+1}), the senses ε_0 = x − g_0(μ_1).
Backward connections carry predictions g, forward ones precision-weighted errors Π ε, and

dμ_i/dt = −Π_i ε_i + (∂g_{i−1}/∂μ_i)ᵀ Π_{i−1} ε_{i−1}

uses what its own level and the one below it send, and nothing else. Expected: this is −∂F/∂μ_i, so that F
never rises; in a linear network activity comes to rest at the posterior mean. A mean-field belief keeps a
gap to surprise, ½ (Σ ln |Λ_ii| − ln |Λ|), Λ the posterior precision; levels taken in turn come to it, and
so does the flow dλ/dt = −∂F/∂λ of means and spreads at once. Cutting the backward connections to
the first level leaves the network without context: where half of the senses are occluded it no longer
fills them in.

It would be refuted by an update other than the gradient, an F that rises, another resting point, or a
lesion that costs nothing; updates that miss the errors from below fail.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.gallery.job import JobResult, Progress, Workspace

SIZES = (2, 6, 6)  # of the top level, the first one, and the senses
NOISE = (1.0, 0.4, 0.3)  # standard deviations, of the same


@dataclasses.dataclass(frozen=True)
class Settings:
    """How many observations, how much of each is occluded, and for how long units are active."""

    observations: int = dataclasses.field(default=200, metadata={"help": "drawn from the model"})
    occluded: int = dataclasses.field(default=3, metadata={"help": "of the six senses, in the second half"})
    steps: int = dataclasses.field(default=3000, metadata={"help": "of the units' activity"})

    def __post_init__(self) -> None:
        if self.observations < 4 or not 1 <= self.occluded <= 5 or self.steps < 100:
            raise ValueError(
                f"predictive-coding: got observations={self.observations}, occluded={self.occluded} and "
                f"steps={self.steps}; wanted four observations, 1 to 5 senses occluded, and 100 steps or "
                f"more."
            )


class Weights(NamedTuple):
    """Backward connections, z2 → z1 and z1 → x, and whether units of z1 saturate (tanh)."""

    upper: np.ndarray
    lower: np.ndarray
    saturates: bool = False

    def predict(self, states: np.ndarray) -> np.ndarray:
        """g_0(μ_1). **Example:** `weights.predict(np.zeros((1, 6)))`."""
        return (np.tanh(states) if self.saturates else states) @ self.lower.T

    def slope(self, states: np.ndarray) -> Any:
        """The derivative of the units' output. **Example:** `weights.slope(np.zeros((1, 6)))`."""
        return 1 - np.tanh(states) ** 2 if self.saturates else 1.0


class Activity(NamedTuple):
    """Units over time (steps + 1, observations, units): `middle` μ_1, `top` μ_2; `energy` (steps + 1,
    observations): E of the states, in nats."""

    middle: np.ndarray
    top: np.ndarray
    energy: np.ndarray


class Found(NamedTuple):
    """`gradient`: largest difference between local updates and −dF by automatic derivative, relative to the
    largest update, in a linear and in a saturating network; `x`, `truth` (z1), `seen`; `intact`,
    `lesioned`: activity; `posterior`: mean of z1 and z2; `energy`: E at the last states by the library;
    `trace`: F of mean-field beliefs by step; `gap` and `closed`: F − surprise of them, and the closed
    form; `flow` and `flow_gap`: the same of means and spreads in continuous time, by interval."""

    gradient: tuple[float, float]
    x: np.ndarray
    truth: np.ndarray
    seen: np.ndarray
    intact: Activity
    lesioned: Activity
    posterior: tuple[np.ndarray, np.ndarray]
    energy: tuple[np.ndarray, np.ndarray]
    trace: np.ndarray
    gap: np.ndarray
    closed: float
    flow: np.ndarray
    flow_gap: np.ndarray


def weights(saturates: bool = False) -> Weights:
    """The network of this experiment. **Example:** `weights().lower.shape`."""
    random = np.random.default_rng(0)
    upper = random.normal(size=(SIZES[1], SIZES[0]))
    lower = np.eye(SIZES[2]) + 0.2 * random.normal(size=(SIZES[2], SIZES[1]))
    return Weights(upper, lower, saturates)


class Saturating(eqx.Module):
    """g(z) = W tanh z."""

    weight: Any

    def __call__(self, z: Any) -> Any:
        return self.weight @ jnp.tanh(z)


def model(network: Weights) -> vfe.Model:
    """What the network believes of its senses. **Example:** `model(weights()).order`."""
    top, middle, senses = NOISE
    lower = Saturating(network.lower) if network.saturates else vfe.Affine(network.lower)
    return vfe.Model(
        z2=vfe.gaussian(jnp.zeros(SIZES[0]), scale=top),
        z1=vfe.gaussian(vfe.Affine(network.upper), scale=middle, parents="z2"),
        x=vfe.gaussian(lower, scale=senses, parents="z1"),
    )


def update(
    network: Weights,
    x: np.ndarray,
    middle: np.ndarray,
    top: np.ndarray,
    *,
    lesioned: bool = False,
    forward: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dμ_1/dt, dμ_2/dt, and the energy of the errors, of units that see only what is sent to them.

    `lesioned`: no predictions reach the first level; `forward=0`: no errors leave the senses.

    **Example:** `update(weights(), x, np.zeros((1, 6)), np.zeros((1, 2)))[0]`.
    """
    precision = 1 / np.square(NOISE)
    predicted = np.zeros_like(middle) if lesioned else top @ network.upper.T
    sensory = np.nan_to_num(precision[2] * (x - network.predict(middle)))  # what is occluded sends nothing
    inner = precision[1] * (middle - predicted)
    highest = precision[0] * top
    to_middle = -inner + forward * network.slope(middle) * (sensory @ network.lower)
    to_top = -highest + (0.0 if lesioned else 1.0) * (inner @ network.upper)
    energy = 0.5 * (
        (sensory**2).sum(-1) / precision[2]
        + (inner**2).sum(-1) / precision[1]
        + (highest**2).sum(-1) / precision[0]
    )
    counts = np.isfinite(x).sum(-1), SIZES[1], SIZES[0]
    for count, each in zip(counts, precision[::-1], strict=True):
        energy = energy + 0.5 * count * np.log(2 * np.pi / each)
    return to_middle, to_top, energy


def settle(network: Weights, x: np.ndarray, steps: int, **cut: Any) -> Activity:
    """Activity from rest at zero, in steps of one over the greatest curvature.

    **Example:** `settle(weights(), x, 100).energy[-1]`.
    """
    top, middle, senses = 1 / np.square(NOISE)
    curvature = np.zeros((8, 8))
    curvature[:6, :6] = senses * network.lower.T @ network.lower + middle * np.eye(6)
    curvature[:6, 6:] = -middle * network.upper
    curvature[6:, :6] = curvature[:6, 6:].T
    curvature[6:, 6:] = middle * network.upper.T @ network.upper + top * np.eye(2)
    rate = 1 / np.linalg.eigvalsh(curvature).max()
    states = np.zeros((len(x), 6)), np.zeros((len(x), 2))
    kept: list[tuple[np.ndarray, ...]] = []
    for _ in range(steps + 1):
        to_middle, to_top, energy = update(network, x, *states, **cut)
        kept.append((*states, energy))
        states = states[0] + rate * to_middle, states[1] + rate * to_top
    middles, tops, energies = zip(*kept, strict=True)
    return Activity(np.stack(middles), np.stack(tops), np.stack(energies))


def against_automatic(network: Weights, x: np.ndarray, seed: int, **cut: Any) -> float:
    """Local updates at random states against −dF by automatic derivative, relative to the largest.

    **Example:** `against_automatic(weights(), x, 0)`.
    """
    random = np.random.default_rng(seed)
    middle, top = random.normal(size=(len(x), 6)), random.normal(size=(len(x), 2))
    local = update(network, x, middle, top, **cut)
    with jax.enable_x64(True):
        under = model(network)
        point = vfe.Point.from_values(under, {"z2": top, "z1": middle})

        @eqx.filter_jit
        def slope(belief: Any) -> Any:
            return eqx.filter_grad(lambda b: vfe.free_energy(under, b, {"x": x}).total.sum())(belief)

        found = -np.asarray(slope(point).location)
    both = np.concatenate([local[1], local[0]], 1)
    return float(np.abs(both - found).max() / np.abs(both).max())


def mean_field_flow(network: Weights, x: np.ndarray, family: Any = vfe.NodeGaussian) -> Any:
    """dλ/dt = −∂F/∂λ of beliefs that take levels, or what `family` says, for independent; float64.

    **Example:** `mean_field_flow(weights(), x).trace`.
    """
    import diffrax

    flow = vfe.GradientFlow(solver=diffrax.Heun())
    return vfe.perceive(model(network), {"x": x}, belief=family, solver=flow)


def find(settings: Settings, seed: int) -> Found:
    """All parts of the experiment. **Example:** `find(Settings(observations=4), 0).closed`."""
    network, random = weights(), np.random.default_rng(seed)
    n = settings.observations
    z2 = NOISE[0] * random.normal(size=(n, 2))
    z1 = z2 @ network.upper.T + NOISE[1] * random.normal(size=(n, 6))
    x = network.predict(z1) + NOISE[2] * random.normal(size=(n, 6))
    seen = np.ones((n, 6), bool)
    seen[:, 6 - settings.occluded :] = False
    x = np.where(seen, x, np.nan)
    intact = settle(network, x, settings.steps)
    lesioned = settle(network, x, settings.steps, lesioned=True)
    gradients = tuple(against_automatic(weights(kind), x, seed) for kind in (False, True))
    with jax.enable_x64(True):
        under, data = model(network), {"x": x}
        exact: Any = vfe.exact.posterior(under, data)
        means = np.asarray(exact.location)
        energies = []
        for activity in (intact, lesioned):
            point = vfe.Point.from_values(under, {"z2": activity.top[-1], "z1": activity.middle[-1]})
            energies.append(np.asarray(vfe.free_energy(under, point, data).total))
        few = {"x": x[:4]}
        percept = vfe.perceive(
            under, few, belief=vfe.NodeGaussian, solver=vfe.CoordinateAscent(), rtol=1e-13
        )
        precision = np.linalg.inv(np.asarray(exact.covariance())[0])
        blocks = (slice(0, 2), slice(2, 8))
        volumes = sum(np.linalg.slogdet(precision[part, part])[1] for part in blocks)
        closed = 0.5 * (volumes - np.linalg.slogdet(precision)[1])
        flow = mean_field_flow(network, x[:4])
        gap = np.asarray(percept.free_energy.total) + np.asarray(vfe.exact.log_evidence(under, few))
        return Found(
            (gradients[0], gradients[1]),
            x,
            z1,
            seen,
            intact,
            lesioned,
            (means[:, 2:], means[:, :2]),
            (energies[0], energies[1]),
            np.asarray(percept.trace),
            gap,
            float(closed),
            np.asarray(flow.trace),
            np.asarray(flow.free_energy.total - percept.free_energy.total) + gap,
        )


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """A network of error and state units, whole and lesioned: figure predictive_coding.png.

    **Example:** `vfe run predictive-coding`.
    """
    from vfe.gallery.foundations.predictive_coding_page import write_up

    progress.start("activity", 1)
    found = find(settings, seed)
    progress.step(E=float(found.energy[0].mean()))
    progress.done()
    return write_up(settings, found)
