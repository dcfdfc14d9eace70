"""Layers of levels with any shape: against plain NumPy, batched by XLA, and named where they do not fit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close

import vfe
from vfe.conditioning import condition
from vfe.networks import (
    Activated,
    Composed,
    Convolution,
    MaxPool,
    Reshape,
    Residual,
    SelfAttention,
    convolutional,
    dense,
    generative,
    predict,
    supervised,
    two_way,
)
from vfe.perception.together import relax

KEY = jax.random.key(0)


def small_convolutional(channels=(3, 4)):
    """Levels of (3, 3, 3) and (4, 1, 1) between an image of one channel and three classes."""
    return convolutional((1, 6, 6), channels, outputs=3, key=KEY, kernel=3, activation=jnp.tanh)


def test_convolution_is_what_it_says():
    """pool(K ⋆ φ(z) + b), written out in loops."""
    rng = np.random.default_rng(0)
    z, kernel, bias = rng.normal(size=(2, 5, 7)), rng.normal(size=(3, 2, 3, 3)), rng.normal(size=3)
    layer = Convolution(jnp.asarray(kernel, float), jnp.asarray(bias, float), jnp.tanh, MaxPool(2))
    padded = np.pad(np.tanh(z), ((0, 0), (1, 1), (1, 1)))
    wanted = np.zeros((3, 5, 7))
    for o in range(3):
        for i in range(5):
            for j in range(7):
                wanted[o, i, j] = bias[o] + np.sum(kernel[o] * padded[:, i : i + 3, j : j + 3])
    pooled = wanted[:, :4, :6].reshape(3, 2, 2, 3, 2).max((2, 4))
    assert_close(layer(jnp.asarray(z, float)), pooled, 1e-5)


@pytest.mark.parametrize(("size", "sides"), [(2, (6, 7)), (3, (9, 8))])
def test_the_winner_alone_receives_the_error(size, sides):
    """MaxPool has the values and the gradient of Equinox's, which is zero off the largest elements."""
    z = jax.random.normal(KEY, (2, *sides))
    ours, theirs = MaxPool(size), eqx.nn.MaxPool2d(size, size)
    assert_close(ours(z), theirs(z), 0)
    weight = jax.random.normal(jax.random.key(1), ours(z).shape)
    got, wanted = (jax.grad(lambda z, f=f: jnp.sum(weight * f(z)))(z) for f in (ours, theirs))
    assert_close(got, wanted, 1e-6)
    assert np.count_nonzero(got) == weight.size


def test_self_attention_is_what_it_says():
    """softmax(Q Kᵀ / √d) V W for two heads, in NumPy."""
    attention = eqx.nn.MultiheadAttention(2, 6, key=KEY)
    z = np.random.default_rng(0).normal(size=(4, 6))
    names = ("query_proj", "key_proj", "value_proj", "output_proj")
    q, k, v, w = (np.asarray(getattr(attention, n).weight) for n in names)
    heads = []
    for h in range(2):
        rows = slice(3 * h, 3 * h + 3)
        score = (z @ q[rows].T) @ (z @ k[rows].T).T / np.sqrt(3)
        score = np.exp(score - score.max(-1, keepdims=True))
        heads.append(score / score.sum(-1, keepdims=True) @ (z @ v[rows].T))
    assert_close(SelfAttention(attention)(jnp.asarray(z, float)), np.concatenate(heads, -1) @ w.T, 1e-5)


def mixed():
    """Layers of every kind: convolution, tokens, normalisation, attention, a plain function, dense."""
    keys = iter(jax.random.split(KEY, 8))
    block = Composed(
        eqx.filter_vmap(eqx.nn.LayerNorm(4)),
        SelfAttention(eqx.nn.MultiheadAttention(2, 4, key=next(keys))),
    )
    return [
        Composed(eqx.nn.Conv2d(1, 4, 3, padding=1, key=next(keys)), eqx.nn.AvgPool2d(2, 2)),
        Composed(Reshape(4, 9), jnp.transpose),
        Residual(block, 0.5),
        lambda z: jnp.ravel(z[::2]),
        eqx.nn.Sequential([eqx.nn.RMSNorm(20), eqx.nn.Lambda(jnp.tanh), eqx.nn.Linear(20, 5, key=KEY)]),
        Activated(jax.random.normal(next(keys), (3, 5)), jnp.zeros(3)),
    ]


