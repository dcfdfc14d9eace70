"""Priors by recursion, in both directions: down from the top, and up from the senses.

The prior of a level is a mean over its parent, p(z_i) = Σ p(z_i | z_{i+1}) p(z_{i+1}), from the top prior
down. The same marginals come out of the senses, p(z_i) = Σ p(z_i | z_{i−1}) p(z_{i−1}) with p(z_0) =
p(x), if the upward kernels are those of the same joint density, and x is what the model says it is. For a
single x the upward recursion gives p(z_i | x), a recognition, not a prior. A kernel that is parametrised
upward by itself, not derived from the joint, need not agree; how far it is off is KL(p(z_i) ‖ upward
marginal), in nats.

It would be refuted by two directions that differ although both come from one joint, by a single x whose
upward marginal is the prior, or by an arbitrary upward kernel that agrees.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.gallery.foundations.toys import gaussian_divergence, gaussian_hierarchy
from vfe.gallery.job import JobResult, Progress, Workspace

STATES = (5, 4, 3)  # of the top, the level below, and the senses


@dataclasses.dataclass(frozen=True)
class Settings:
    """How many parametrised upward kernels are tried, and how far they are from the joint's."""

    kernels: int = dataclasses.field(default=200, metadata={"help": "upward kernels that are tried"})
    disturbance: float = dataclasses.field(
        default=1.0, metadata={"help": "sd added to their logits, 0.3 of it to weights"}
    )

    def __post_init__(self) -> None:
        if self.kernels < 2 or not self.disturbance > 0:
            raise ValueError(
                f"priors: got kernels={self.kernels} and disturbance={self.disturbance}; wanted two "
                f"kernels or "
                "more, and a disturbance above zero."
            )


class Chain(NamedTuple):
    """A chain of levels, by name from the senses up.

    `down`, `up`: what describes the marginal of each level (probabilities; mean and covariance) by either
    recursion; `exact`: summed over the joint by itself; `single`: KL(p(z | x) ‖ p(z)) of each level for
    one x; `mutual`: its mean over x, I(z; x); `mismatch` (kernels,) of each level: KL(p(z) ‖ upward
    marginal) of upward kernels that do not come from the joint; `one`: z1 given one x,
    as probabilities, or its first element's mean and variance."""

    down: dict[str, Any]
    up: dict[str, Any]
    exact: dict[str, Any]
    single: dict[str, float]
    mutual: dict[str, float]
    mismatch: dict[str, np.ndarray]
    one: Any


def discrete_chain() -> tuple[vfe.Model, list[np.ndarray]]:
    """z2 → z1 → x, and its tables p(z2), p(z1 | z2), p(x | z1), outcomes first.

    **Example:** `discrete_chain()[0].order`.
    """
    random = np.random.default_rng(1)
    top, middle, senses = STATES
    tables = [
        random.dirichlet(np.ones(top)),
        random.dirichlet(np.ones(middle), top).T,
        random.dirichlet(np.ones(senses), middle).T,
    ]
    model = vfe.hierarchy(
        [
            vfe.categorical(tables[0]),
            vfe.categorical(tables[1], parents="above"),
            vfe.categorical(tables[2], parents="above"),
        ]
    )
    return model, tables


def in_states(settings: Settings, seed: int) -> Chain:
    """Both recursions in a chain of states. **Example:** `in_states(Settings(kernels=2), 0).mutual`."""
    with jax.enable_x64(True):
        model, tables = discrete_chain()
        down = {n: np.asarray(_marginal(model, n)) for n in ("x", "z1", "z2")}
        belief: Any = vfe.exact.posterior(model, {"x": np.arange(STATES[2])})
        below = {"x": down["x"]}
        up, single, mutual, kernels = {}, {}, {}, {}
        above = vfe.Model(**{n: model[n] for n in ("z2", "z1")})
        levels = {"z1": np.arange(STATES[1])}
        kernels["z1"] = np.asarray(belief["z1"].probabilities)
        kernels["z2"] = np.asarray(vfe.exact.recognition_marginal(above, levels, "z2").probabilities)
        for name, source in (("z1", "x"), ("z2", "z1")):
            up[name] = below[source] @ kernels[name]
            below[name] = up[name]
            given_x = np.asarray(belief[name].probabilities)
            apart = (given_x * np.log(given_x / down[name])).sum(-1)
            single[name], mutual[name] = float(apart[0]), float(down["x"] @ apart)
        everything = np.einsum("c,bc,ab->abc", tables[0], tables[1], tables[2])
        exact = {"x": everything.sum((1, 2)), "z1": everything.sum((0, 2)), "z2": everything.sum((0, 1))}
        random = np.random.default_rng(seed)
        mismatch = {name: np.zeros(settings.kernels) for name in up}
        for k in range(settings.kernels):
            here = down["x"]
            for name in ("z1", "z2"):
                noise = settings.disturbance * random.normal(size=kernels[name].shape)
                kernel = kernels[name] * np.exp(noise)
                here = here @ (kernel / kernel.sum(1, keepdims=True))
                mismatch[name][k] = (down[name] * np.log(down[name] / here)).sum()
        return Chain(down, {"x": down["x"], **up}, exact, single, mutual, mismatch, kernels["z1"][0])


