"""Small worlds in which every part of a recognition gap is known: many causes, unseen context, no gap."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import vfe

GRID = 20_001


def square_world(noise: float = 0.3) -> vfe.Model:
    """z ~ N(0, 1), x = z² + noise ε: two causes for one sensation. **Example:** `square_world().order`."""
    return vfe.Model(
        z=vfe.gaussian(jnp.zeros(1)), x=vfe.gaussian(jnp.square, scale=float(noise), parents="z")
    )


def square_world_cut(noise: float = 0.3) -> vfe.Model:
    """`square_world` with its backward connection cut: what is predicted does not depend on z.

    **Example:** `square_world_cut().order`.
    """
    return vfe.Model(
        z=vfe.gaussian(jnp.zeros(1)),
        x=vfe.gaussian(lambda z: 0.0 * z, scale=float(noise), parents="z"),
    )


def decoder_cut(model: vfe.Model) -> vfe.Model:
    """A model of images with the last backward weights at zero: predictions of x do not depend on z.

    **Example:** `decoder_cut(model).order`.
    """

    def last(m: vfe.Model) -> Any:
        maps = [n for n in jax.tree.leaves(m["x"], is_leaf=_is_network) if _is_network(n)]
        return maps[0].weights[-1]

    return eqx.tree_at(last, model, jnp.zeros_like(last(model)))


def _is_network(node: Any) -> bool:
    return isinstance(node, vfe.MLP)


def cubic_world(noise: float) -> vfe.Model:
    """z ~ N(0, 1), x = z + z³/5 + noise ε: an invertible map. **Example:** `cubic_world(0.1).order`."""

    def bent(z: jax.Array) -> jax.Array:
        return z + 0.2 * z**3

    return vfe.Model(z=vfe.gaussian(jnp.zeros(1)), x=vfe.gaussian(bent, scale=float(noise), parents="z"))


def linear_world() -> vfe.Model:
    """Two causes, three sensations, linear and Gaussian; the posterior's covariance is not diagonal."""
    weight = jnp.asarray([[1.0, 0.5], [0.2, 1.0], [-0.3, 0.4]])
    return vfe.Model(
        z=vfe.gaussian(jnp.zeros(2)), x=vfe.gaussian(vfe.Affine(weight), scale=0.5, parents="z")
    )


def surprise(model: vfe.Model, x: Any, ends: float = 8.0) -> np.ndarray:
    """−ln p(x) of a model with one hidden number, by the trapezoid rule over it, nats.

    **Example:** `surprise(square_world(), [[4.0]])` is 3.593.
    """
    grid = jnp.linspace(-ends, ends, GRID)

    @jax.jit
    def one(value: jax.Array) -> jax.Array:
        values = {"z": grid[:, None], "x": jnp.broadcast_to(value, (GRID, *value.shape))}
        energies = sum(model.energies(values).values())
        return -(jax.nn.logsumexp(-energies) + np.log(2 * ends / (GRID - 1)))

    return np.asarray(jax.lax.map(one, jnp.asarray(x, float)))


