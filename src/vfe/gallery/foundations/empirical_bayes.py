"""A hierarchy learns its own priors: estimates of many groups are better for what the groups share.

One value x is seen of each of many groups, x ~ N(z, 1); above them z ~ N(m, s²). Learning m and s by F,
with exact beliefs about every z, is empirical Bayes. Expected: they come to where the marginal likelihood
is greatest, near the truth; and the squared error of ⟨z⟩ under the learned prior lies below that of x
itself (a flat prior) and hardly above that under the true prior, s² / (s² + 1). On real groups: 18
baseball players, their first 45 times at bat in 1970, and, held out, the rest of their season.

It would be refuted by a prior learned elsewhere than at the greatest marginal likelihood, or by errors
that the learned prior does not lower; a prior with the wrong mean raises them.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.gallery.job import JobResult, Progress, Workspace

# Hits in the first 45 times at bat, then times at bat and batting average in the rest of the season 1970.
PLAYERS: dict[str, tuple[int, int, float]] = {
    "Clemente": (18, 367, 0.346),
    "F. Robinson": (17, 426, 0.298),
    "F. Howard": (16, 521, 0.276),
    "Johnstone": (15, 275, 0.222),
    "Berry": (14, 418, 0.273),
    "Spencer": (14, 466, 0.270),
    "Kessinger": (13, 586, 0.263),
    "Alvarado": (12, 138, 0.210),
    "Santo": (11, 510, 0.269),
    "Swoboda": (11, 200, 0.230),
    "Unser": (10, 277, 0.264),
    "Williams": (10, 270, 0.256),
    "Scott": (10, 435, 0.303),
    "Petrocelli": (10, 538, 0.264),
    "E. Rodriguez": (10, 186, 0.226),
    "Campaneris": (9, 558, 0.285),
    "Munson": (8, 408, 0.316),
    "Alvis": (7, 70, 0.200),
}
AT_BAT = 45
FLAT = 1e3


@dataclasses.dataclass(frozen=True)
class Settings:
    """The groups, and how long their prior is learned."""

    groups: int = dataclasses.field(default=2000, metadata={"help": "how many are made"})
    mean: float = dataclasses.field(default=2.0, metadata={"help": "of the groups' values"})
    sd: float = dataclasses.field(
        default=0.7, metadata={"help": "of the groups' values, in units of noise"}
    )
    epochs: int = dataclasses.field(default=300, metadata={"help": "steps of learning"})

    def __post_init__(self) -> None:
        if self.groups < 50 or self.epochs < 50 or not 0 < self.sd < 100:
            raise ValueError(
                f"empirical-bayes: got groups={self.groups}, epochs={self.epochs} and sd={self.sd}; wanted "
                "50 groups and epochs or more, and an sd from above 0 to below 100."
            )


class Prior(NamedTuple):
    """Of the groups' values."""

    mean: float
    sd: float


class Assessed(NamedTuple):
    """Groups under one prior: squared `error` of ⟨z⟩ (groups,), `estimate` (groups,), mean
    `free_energy`."""

    error: np.ndarray
    estimate: np.ndarray
    free_energy: float


class Groups(NamedTuple):
    """What was seen, `x`, and is so, `truth`, of each group; `priors` and what comes of them by name;
    `trace`: mean F while learning; `closed`: the prior of greatest marginal likelihood."""

    x: np.ndarray
    truth: np.ndarray
    priors: dict[str, Prior]
    found: dict[str, Assessed]
    trace: np.ndarray
    closed: Prior


def model(prior: Any) -> vfe.Model:
    """z ~ N(mean, sd²), learnable, and x ~ N(z, 1). **Example:** `model(Prior(0.0, 1.0))`."""
    same = vfe.Affine(vfe.Fixed(jnp.eye(1)), vfe.Fixed(jnp.zeros(1)))
    return vfe.Model(
        z=vfe.gaussian(vfe.learnable(jnp.reshape(prior[0], 1)), scale=vfe.learnable(prior[1])),
        x=vfe.gaussian(same, scale=1.0, parents="z"),
    )