def in_levels(settings: Settings, seed: int) -> Chain:
    """Both recursions in a linear Gaussian chain. **Example:** `in_levels(Settings(kernels=2),
    0).mutual`."""
    with jax.enable_x64(True):
        model = gaussian_hierarchy()
        marginals: dict[str, Any] = {n: _marginal(model, n) for n in ("x", "z1", "z2")}
        down = {n: (np.asarray(m.location), np.asarray(m.covariance())) for n, m in marginals.items()}
        # The upward kernels are affine: their means at the origin and at unit vectors give them.
        first = _kernel(model, "x", "z1", 4)
        second = _kernel(vfe.Model(**{n: model[n] for n in ("z2", "z1")}), "z1", "z2", 3)
        kernels = {"z1": first, "z2": second}
        up = {"x": down["x"]}
        for name, source in (("z1", "x"), ("z2", "z1")):
            up[name] = _pushed(up[source], kernels[name])
        weight2, weight1 = np.asarray(_mean(model, "z1").weight), np.asarray(_mean(model, "x").weight)
        top, bias1 = np.asarray(_density(model, "z2").mean), np.asarray(_mean(model, "z1").bias)
        spread = {n: np.asarray(_density(model, n).variance) for n in ("z2", "z1", "x")}
        middle = weight2 * spread["z2"] @ weight2.T + np.diag(spread["z1"])
        exact = {
            "z2": (top, np.diag(spread["z2"])),
            "z1": (weight2 @ top + bias1, middle),
            "x": (
                weight1 @ (weight2 @ top + bias1) + np.asarray(_mean(model, "x").bias),
                weight1 @ middle @ weight1.T + np.diag(spread["x"]),
            ),
        }
        random = np.random.default_rng(seed)
        x = random.multivariate_normal(*down["x"], size=1000)
        belief: Any = vfe.exact.posterior(model, {"x": x})
        covariance = np.asarray(belief.covariance())
        where = {"z2": slice(0, 2), "z1": slice(2, 5)}
        single, mutual = {}, {}
        for name, part in where.items():
            means = np.asarray(belief.location)[:, part]
            apart = gaussian_divergence(means, covariance[:, part, part], *down[name])
            single[name] = float(apart[0])
            gained = np.linalg.slogdet(down[name][1])[1] - np.linalg.slogdet(covariance[0, part, part])[1]
            mutual[name] = float(0.5 * gained)
        mismatch = {name: np.zeros(settings.kernels) for name in kernels}
        for k in range(settings.kernels):
            here = down["x"]
            for name, (weight, bias, noise) in kernels.items():
                factor = 1 + 0.3 * settings.disturbance * random.normal(size=weight.shape)
                here = _pushed(here, (weight * factor, bias, noise))
                mismatch[name][k] = gaussian_divergence(*down[name], *here)
        one = float(belief.location[0, 2]), float(covariance[0, 2, 2])
        return Chain(down, up, exact, single, mutual, mismatch, one)


@eqx.filter_jit
def _marginal(model: vfe.Model, name: str) -> Any:
    return vfe.exact.marginal(model, name)


def _density(model: vfe.Model, name: str) -> Any:
    parents = [jnp.zeros(model.describe(p).shape) for p in model.describe(name).parents]
    return model[name](*parents)


def _mean(model: vfe.Model, name: str) -> Any:
    node: Any = model[name]
    return node.mean


def _kernel(model: vfe.Model, source: str, name: str, size: int) -> Any:
    """p(name | source) of the joint, by recognition: weight, bias and covariance."""
    values = {source: np.concatenate([np.zeros((1, size)), np.eye(size)])}
    found = eqx.filter_jit(vfe.exact.recognition_marginal)(model, values, name)
    means = np.asarray(found.mean)
    return (means[1:] - means[0]).T, means[0], np.asarray(found.covariance)[0]


def _pushed(below: Any, kernel: Any) -> tuple[np.ndarray, np.ndarray]:
    (mean, covariance), (weight, bias, noise) = below, kernel
    return weight @ mean + bias, weight @ covariance @ weight.T + noise


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Both directions in a chain of states and in a Gaussian chain: figure priors.png.

    **Example:** `vfe run priors`.
    """
    from vfe.gallery.foundations.priors_page import write_up

    progress.start("priors", 2)
    states = in_states(settings, seed)
    progress.step()
    levels = in_levels(settings, seed)
    progress.step(mismatch=float(levels.mismatch["z1"].mean()))
    progress.done()
    return write_up(settings, states, levels)