def encoder_for(
    model: vfe.Model,
    *,
    family: Any,
    width: int,
    steps: int,
    key: Any,
    batch: int = 128,
    rate: float = 1e-2,
    initial_sd: float | None = None,
) -> vfe.Amortised:
    """An encoder that descends F of a model that stays as it is, on fresh observations at every step.

    **Example:** `encoder_for(model, family=vfe.DiagonalGaussian, width=16, steps=500, key=key)`.
    """
    belief = vfe.recognition(model, family=family, width=width, depth=2, key=key, initial_sd=initial_sd)
    per_epoch = min(steps, 100)

    def fresh(key: Any, observed: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {"x": model.sample(key)["x"]}

    return vfe.learn(
        model,
        {"x": model.sample(key, shape=(per_epoch * batch,))["x"]},
        belief=belief,
        where=lambda m: (),
        epochs=-(-steps // per_epoch),
        batch_size=batch,
        augment=fresh,
        expectation=vfe.MonteCarlo(8),
        optimiser=optax.adam(optax.cosine_decay_schedule(rate, steps, 1e-3)),
        key=key,
    ).family


def width_for(parameters: int, model: vfe.Model, family: Any) -> int:
    """The width at which an encoder of this family has about so many parameters.

    **Example:** `width_for(500, square_world(), vfe.Mixture(2))`.
    """
    belief = vfe.recognition(model, family=family, width=2, depth=2, key=jax.random.key(0))
    made: Any = belief.encoder
    seen, given = made.weights[0].shape[1], made.weights[-1].shape[0]
    widths = np.arange(2, 65)
    counts = (seen + 1) * widths + (widths + 1) * widths + (widths + 1) * given
    return int(widths[np.argmin(np.abs(counts - parameters))])


def count_parameters(belief: vfe.Amortised) -> int:
    """The numbers in an encoder. **Example:** `count_parameters(belief)`."""
    return sum(int(np.size(a)) for a in jax.tree.leaves(belief.encoder) if hasattr(a, "shape"))


def gaussian_free_energy(mean: float, variance: float, noise: float, x: float) -> float:
    """F of N(mean, variance) about z in `square_world`, in closed form, nats.

    ⟨(x − z²)²⟩ = x² − 2 x (m² + v) + m⁴ + 6 m² v + 3 v².

    **Example:** `gaussian_free_energy(0.0, 4 / 3, 0.3, 4.0)`.
    """
    m, v = mean, variance
    squared = x**2 - 2 * x * (m**2 + v) + m**4 + 6 * m**2 * v + 3 * v**2
    energy = 0.5 * (m**2 + v + np.log(2 * np.pi)) + 0.5 * (
        squared / noise**2 + np.log(2 * np.pi * noise**2)
    )
    return float(energy - 0.5 * (1 + np.log(2 * np.pi * v)))


def regression_answer(model: vfe.Model, noise: float, x: float) -> tuple[Any, float]:
    """What regression of causes on sensations says in `square_world`, and its F in nats.

    Two mirrored causes are as likely, so their mean is 0; of the variances, that of least F.

    **Example:** `regression_answer(square_world(), 0.3, 4.0)[1]` is 58.9968.
    """
    # v · dF/dv = 3 v² / noise² + (½ − x / noise²) v − ½.
    roots = np.roots([3 / noise**2, 0.5 - x / noise**2, -0.5])
    v = float(roots[roots > 0].real.max())
    belief = vfe.DiagonalGaussian.from_moments(model, {"z": jnp.zeros(1)}, jnp.asarray([[v]]))
    return belief, gaussian_free_energy(0.0, v, noise, x)


def context_world() -> vfe.Model:
    """A context c that the model sees, p(z = c | c) = .9, p(x = z | z) = .7.

    **Example:** `context_world().order`.
    """
    return vfe.Model(
        c=vfe.categorical(np.asarray([0.5, 0.5])),
        z=vfe.categorical(np.asarray([[0.9, 0.1], [0.1, 0.9]]), parents="c"),
        x=vfe.categorical(np.asarray([[0.7, 0.3], [0.3, 0.7]]), parents="z"),
    )


def context_population() -> dict[str, np.ndarray]:
    """A hundred observations in the proportions of that world: the population, without sampling error.

    **Example:** `context_population()["x"].mean()` is 0.5.
    """
    counts = [33, 17, 17, 33]
    return {"c": np.repeat([0, 0, 1, 1], counts), "x": np.repeat([0, 1, 0, 1], counts)}


def unseen_information() -> float:
    """I(z; c | x) of `context_world` in nats: what no recognition of x alone can know of z.

    **Example:** `unseen_information()` is 0.3160.
    """
    context, seen = np.asarray([[0.9, 0.1], [0.1, 0.9]]), np.asarray([[0.7, 0.3], [0.3, 0.7]])
    joint = 0.5 * context[:, :, None] * seen[None]  # c, z, x
    x, cx, zx = joint.sum((0, 1)), joint.sum(1), joint.sum(0)
    return float((joint * np.log(joint * x / (cx[:, None] * zx[None]))).sum())


def context_losses(epochs: int = 400) -> dict[str, float]:
    """Mean F − (−ln p(c, x)) in nats of encoders that see x alone, and x with its context.

    **Example:** `context_losses()["sees x"]` is 0.3757.
    """
    model, data = context_world(), context_population()
    exact = np.mean(vfe.exact.log_evidence(model, data))
    found = {}
    for name, inputs in (("sees x", ("x",)), ("sees x and c", ("x", "c"))):
        table = vfe.Table(jnp.zeros((2,) * len(inputs) + (2,)), parents=len(inputs))
        belief = vfe.Amortised(table, vfe.Categorical, inputs)
        learned = vfe.learn(
            model,
            data,
            belief=belief,
            where=lambda m: (),
            epochs=epochs,
            optimiser=optax.adam(optax.cosine_decay_schedule(0.1, epochs)),
        )
        F = vfe.free_energy(model, learned.family, data)
        found[name] = float(np.mean(F.total) + exact)
    return found


def linear_loss(epochs: int = 1500, count: int = 64) -> float:
    """Mean F − (−ln p(x)) in nats of an affine encoder of a full covariance, in float64.

    **Example:** `linear_loss() < 1e-6`.
    """
    with jax.enable_x64(True):
        model = linear_world()
        x = model.sample(jax.random.key(1), shape=(count,))["x"]
        encoder = vfe.Affine(jnp.zeros((vfe.JointGaussian.size(_layout(model)), 3)))
        learned = vfe.learn(
            model,
            {"x": x},
            belief=vfe.Amortised(encoder, vfe.JointGaussian),
            where=lambda m: (),
            epochs=epochs,
            optimiser=optax.adam(optax.cosine_decay_schedule(0.05, epochs)),
        )
        F = vfe.free_energy(model, learned.family, {"x": x}).total
        return float(np.mean(F + vfe.exact.log_evidence(model, {"x": x})))


def _layout(model: vfe.Model) -> Any:
    return vfe.JointGaussian.from_moments(model, {"z": jnp.zeros(2)}, jnp.eye(2)).layout
