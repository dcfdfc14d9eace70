"""Marginalisation is renormalisation: integrating out leaves −ln Z as it was, and changes couplings.

A ring of spins with couplings K, energy −K Σ s_i s_{i+1}: summing out every second spin leaves a ring of
half as many with

    tanh K′ = tanh² K,   −ln Z(K, n) = −ln Z(K′, n/2) − n/2 · ½ ln(4 cosh 2K),

again and again, until next to nothing couples what is left. A Gaussian hierarchy x ← z₁ ← z₂: integrating
z₁ out leaves x ← z₂ with the precision matrix

    Λ′ = Λ_kept − Λ_kept,out Λ_out⁻¹ Λ_out,kept   (Schur's complement),

which couples x and z₂, that did not touch before. In both F at the exact belief stays the same, as it is
−ln Z. With factorised beliefs F falls: what was integrated out need not be believed independent any more.

Expected: couplings measured in models of the library (log-odds of end spins; second derivatives of
energies) equal the formulas, and F at exact beliefs the same at every scale, to 1e-10 in double precision.

Refuted by: a scale at which F differs, or couplings off the formula. Leaving out what should be summed out
(K′ = K, or the block of Λ that is kept) fails.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.settings import about


@dataclasses.dataclass(frozen=True)
class Settings:
    """The ring and the hierarchy."""

    spins: int = about("of the ring, a power of two of at least 8", 16)
    coupling: float = about("K between neighbours, nats", 1.2)
    observations: int = about("of the Gaussian hierarchy", 5)

    def __post_init__(self) -> None:
        if self.spins < 8 or self.spins & (self.spins - 1):
            raise ValueError(
                f"renormalisation: got spins={self.spins}; wanted a power of two of at least 8."
            )
        if not 0 < self.coupling <= 10:
            raise ValueError(f"renormalisation: got coupling={self.coupling}; wanted a number in (0, 10].")
        if self.observations < 1:
            raise ValueError(f"renormalisation: got observations={self.observations}; wanted at least 1.")


def ring(spins: int, coupling: float) -> vfe.Model:
    """Spins in a ring; bonds are evidence, p(bond = 1 | s, s′) = exp(K (s s′ − 1)).

    ln p(all bonds = 1) = ln Z − n K − n ln 2. **Example:** `ring(8, 1.0)`.
    """
    return _bonded(spins, [(i, (i + 1) % spins) for i in range(spins)], coupling)


def _bonded(spins: int, pairs: list[tuple[int, int]], coupling: float) -> vfe.Model:
    """Spins (1 is up) without preference, and bonds between some of them."""
    apart = np.exp(-2.0 * coupling)
    seen = np.array([[1.0, apart], [apart, 1.0]])
    nodes: dict[str, Any] = {f"s{i}": vfe.categorical(np.array([0.5, 0.5])) for i in range(spins)}
    for i, j in pairs:
        nodes[f"bond {i} {j}"] = vfe.categorical(np.stack([1 - seen, seen]), parents=(f"s{i}", f"s{j}"))
    return vfe.Model(**nodes)


def _bonds(model: vfe.Model) -> dict[str, int]:
    return {name: 1 for name in model.order if name.startswith("bond")}


def log_partition(spins: int, coupling: float) -> float:
    """ln Z of a ring, as minus F at the exact belief. **Example:** `log_partition(8, 1.0)`."""
    model = ring(spins, coupling)
    belief = vfe.exact.posterior(model, _bonds(model))
    free = vfe.free_energy(model, belief, _bonds(model))
    return -float(free.total) + spins * (coupling + np.log(2))


def decimated(coupling: float) -> float:
    """K′ between the ends of a chain of three whose middle is summed out, from the odds of the ends.

    **Example:** `decimated(1.0)` is ½ ln cosh 2.
    """
    model = _bonded(3, [(0, 1), (1, 2)], coupling)
    ends = {"s0": np.array([1, 1]), "s2": np.array([1, 0])}
    bonds = {name: np.array([1, 1]) for name in _bonds(model)}
    same, other = np.asarray(vfe.exact.log_evidence(model, {**bonds, **ends}))
    return float(same - other) / 2


def constant(coupling: float) -> float:
    """½ ln(4 cosh 2K), what each spin that is summed out leaves behind. **Example:** `constant(1.0)`."""
    return 0.5 * float(np.log(4) + np.logaddexp(2 * coupling, -2 * coupling) - np.log(2))


class Flow(NamedTuple):
    """By scale, from the ring as it is: `spins`, `couplings` (measured), `left`: what the spins summed out
    so far contribute to ln Z, and `log_partition` of those that are left, nats."""

    spins: np.ndarray
    couplings: np.ndarray
    left: np.ndarray
    log_partition: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """ln Z as every scale has it."""
        return self.left + self.log_partition


def flow(settings: Settings, rule: Callable[[float], float] = decimated) -> Flow:
    """Every second spin summed out, until two are left. `rule`: K′ of K.

    **Example:** `flow(Settings()).couplings`.
    """
    spins, coupling, left = settings.spins, settings.coupling, 0.0
    rows = []
    while spins >= 2:
        rows.append((spins, coupling, left, log_partition(spins, coupling)))
        left += spins // 2 * constant(coupling)
        spins, coupling = spins // 2, rule(coupling)
    return Flow(*np.array(rows).T)


def hierarchy(seed: int) -> tuple[vfe.Model, vfe.Model]:
    """x ← z₁ ← z₂, and x ← z₂ with z₁ integrated out. **Example:** `hierarchy(0)[1]`."""
    rng = np.random.default_rng(seed)
    lower, upper = rng.normal(size=(4, 3)), rng.normal(size=(3, 2))
    shift, scale, noise = rng.normal(size=3), 0.8, 0.5
    whole = vfe.Model(
        z2=vfe.gaussian(jnp.zeros(2)),
        z1=vfe.gaussian(vfe.Affine(upper, shift), scale=scale, parents="z2"),
        x=vfe.gaussian(vfe.Affine(lower), scale=noise, parents="z1"),
    )
    coarse = vfe.Model(
        z2=vfe.gaussian(jnp.zeros(2)),
        x=vfe.gaussian(
            vfe.Affine(lower @ upper, lower @ shift),
            covariance=scale**2 * lower @ lower.T + noise**2 * np.eye(4),
            parents="z2",
        ),
    )
    return whole, coarse


def precision(model: vfe.Model, names: tuple[str, ...]) -> np.ndarray:
    """Λ of all nodes in this order: the second derivative of the model's energy.

    **Example:** `precision(hierarchy(0)[0], ("x", "z2", "z1"))`.
    """
    sizes = [model.describe(name).shape[0] for name in names]
    ends = np.cumsum(sizes)

    def energy(v: jax.Array) -> jax.Array:
        parts = jnp.split(v, ends[:-1])
        return sum(model.energies(dict(zip(names, parts, strict=True))).values(), jnp.zeros(()))

    return np.asarray(jax.jit(jax.hessian(energy))(jnp.zeros(int(ends[-1]))))


class Levels(NamedTuple):
    """A level integrated out: precisions of (x, z₂), and F of both models, nats per observation."""

    kept: np.ndarray
    schur: np.ndarray
    measured: np.ndarray
    exact: np.ndarray
    factorised: np.ndarray


def levels(settings: Settings, seed: int) -> Levels:
    """The hierarchy with and without its middle level. **Example:** `levels(Settings(), 0).exact`.

    `exact`, `factorised`: (2,), F with exact and with fully factorised beliefs, of the whole and the
    coarse model.
    """
    whole, coarse = hierarchy(seed)
    big = precision(whole, ("x", "z2", "z1"))
    kept, across, out = big[:6, :6], big[:6, 6:], big[6:, 6:]
    schur = kept - across @ np.linalg.solve(out, across.T)
    x = {"x": whole.sample(jax.random.key(seed), shape=(settings.observations,))["x"]}
    exact, factorised = [], []
    for model in (whole, coarse):
        belief = vfe.exact.posterior(model, x)
        exact.append(float(vfe.free_energy(model, belief, x).total.mean()))
        independent = vfe.exact.mean_field(model, x, vfe.DiagonalGaussian)
        factorised.append(float(vfe.free_energy(model, independent, x).total.mean()))
    found = precision(coarse, ("x", "z2"))
    return Levels(kept, schur, found, np.array(exact), np.array(factorised))


class Found(NamedTuple):
    """Everything the experiment measured."""

    flow: Flow
    levels: Levels


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Spins and a level integrated out: figure scales.png; result.nc holds couplings and ln Z by scale,
    precision matrices, and F of both hierarchies.

    **Example:** `vfe run renormalisation --set coupling=0.5`.
    """
    from vfe.gallery.physics.renormalisation_page import write_up

    with jax.enable_x64(True):
        progress.start("scales", 2)
        flowed = flow(settings)
        progress.step()
        found = Found(flowed, levels(settings, seed))
        progress.step()
        progress.done()
    return write_up(settings, found)