def learn_prior(x: np.ndarray, epochs: int) -> tuple[Prior, np.ndarray]:
    """The prior that `vfe.learn` finds, starting from N(0, 3²), and mean F by epoch.

    **Example:** `learn_prior(np.random.default_rng(0).normal(2, 1.2, 500), 300)[0]`.
    """
    import optax

    with jax.enable_x64(True):
        # A short memory of squared gradients: they shrink much on the way to a small spread.
        optimiser = optax.adam(optax.cosine_decay_schedule(0.1, epochs), b2=0.9)
        learned = vfe.learn(model((0.0, 3.0)), {"x": x[:, None]}, epochs=epochs, optimiser=optimiser)
        density: Any = learned.model["z"]()
        found = Prior(float(density.mean[0]), float(density.variance[0]) ** 0.5)
        return found, np.asarray(learned.history["total"])


@eqx.filter_jit
def _assess(x: Any, prior: Any) -> Any:
    under, data = model(prior), {"x": x[:, None]}
    belief: Any = vfe.exact.posterior(under, data)
    return belief.location[:, 0], vfe.free_energy(under, belief, data).total.mean()


def assess(x: np.ndarray, truth: np.ndarray, prior: Prior) -> Assessed:
    """Estimates of all groups under a prior. **Example:** `assess(x, truth, Prior(2.0,
    0.7)).error.mean()`."""
    with jax.enable_x64(True):
        estimate, free = _assess(jnp.asarray(x), (jnp.asarray(prior.mean), jnp.asarray(prior.sd)))
        estimate = np.asarray(estimate)
        return Assessed((estimate - truth) ** 2, estimate, float(free))


def learn_groups(x: np.ndarray, truth: np.ndarray, epochs: int, true_prior: Prior | None = None) -> Groups:
    """The learned prior beside a flat one and, where it is known, the true one.

    **Example:** `learn_groups(x, truth, 300).priors["learned"]`.
    """
    learned, trace = learn_prior(x, epochs)
    priors = {"flat": Prior(0.0, FLAT), "learned": learned}
    if true_prior is not None:
        priors["true"] = true_prior
    found = {name: assess(x, truth, prior) for name, prior in priors.items()}
    closed = Prior(float(x.mean()), max(float(x.var()) - 1, 0.0) ** 0.5)
    return Groups(x, truth, priors, found, trace, closed)


def make_groups(settings: Settings, seed: int) -> Groups:
    """Groups drawn from the true prior. **Example:** `make_groups(Settings(groups=50), 0).trace`."""
    random = np.random.default_rng(seed)
    truth = random.normal(settings.mean, settings.sd, settings.groups)
    x = truth + random.normal(size=settings.groups)
    return learn_groups(x, truth, settings.epochs, Prior(settings.mean, settings.sd))


def stabilised(average: np.ndarray) -> np.ndarray:
    """√45 arcsin(2 average − 1), whose variance is near 1 whatever the true average: for 45 times at bat.

    **Example:** `stabilised(np.array([0.5]))` is 0.

    **Source:** Efron and Morris 1975.
    """
    return np.sqrt(AT_BAT) * np.arcsin(2 * average - 1)


def average_of(value: np.ndarray) -> np.ndarray:
    """The batting average that has this value. **Example:** `average_of(np.array([0.0]))` is 0.5."""
    return 0.5 * (1 + np.sin(value / np.sqrt(AT_BAT)))


def players(settings: Settings) -> Groups:
    """18 players: the prior is learned from 45 times at bat, and assessed on the rest of the season.

    **Example:** `players(Settings()).found["learned"].error.sum()`.

    **Source:** Efron and Morris 1975, "Data analysis using Stein's estimator and its generalizations".
    """
    hits, _, rest = np.array(list(PLAYERS.values())).T
    return learn_groups(stabilised(hits / AT_BAT), stabilised(rest), settings.epochs)


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Groups that are made, and real ones: figure empirical_bayes.png.

    **Example:** `vfe run empirical-bayes`.
    """
    from vfe.gallery.foundations.empirical_bayes_page import write_up

    progress.start("priors", 2)
    made = make_groups(settings, seed)
    progress.step(F=made.found["learned"].free_energy)
    real = players(settings)
    progress.step(F=real.found["learned"].free_energy)
    progress.done()
    return write_up(settings, made, real)