@pytest.mark.parametrize("make", [small_convolutional, mixed])
def test_equilibrium_of_levels_with_any_shape(make):
    """Where perception arrives, an energy written out by hand has the same value and is stationary."""
    with jax.enable_x64(True):
        layers = make()
        model = supervised(layers, inputs=(1, 6, 6), scale=0.6)
        rng = np.random.default_rng(0)
        seen = {"x": rng.normal(size=(2, 1, 6, 6)), "y": np.asarray([2, 0])}
        conditioned, _ = condition(model, seen)
        tight = {"max_steps": 300, "rtol": 1e-11, "atol": 1e-11}
        belief, _ = relax(conditioned, vfe.Anderson(), KEY, **tight)
        names = [f"z{i}" for i in range(len(layers) - 1, 0, -1)]

        def energy(levels, x, y):
            total, above = 0.0, x
            for layer, level in zip(layers, levels, strict=False):
                error = (level - layer(above)) / 0.6
                total += 0.5 * jnp.sum(error**2) + error.size * (np.log(0.6) + 0.5 * np.log(2 * np.pi))
                above = level
            return total - jax.nn.log_softmax(layers[-1](above))[y]

        found = belief.layout.decode(belief.location)
        values = model.energies({**{n: jnp.asarray(v) for n, v in seen.items()}, **found})
        for i in range(2):
            value, slope = jax.value_and_grad(energy)(
                [found[n][i] for n in names], jnp.asarray(seen["x"][i]), seen["y"][i]
            )
            assert_close(sum(v[i] for v in values.values()), value, 1e-9)
            assert max(float(jnp.abs(s).max()) for s in slope) < 1e-6


def test_gauss_newton_and_laplace_go_through_convolutions():
    """Forward derivatives exist too: ErrorCoordinates and the curvature of Laplace arrive."""
    model = supervised(small_convolutional((2,)), inputs=(1, 6, 6))
    seen = {"x": np.random.default_rng(0).normal(size=(1, 6, 6)), "y": 1}
    percept = vfe.perceive(model, seen, belief=vfe.Laplace, solver=vfe.ErrorCoordinates())
    assert bool(percept.converged)
    assert percept.belief["z1"].mean.shape == (2, 3, 3)
    assert np.isfinite(float(percept.free_energy.total))


def test_convolutions_reach_the_compiler_as_batches():
    """The gradient in the errors of 7 images: every product of matrices is of all 7, without a loop."""
    model = supervised(small_convolutional(), inputs=(1, 6, 6))
    conditioned, _ = condition(model, {"x": np.zeros((7, 1, 6, 6)), "y": np.zeros(7, int)})
    errors = jnp.zeros((7, 3 * 9 + 4))
    slope = lambda e: conditioned.over(lambda c, e: jax.grad(c.error_energy)(e), e)  # noqa: E731
    equations = list(flat(jax.make_jaxpr(slope)(errors).jaxpr))
    kernels = [e for e in equations if e.primitive.name == "dot_general"]
    assert len(kernels) >= 4
    assert all(any(7 in v.aval.shape for v in e.invars) for e in kernels)
    assert not {e.primitive.name for e in equations} & {"while", "scan"}


