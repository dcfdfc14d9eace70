"""Free energy is one number with three readings, and it bounds surprise.

For any belief q over hidden causes, and any level of a hierarchy,

F = energy − entropy = complexity − accuracy = −ln p(x) + KL(q ‖ p(z | x)) ≥ −ln p(x).

Each reading is computed by a way of its own: energies and entropies node by node, divergences from
the prior and expected likelihoods, the exact posterior and evidence. Expected: they agree to rounding
for any q; F + ln p(x) is never below ½ |q − p(z | x)|₁² (Pinsker's inequality), so it is zero at the
posterior only; moving the likelihood's parameters at a fixed belief moves the accuracy alone; moving
the belief moves the divergence alone. The parameters of an empirical prior, p(z1 | z2), act through the
complexity, and are shown not to belong here. It would be refuted by readings that differ, an F below
surprise, or a gradient that does not vanish where it must.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import vfe
from vfe.gallery.foundations.toys import discrete_model, gaussian_divergence, gaussian_hierarchy
from vfe.gallery.job import JobResult, Progress, Workspace


@dataclasses.dataclass(frozen=True)
class Settings:
    """How many beliefs are tried."""

    beliefs: int = dataclasses.field(
        default=1000,
        metadata={"help": "random beliefs, about each sensation"},
    )

    def __post_init__(self) -> None:
        if self.beliefs < 2:
            raise ValueError(f"readings: got beliefs={self.beliefs}; wanted two or more.")


Gradients = tuple[np.ndarray, np.ndarray, np.ndarray]


class Found(NamedTuple):
    """What was computed in one model, over beliefs (and sensations).

    `readings` (3, …): F as energy − entropy, complexity − accuracy, surprise + divergence; `parts`: the
    six terms by name; `surprise` (…); `least` (…): the least that F + ln p(x) may be; `at_posterior`:
    F + ln p(x) at the exact posterior; `by_level`: complexity of each level, from F and in closed form;
    `likelihood`: dF, −d accuracy and d complexity in the likelihood's parameters, at a fixed belief;
    `empirical`: the same in those of the level above; `belief`: dF and d divergence in the belief's
    parameters; `perceived`: how far the belief that perception finds among states lies from
    the posterior.
    """

    readings: np.ndarray
    parts: dict[str, np.ndarray]
    surprise: np.ndarray
    least: np.ndarray
    at_posterior: np.ndarray
    by_level: dict[str, tuple[np.ndarray, np.ndarray]]
    likelihood: Gradients
    empirical: Gradients
    belief: tuple[np.ndarray, np.ndarray]
    perceived: float = 0.0

    @property
    def gap(self) -> np.ndarray:
        """F + ln p(x), F as energy − entropy."""
        return self.readings[0] - self.surprise


def in_states(settings: Settings, seed: int) -> Found:
    """Beliefs over five causes, uniform on the simplex and near its corners, for every sensation.

    **Example:** `in_states(Settings(beliefs=5), 0).gap.min()`.
    """
    with jax.enable_x64(True):
        model = discrete_model()
        random = np.random.default_rng(seed)
        sharpness = random.choice([0.3, 1.0, 5.0], settings.beliefs)
        q = np.stack([random.dirichlet(np.full(5, a)) for a in sharpness])
        q = np.maximum(q, 1e-12) / np.maximum(q, 1e-12).sum(1, keepdims=True)
        shape = (settings.beliefs, 7)
        data = {"x": np.broadcast_to(np.arange(7), shape)}
        belief = vfe.Categorical.from_probabilities({"z": np.broadcast_to(q[:, None], (*shape, 5))})
        seen = {"x": np.arange(7)}
        exact = vfe.exact.posterior(model, seen)
        posterior = np.asarray(vfe.exact.recognition_marginal(model, seen, "z").probabilities)
        surprise = -np.asarray(vfe.exact.log_evidence(model, seen))
        free = vfe.free_energy(model, belief, data)
        prior = np.asarray(vfe.exact.marginal(model, "z"))
        log_likelihood = np.log(1e-300 + np.stack([np.asarray(_table(model))[k] for k in range(7)]))
        terms = {
            "energy": free.energy,
            "entropy": free.entropy,
            "complexity": np.broadcast_to(_kullback(q, prior)[:, None], shape),
            "accuracy": q @ log_likelihood.T,
            "surprise": np.broadcast_to(surprise, shape),
            "divergence": _kullback(q[:, None], posterior),
        }
        parts = {name: np.asarray(value) for name, value in terms.items()}

        def divergence(b: Any) -> Any:
            log_q = jax.nn.log_softmax(b.logits["z"], -1)
            return (jnp.exp(log_q) * (log_q - jnp.log(posterior))).sum()

        found = vfe.perceive(model, seen, belief=vfe.Categorical, solver=vfe.CoordinateAscent())
        likelihood = _theta(model, belief, data, "x")
        return Found(
            _three(parts),
            parts,
            parts["surprise"],
            0.5 * np.abs(q[:, None] - posterior).sum(-1) ** 2,
            np.asarray(vfe.free_energy(model, exact, seen).total) - surprise,
            {"z": (np.asarray(free.by_level["z"]), parts["complexity"])},
            likelihood,
            _theta(model, belief, data, "z"),
            _lambda(model, belief, data, divergence),
            float(np.abs(np.asarray(found.belief["z"].probabilities) - posterior).max()),
        )


def in_levels(settings: Settings, seed: int) -> Found:
    """Gaussian beliefs that factorise over two levels, for as many sensations drawn from the model.

    **Example:** `in_levels(Settings(beliefs=5), 0).gap.min()`.
    """
    with jax.enable_x64(True):
        model = gaussian_hierarchy()
        n, random = settings.beliefs, np.random.default_rng(seed)
        data = {"x": eqx.filter_jit(model.sample)(jax.random.key(seed), shape=(n,))["x"]}
        exact: Any = vfe.exact.posterior(model, data)
        centre, covariance = np.asarray(exact.location), np.asarray(exact.covariance())
        size = np.exp(random.uniform(-4, 0.5, (n, 1)))
        means = centre + size * random.normal(size=(n, 5))
        blocks = np.zeros((n, 5, 5))
        for part in (slice(0, 2), slice(2, 5)):
            inner = np.linalg.inv(np.linalg.inv(covariance)[:, part, part])
            k = part.stop - part.start
            mixed = np.eye(k) + size[..., None] * random.normal(size=(n, k, k))
            blocks[:, part, part] = mixed @ inner @ np.swapaxes(mixed, -1, -2) + 1e-3 * np.eye(k)
        belief = vfe.NodeGaussian.from_moments(model, {"z2": means[:, :2], "z1": means[:, 2:]}, blocks)
        free = vfe.free_energy(model, belief, data)
        top: Any = model["z2"]()

        def divergence(b: Any) -> Any:
            posterior = dist.MultivariateNormal(centre, covariance_matrix=covariance)
            return dist.kl_divergence(
                dist.MultivariateNormal(b.location, scale_tril=b.factor()), posterior
            ).sum()

        level = {
            "z2": gaussian_divergence(means[:, :2], blocks[:, :2, :2], top.mean, np.diag(top.variance)),
            "z1": _below(model, "z1", means, blocks),
        }
        surprise = -np.asarray(vfe.exact.log_evidence(model, data))
        terms = {
            "energy": free.energy,
            "entropy": free.entropy,
            "complexity": level["z2"] + level["z1"],
            "accuracy": _accuracy(model, np.asarray(data["x"]), means, blocks),
            "surprise": surprise,
            "divergence": gaussian_divergence(means, blocks, centre, covariance),
        }
        parts = {name: np.asarray(value) for name, value in terms.items()}
        return Found(
            _three(parts),
            parts,
            surprise,
            np.zeros(n),
            np.asarray(vfe.free_energy(model, exact, data).total) - surprise,
            {name: (np.asarray(free.by_level[name]), level[name]) for name in level},
            _theta(model, belief, data, "x"),
            _theta(model, belief, data, "z1"),
            _lambda(model, belief, data, divergence),
        )


def with_entropy_times(found: Found, factor: float) -> Found:
    """The same with the entropy counted otherwise than once, to see the claims fail.

    **Example:** `with_entropy_times(in_states(Settings(beliefs=5), 0), 2.0).gap`.
    """
    return found._replace(readings=_three({**found.parts, "entropy": factor * found.parts["entropy"]}))


def _three(parts: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack(
        [
            parts["energy"] - parts["entropy"],
            parts["complexity"] - parts["accuracy"],
            parts["surprise"] + parts["divergence"],
        ]
    )


def _table(model: vfe.Model) -> Any:
    """p(x | z), (7, 5)."""
    node: Any = model["x"]
    return jax.nn.softmax(node.logits, 0)


def _kullback(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    return (q * (np.log(q) - np.log(p))).sum(-1)


def _below(model: vfe.Model, name: str, means: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """⟨KL(q(z1) ‖ p(z1 | z2))⟩ over q(z2): from the mean prediction, and for how much that varies."""
    node: Any = model[name]
    weight, spread = np.asarray(node.mean.weight), np.asarray(node(jnp.zeros(2)).variance)
    predicted = means[:, :2] @ weight.T + np.asarray(node.mean.bias)
    apart = gaussian_divergence(means[:, 2:], blocks[:, 2:, 2:], predicted, np.diag(spread))
    varied = np.einsum("ij,njk,ik->ni", weight, blocks[:, :2, :2], weight)
    return apart + 0.5 * (varied / spread).sum(-1)


def _accuracy(model: vfe.Model, x: np.ndarray, means: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    node: Any = model["x"]
    weight, spread = np.asarray(node.mean.weight), np.asarray(node(jnp.zeros(3)).variance)
    error = x - means[:, 2:] @ weight.T - np.asarray(node.mean.bias)
    varied = np.einsum("ij,njk,ik->ni", weight, blocks[:, 2:, 2:], weight)
    return -0.5 * ((error**2 + varied) / spread + np.log(2 * np.pi * spread)).sum(-1)


@eqx.filter_jit
def _gradients(model: vfe.Model, belief: Any, data: Any) -> Any:
    """d accuracy, d complexity and dF in every parameter of the model, means over the data."""
    numbers, rest = eqx.partition(model, eqx.is_inexact_array)

    def terms(numbers: Any) -> Any:
        free = vfe.free_energy(eqx.combine(numbers, rest), belief, data)
        return jnp.stack([free.accuracy.mean(), free.complexity.mean(), free.total.mean()])

    return jax.jacrev(terms)(numbers)


def _theta(model: vfe.Model, belief: Any, data: Any, node: str) -> Gradients:
    """dF, −d accuracy, d complexity in a node's parameters."""
    leaves = jax.tree.leaves(_gradients(model, belief, data).nodes[node])
    accuracy, complexity, total = np.concatenate([np.reshape(leaf, (3, -1)) for leaf in leaves], 1)
    return total, -accuracy, complexity


def _lambda(model: vfe.Model, belief: Any, data: Any, divergence: Any) -> tuple[np.ndarray, np.ndarray]:
    """dF and d divergence in the parameters of the belief."""
    free = eqx.filter_jit(eqx.filter_grad(lambda b: vfe.free_energy(model, b, data).total.sum()))(belief)
    apart = eqx.filter_jit(eqx.filter_grad(divergence))(belief)
    one, two = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(part)]) for part in (free, apart)
    )
    return one, two


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Random beliefs in a model of states and in a Gaussian hierarchy: figure readings.png.

    **Example:** `vfe run readings`.
    """
    from vfe.gallery.foundations.readings_page import write_up

    progress.start("readings", 2)
    states = in_states(settings, seed)
    progress.step()
    levels = in_levels(settings, seed)
    progress.step(gap=float(levels.gap.min()))
    progress.done()
    return write_up(states, levels)
