"""Repeated levels in one node: the same numbers as the levels one by one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close

import vfe
from vfe.networks import Dense, FromLast, Repeated, dense, generative, predict, supervised, two_way

KEYS = jax.random.split(jax.random.key(0), 6)
pytestmark = pytest.mark.usefixtures("float64")


def layers():
    return [Dense(0.7 * jax.random.normal(k, (4, 4)), jnp.zeros(4), jnp.tanh) for k in KEYS]


def last():
    return Dense(jax.random.normal(KEYS[0], (3, 4)), jnp.zeros(3), jnp.tanh)


def unrolled(scales=(0.5,) * 6):
    nodes = {"x": vfe.given(4)}
    above = "x"
    for i, (layer, scale) in enumerate(zip(layers(), scales, strict=True)):
        nodes[f"z{6 - i}"] = vfe.gaussian(layer, scale=scale, parents=above)
        above = f"z{6 - i}"
    return vfe.Model(**nodes, y=vfe.categorical(logits=last(), parents="z1"))


def rolled(scale=0.5):
    return vfe.Model(
        x=vfe.given(4),
        z=vfe.cascade(Repeated(layers()).layers, scale=scale, parents="x"),
        y=vfe.categorical(logits=FromLast(last()), parents="z"),
    )


def seen(count=3):
    return {"x": np.random.default_rng(0).normal(size=(count, 4)), "y": np.arange(count) % 3}


def test_density_and_samples():
    """Energies of given values level by level; samples have standard normal errors, as drawn."""
    model = rolled()
    drawn = model.sample(jax.random.key(1), given={"x": seen()["x"]})
    levels = {f"z{6 - i}": drawn["z"][:, i] for i in range(6)}
    one_by_one = unrolled().energies({"x": drawn["x"], "y": drawn["y"], **levels})
    together = model.energies(drawn)
    assert_close(together["z"], sum(one_by_one[f"z{i}"] for i in range(1, 7)), 1e-12)
    assert_close(together["y"], one_by_one["y"], 1e-12)
    density = model.density("z", {"x": drawn["x"][0]})
    assert_close(density.push(density.errors(drawn["z"][0])), drawn["z"][0], 1e-12)
    assert density.sample(jax.random.key(2), (2, 3)).shape == (2, 3, 6, 4)
    errors = jax.vmap(density.errors)(density.sample(jax.random.key(3), (4000,)))
    assert_close(errors.mean(0), np.zeros((6, 4)), 0.08)
    assert_close(errors.var(0), np.ones((6, 4)), 0.12)


@pytest.mark.parametrize(
    ("solver", "belief"),
    [(vfe.Anderson(), vfe.GaussNewtonLaplace), (vfe.ErrorCoordinates(), vfe.Point)],
    ids=["Anderson", "GaussNewton"],
)
def test_perception(solver, belief):
    """The same modes, F and variances as with the levels as nodes of their own."""
    options = {"belief": belief, "solver": solver, "rtol": 1e-11, "atol": 1e-11, "throw": False}
    ours, wanted = vfe.perceive(rolled(), seen(), **options), vfe.perceive(unrolled(), seen(), **options)
    assert_close(ours.free_energy.total, wanted.free_energy.total, 1e-10)
    for i in range(6):
        assert_close(ours.belief["z"].mean[:, i], wanted.belief[f"z{6 - i}"].mean, 1e-9)
    if belief is vfe.GaussNewtonLaplace:
        hidden = sum(wanted.free_energy.by_level[f"z{i}"] for i in range(1, 7))
        assert_close(ours.free_energy.by_level["z"], hidden, 1e-9)
        assert_close(ours.belief["z"].variance[:, -1], wanted.belief["z1"].variance, 1e-9)


def test_one_scale_per_level_is_learned():
    """A step of learning moves weights and the precision of every level as it does one by one."""
    scales = np.linspace(0.4, 0.9, 6)
    options = {
        "belief": vfe.GaussNewtonLaplace,
        "solver": vfe.Anderson(),
        "perception_steps": 300,
        "rtol": 1e-12,
        "atol": 1e-12,
        "epochs": 2,
        "optimiser": optax.sgd(0.1),
    }
    ours = vfe.learn(rolled(vfe.learnable(scales[:, None])), seen(), **options).model
    wanted = vfe.learn(unrolled([vfe.learnable(s) for s in scales]), seen(), **options).model
    for i in range(6):
        one = wanted[f"z{6 - i}"]
        assert_close(ours["z"].layers.weight[i], one.mean.weight, 1e-9)
        assert_close(ours["z"].noise.log_precision[i, 0], one.noise.log_precision, 1e-9)
    with pytest.raises(ValueError, match="hidden node 'z' has no optimum"):
        vfe.learn(rolled(vfe.learnable(0.5)), seen(), belief=vfe.Point)


def test_deep_networks_repeat_by_themselves():
    """dense gathers runs of equal layers; every maker turns them into one node with the same numbers."""
    options = {"key": KEYS[0], "activation": jnp.tanh, "residual": True}
    sizes = [5, *[4] * 10, 3]
    deep, long = dense(sizes, **options), dense(sizes, repeat_from=99, **options)
    assert [type(layer).__name__ for layer in deep] == ["Dense", "Repeated", "Dense"]
    models = [supervised(layers, inputs=5) for layers in (deep, long)]
    assert models[0].order == ("x", "z10", "z9to1", "y")
    data = {"x": np.random.default_rng(0).normal(size=(2, 5)), "y": np.array([0, 2])}
    solver = vfe.Anderson()
    found = [vfe.perceive(m, data, belief=vfe.Point, solver=solver, throw=False) for m in models]
    assert_close(found[0].free_energy.total, found[1].free_energy.total, 1e-10)
    assert_close(predict(models[0], {"x": data["x"]}), predict(models[1], {"x": data["x"]}), 1e-12)
    assert generative(deep, latent=5).order == ("z11", "z10", "z9to1", "x")
    both = two_way(deep, deep, latent=5, common=[Repeated([Dense(jnp.eye(5), jnp.zeros(5))] * 2)])
    assert both.order == ("z13", "z12to11", "z10", "z9to1", "y10", "y9to1", "label", "x")
    with pytest.raises(ValueError, match="is a Repeated"):
        generative([deep[1], deep[2]], labels=2, latent=2)


def test_the_output_layer_is_never_repeated():
    """An output as wide as the levels stays a layer of its own, and a learned scale one of every level."""
    layers = dense([6] * 12, key=KEYS[0], activation=jnp.tanh)
    assert supervised(layers, inputs=6).order == ("x", "z10", "z9to1", "y")
    assert generative(layers, latent=6).order == ("z11", "z10", "z9to1", "x")
    learned = supervised(layers, inputs=6, scale=vfe.learnable(0.3))
    assert learned["z10"].noise.log_precision.shape == ()
    assert learned["z9to1"].noise.log_precision.shape == (9, 1)
    with pytest.raises(ValueError, match="the last layer is a Repeated"):
        supervised([layers[0], layers[1]], inputs=6)


def test_missing_levels():
    """A cascade that is observed may be missing as a whole, beside complete ones; not in part."""
    model, rng = rolled(), np.random.default_rng(1)
    x, z = np.ones((2, 4)), rng.normal(size=(2, 6, 4))
    y = np.array([0, 0])
    whole = vfe.perceive(model, {"x": x, "z": z, "y": y}).free_energy.total
    gap = z.copy()
    gap[0, 1] = np.nan
    with pytest.raises(ValueError, match="complete or wholly missing"):
        vfe.perceive(model, {"x": x, "z": gap, "y": y})
    gap[0] = np.nan
    some = vfe.perceive(model, {"x": x, "z": gap}, belief=vfe.Laplace).free_energy.total
    assert_close(some[1], vfe.perceive(model, {"x": x[1:], "z": z[1:]}).free_energy.total[0], 1e-10)
    assert_close(some[0], 0.0, 1e-10)
    assert np.all(np.isfinite(np.asarray(whole)))


def test_repeated_is_a_layer():
    z = x = jnp.asarray(seen()["x"][0])
    for layer in layers():
        z = layer(z)
    assert_close(Repeated(layers())(x), z, 1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Repeated([]), "no layers"),
        (lambda: Repeated([jnp.tanh] * 3), "no JAX arrays"),
        (lambda: Repeated([*layers(), last()]), r"layer 6 \(Dense\) is not like layer 0"),
        (lambda: Repeated([layers()[0], eqx.nn.Linear(4, 4, key=KEYS[0])]), r"layer 1 \(Linear\)"),
        (
            lambda: vfe.Model(x=vfe.given(4), z=vfe.cascade(layers()[0], parents="x")),
            "'z' does not fit its parents",
        ),
        (lambda: vfe.cascade(Dense(jnp.ones((3, 4)), jnp.zeros(2)), parents="x"), "one length for all"),
        (lambda: vfe.cascade(Repeated(layers()).layers, parents=("x", "y")), "wanted one"),
        (lambda: vfe.cascade(Repeated(layers()).layers, parents="x", scale=jnp.exp), "not a function"),
        (lambda: vfe.cascade(Repeated(layers()).layers, parents="x", scale=-1.0), "positive"),
        (
            lambda: vfe.Model(x=vfe.given(5), z=vfe.cascade(Repeated(layers()).layers, parents="x")),
            "'z' does not fit its parents",
        ),
    ],
)
def test_what_does_not_repeat(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()


def test_exact_names_the_cascade():
    model = vfe.Model(
        x=vfe.given(4),
        z=vfe.cascade(Repeated(layers()).layers, parents="x"),
        y=vfe.gaussian(lambda z: z[-1], parents="z"),
    )
    with pytest.raises(ValueError, match=r"node 'z' is a vfe\.cascade"):
        vfe.exact.posterior(model, {"x": np.zeros(4), "y": np.zeros(4)})