def flat(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from flat(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("pool", [None, eqx.nn.AvgPool2d(2, 2)])
def test_initial_variances(pool):
    """Weights have the variance that the docstring states, and levels one of order one."""
    layers = convolutional((2, 8, 8), (40, 40), outputs=50, key=KEY, kernel=3, hidden=(60,), pool=pool)
    rng = np.random.default_rng(0)
    u = rng.normal(size=(100_000, 4))
    u = u.max(-1) if pool is None else u.mean(-1)
    gain = 1 / np.mean(np.asarray(jax.nn.gelu(u)) ** 2)
    wanted = [1 / 18, gain / (9 * 40), gain / (40 * 4), 1 / 60]
    z = jax.random.normal(KEY, (50, 2, 8, 8))
    for layer, variance in zip(layers, wanted, strict=True):
        weight = layer.kernel if isinstance(layer, Convolution) else layer.weight
        assert abs(float(jnp.var(layer.multiplier * weight)) / variance - 1) < 0.2
        z = jax.vmap(layer)(z)
        assert 0.2 < float(z.std()) < 5.0


def test_parameters_inside_wrapped_layers_are_learned():
    """`eqx.filter_vmap` keeps a module's parameters in sight, and one step moves them."""
    model = supervised(mixed(), inputs=(1, 6, 6))
    data = {"x": np.random.default_rng(0).normal(size=(4, 1, 6, 6)), "y": np.asarray([0, 1, 2, 0])}
    learned = vfe.learn(
        model, data, epochs=1, belief=vfe.Point, solver=vfe.Anderson(), keep_beliefs=False,
        perception_steps=2, optimiser=optax.sgd(0.1),
    )  # fmt: skip
    before, after = (
        [np.asarray(a) for a in jax.tree.leaves(m) if eqx.is_inexact_array(a)]
        for m in (model, learned.model)
    )
    moved = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    # The scales are fixed: they are the only leaves that stay.
    assert moved.count(False) == len(mixed()) - 1


def test_learning_digits_with_convolutions():
    """A small convolutional network reads nine in ten of held-out digits, by other writers."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    layers = convolutional((1, 8, 8), (16, 32), outputs=10, key=KEY, kernel=3)
    learned = vfe.learn(
        supervised(layers, inputs=(1, 8, 8)),
        {"x": x[:1200], "y": labels[:1200]},
        epochs=10,
        batch_size=32,
        belief=vfe.Point,
        solver=vfe.Anderson(),
        perception_steps=4,
        rtol=1e-2,
        keep_beliefs=False,
        optimiser=optax.adam(optax.cosine_decay_schedule(5e-3, 10 * 38)),
        key=KEY,
    )
    guess = predict(learned.model, {"x": x[1200:]}).argmax(-1)
    assert (guess == labels[1200:]).mean() > 0.9


def batch_norm():
    return eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, "batch", mode="batch")[0]


FIRST = dense([5, 4, 3], key=KEY)
WRAPPED = jax.vmap(eqx.nn.LayerNorm(2))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: [*FIRST[:1], batch_norm(), FIRST[1]], r"layer 1 \(BatchNorm\) contains .*GroupNorm"),
        (lambda: [*FIRST[:1], eqx.nn.Dropout(0.5), FIRST[1]], r"layer 1 \(Dropout\) .*at random"),
        (
            lambda: [*FIRST[:1], Composed(Reshape(2, 2), eqx.nn.Dropout(0.5)), FIRST[1]],
            r"layer 1 \(Composed: Reshape, Dropout\) contains a Dropout",
        ),
        (
            lambda: [*FIRST[:1], Reshape(3, 3), FIRST[1]],
            r"Reshape\) does not fit layer 0 \(Dense\).*\(4,\)",
        ),
        (lambda: [lambda z: (z, z), FIRST[1]], "gives tuple; wanted one array"),
        (lambda: [lambda z: jnp.argmax(z), FIRST[1]], "gives int.*; wanted one array"),
        (lambda: [*FIRST[:1], Composed(Reshape(2, 2), WRAPPED), FIRST[1]], r"eqx\.filter_vmap"),
        (lambda: [*FIRST[:1], 3.0], "not callable"),
    ],
)
def test_layers_that_are_no_maps_of_one_value(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        supervised(make(), inputs=5)


def test_what_is_switched_off_may_stay():
    """Dropout that is off, or inside attention with probability zero, is a fixed function."""
    off = eqx.nn.inference_mode(eqx.nn.Dropout(0.5))
    supervised([FIRST[0], off, FIRST[1]], inputs=5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda layers: supervised(layers, inputs=5), "supervised: layer 1"),
        (lambda layers: generative(layers, latent=5), "generative: layer 1"),
        (lambda layers: generative(layers, labels=2, latent=3), "generative: layer 1"),
        (lambda layers: two_way(layers, [FIRST[0]], latent=5), "two_way: image layer 1"),
        (lambda layers: two_way([FIRST[0]], layers, latent=5), "two_way: label layer 1"),
        (
            lambda layers: two_way([FIRST[1]], [FIRST[1]], latent=5, common=layers),
            "two_way: common layer 1",
        ),
    ],
)
def test_every_maker_names_both_layers(make, words):
    bad = [FIRST[0], dense([6, 3], key=KEY)[0]]
    with pytest.raises(ValueError, match=words + r" \(Dense\) does not fit .*layer 0 \(Dense\).*\(4,\)"):
        make(bad)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: convolutional((1, 8), outputs=3, key=KEY), "channels, height, width"),
        (lambda: convolutional((1, 8, 8), (), outputs=3, key=KEY), "at least one"),
        (lambda: convolutional((1, 8, 8), outputs=3, key=KEY, kernel=4), "odd"),
        (lambda: convolutional((1, 2, 2), (3, 3), outputs=3, key=KEY), r"convolution 1 .*\(3, 1, 1\)"),
        (lambda: convolutional((1, 8, 8), outputs=3, key=KEY, gain=-1.0), "positive"),
        (lambda: MaxPool(0), "at least 1"),
        (lambda: MaxPool(3)(jnp.zeros((1, 2, 9))), r"\(1, 2, 9\)"),
    ],
)
def test_images_that_do_not_fit(make, words):
    with pytest.raises(ValueError, match=words):
        make()
