"""Four beliefs that are easily confused: one per sensation, one for all, their mean, and one in time.

F = ⟨E⟩ − S can be written for any density q, and the minimum depends on what q may depend on:

1. q(z | x), one per sensation: the minimiser is the posterior and mean F is the mean surprise ⟨−ln p(x)⟩;
2. q(z), one density shared by all sensations: the minimiser is ∝ p(z) exp⟨ln p(x | z)⟩, and its mean F
   is higher, by −ln Σ_z exp⟨ln p(z | x)⟩;
3. Σ_x p(x) q(z | x), the aggregate of the first: with exact beliefs and sensations from the model it is
   p(z), not the second;
4. q_t(z), carried from one time to the next: in a world that persists its F lies below the mean surprise
   of sensations taken one by one.

For any two densities the difference in F is that in energy less that in entropy. It would be refuted by
a shared density that does as well as one per sensation, by an aggregate other than the prior, or by a
carried belief that gains nothing; it gains nothing where the order of the sensations is shuffled.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.discrete import HiddenMarkov
from vfe.gallery.foundations.toys import discrete_model, tables
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.linear import probabilistic_pca


@dataclasses.dataclass(frozen=True)
class Settings:
    """The world in time."""

    persistence: float = dataclasses.field(
        default=0.9, metadata={"help": "how probable it is that a cause stays, else it is drawn anew"}
    )
    series: int = dataclasses.field(default=100, metadata={"help": "sequences of sensations"})
    length: int = dataclasses.field(default=100, metadata={"help": "sensations in a sequence"})

    def __post_init__(self) -> None:
        if not 0 <= self.persistence < 1 or self.series < 2 or self.length < 2:
            raise ValueError(
                f"ensembles: got persistence={self.persistence}, series={self.series} and "
                f"length={self.length}; wanted a persistence from 0 to below 1, the others two or more."
            )


class Tables(NamedTuple):
    """Causes and sensations in tables. `weight` (7,): p(x); `per_sensation` (7, 5), `shared` (5,),
    `aggregate` (5,), `prior` (5,): probabilities of causes; `closed` (5,): ∝ p(z) exp⟨ln p(x | z)⟩;
    `free`: mean F by name; `terms`: mean energy and entropy by name; `surprise`: ⟨−ln p(x)⟩."""

    weight: np.ndarray
    per_sensation: np.ndarray
    shared: np.ndarray
    aggregate: np.ndarray
    prior: np.ndarray
    closed: np.ndarray
    free: dict[str, float]
    terms: dict[str, tuple[float, float]]
    surprise: float


class InTime(NamedTuple):
    """Sequences. `carried`, `alone` (series, length): F of the carried belief, and surprise of every
    sensation by itself; `belief` (series, length, 5); `x`, `z` (series, length)."""

    carried: np.ndarray
    alone: np.ndarray
    belief: np.ndarray
    x: np.ndarray
    z: np.ndarray


class Linear(NamedTuple):
    """The linear model of flowers. `surprise`: ⟨−ln p(x)⟩; `per_sensation`, `shared`, `prior`: mean F;
    `slope`: the largest derivative of mean F at the shared density; `mean`, `covariance`: of the
    aggregate."""

    surprise: float
    per_sensation: float
    shared: float
    prior: float
    slope: float
    mean: np.ndarray
    covariance: np.ndarray


def in_tables() -> Tables:
    """Beliefs about five causes of seven sensations; the shared one is found by descent on mean F.

    **Example:** `in_tables().free["shared"]`.
    """
    from scipy.optimize import minimize

    with jax.enable_x64(True):
        model, seen = discrete_model(), {"x": np.arange(7)}
        prior, likelihood = tables()
        weight = prior @ likelihood
        exact = vfe.exact.posterior(model, seen)
        per = np.asarray(vfe.exact.recognition_marginal(model, seen, "z").probabilities)

        @eqx.filter_jit
        def mean_free_energy(logits: Any) -> Any:
            free = vfe.free_energy(model, vfe.Categorical({"z": logits}), seen)
            entropy = jnp.broadcast_to(free.entropy, free.total.shape)
            return (free.total * weight).sum(), ((free.energy * weight).sum(), (entropy * weight).sum())

        slope = eqx.filter_jit(jax.value_and_grad(mean_free_energy, has_aux=True))

        def objective(logits: np.ndarray) -> Any:
            (value, _), gradient = slope(jnp.asarray(logits))
            return float(value), np.asarray(gradient)

        found = minimize(objective, np.zeros(5), jac=True, method="BFGS", options={"gtol": 1e-10})
        shared = np.exp(found.x - found.x.max())
        closed = prior * np.exp(np.log(likelihood) @ weight)
        densities = {"shared": shared / shared.sum(), "aggregate": weight @ per, "prior": prior}
        free = vfe.free_energy(model, exact, seen)
        terms = {
            "per sensation": (
                float(weight @ np.asarray(free.energy)),
                float(weight @ np.asarray(free.entropy)),
            )
        }
        for name, q in densities.items():
            (_, (energy, entropy)), _ = slope(jnp.log(jnp.asarray(q)))
            terms[name] = float(energy), float(entropy)
        return Tables(
            weight,
            per,
            densities["shared"],
            densities["aggregate"],
            prior,
            closed / closed.sum(),
            {name: energy - entropy for name, (energy, entropy) in terms.items()},
            terms,
            float(-weight @ np.asarray(vfe.exact.log_evidence(model, seen))),
        )


def in_time(settings: Settings, seed: int, *, shuffled: bool = False) -> InTime:
    """A belief carried through sequences from a world that persists; `shuffled`: in a random order.

    **Example:** `in_time(Settings(series=3), 0).carried.mean()`.
    """
    prior, likelihood = tables()
    random = np.random.default_rng(seed)
    shape = (settings.series, settings.length)
    anew = random.choice(5, shape, p=prior)
    stays = random.random(shape) < settings.persistence
    z = anew.copy()
    for t in range(1, settings.length):
        z[:, t] = np.where(stays[:, t], z[:, t - 1], anew[:, t])
    # The first cumulated probability above a uniform number.
    x = (likelihood.cumsum(1)[z] < random.random((*shape, 1))).sum(-1).clip(max=6)
    if shuffled:
        x = random.permuted(x, axis=1)
    moves = settings.persistence * np.eye(5) + (1 - settings.persistence) * prior[:, None]
    world = HiddenMarkov(likelihood.T, prior, moves)
    belief = vfe.filter(world, x[..., None])
    return InTime(
        np.asarray(belief.surprise), -np.log(prior @ likelihood)[x], np.asarray(belief.joint), x, z
    )


def of_flowers(x: np.ndarray | None = None, dimensions: int = 2) -> Linear:
    """The maximum-likelihood linear model of 150 irises (four lengths in cm), or of other data (N, d).

    **Example:** `of_flowers().shared`.

    **Source:** Tipping and Bishop 1999; Fisher 1936 (the irises).
    """
    from sklearn.datasets import load_iris

    if x is None:
        x = np.asarray(load_iris(return_X_y=True)[0], float)
    with jax.enable_x64(True):
        model = probabilistic_pca(x, dimensions)
        data = {"x": x}
        exact: Any = vfe.exact.posterior(model, data)
        # ⟨ln p(x | z)⟩ over the data is, but for a constant, ln p(⟨x⟩ | z).
        shared = vfe.exact.posterior(model, {"x": x.mean(0)})
        prior = vfe.JointGaussian.from_moments(model, {"z": np.zeros(dimensions)}, np.eye(dimensions))

        @eqx.filter_jit
        def mean_free_energy(belief: Any) -> Any:
            return vfe.free_energy(model, belief, data).total.mean()

        slope = eqx.filter_jit(eqx.filter_value_and_grad(mean_free_energy))
        value, gradient = slope(shared)
        means = np.asarray(exact.location)
        return Linear(
            float(-np.asarray(vfe.exact.log_evidence(model, data)).mean()),
            float(mean_free_energy(exact)),
            float(value),
            float(slope(prior)[0]),
            max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)),
            means.mean(0),
            np.cov(means.T, bias=True) + np.asarray(exact.covariance()).mean(0),
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
    """The four beliefs in tables, in time, and in a linear model of flowers: figure ensembles.png.

    **Example:** `vfe run ensembles`.
    """
    from vfe.gallery.foundations.ensembles_page import write_up

    progress.start("beliefs", 3)
    stated = in_tables()
    progress.step(F=stated.free["shared"])
    timed = in_time(settings, seed)
    progress.step(F=float(timed.carried.mean()))
    linear = of_flowers()
    progress.step(F=linear.shared)
    progress.done()
    return write_up(settings, stated, timed, linear)
