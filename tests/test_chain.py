"""Chains: their energies, samples and F, against the same density written out as a graph."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vfe
from vfe.chain import Chain

pytestmark = pytest.mark.usefixtures("float64")


def linear():
    flow = jnp.asarray([[0.9, 0.2], [-0.2, 0.8]])
    return Chain(
        vfe.gaussian(jnp.ones(2), scale=2.0),
        vfe.gaussian(vfe.Affine(flow), covariance=jnp.asarray([[0.3, 0.1], [0.1, 0.2]]), parents="z"),
        vfe.gaussian(vfe.Affine(jnp.asarray([[1.0, -0.5]])), scale=0.4, parents="z"),
    )


def rich():
    """Two continuous factors (one reads the other's present), a discrete one, an input, two senses."""
    table = jnp.asarray([[0.9, 0.2], [0.1, 0.8]])
    return Chain(
        {
            "k": vfe.categorical(jnp.asarray([0.7, 0.3])),
            "w": vfe.gaussian(0.0),
            "z": vfe.gaussian(lambda w: jnp.stack([w, 2 * w]), parents="w"),
        },
        {
            "k": vfe.categorical(table, parents="k"),
            "w": vfe.gaussian(lambda w, u: jnp.tanh(w) + u[0], scale=0.3, parents=("w", "u")),
            "z": vfe.gaussian(lambda z, w, k: 0.5 * z + w + k, scale=0.2, parents=("z", "w'", "k'")),
        },
        {
            "x": vfe.gaussian(lambda z, u: z[0] * z[1] + u.sum(), scale=0.5, parents=("z", "u")),
            "y": vfe.gaussian(lambda w, x: w + 0.1 * x, scale=0.7, parents=("w", "x")),
        },
        inputs={"u": vfe.given(2)},
    )


def test_energies_equal_those_of_the_unrolled_model():
    """Also behind leading axes, the last of which is time."""
    chain = rich()
    u = jax.random.normal(jax.random.key(1), (4, 2))
    values = chain.sample(jax.random.key(0), 4, given={"u": u}, shape=(3,))
    found = chain.energies(values)
    graph = chain.unroll(4).energies(chain.split(values))
    assert list(found) == list(chain.names)
    for name in chain.names:
        assert found[name].shape == (3, 4)
        for t in range(4):
            np.testing.assert_allclose(found[name][:, t], graph[f"{name}_{t}"], rtol=1e-12)
    back = chain.stack(chain.split(values))
    for name, value in values.items():
        np.testing.assert_array_equal(back[name], value)


def test_one_step_has_no_transition():
    chain = linear()
    values = chain.sample(jax.random.key(0), 1)
    found = chain.energies(values)
    graph = chain.unroll(1).energies(chain.split(values))
    np.testing.assert_allclose(found["z"][0], graph["z_0"], rtol=1e-12)
    assert found["x"].shape == (1,)


def test_samples_have_the_moments_of_the_unrolled_model():
    """Over 20 000 sequences: mean and covariance of every element at every step."""
    chain = linear()
    found = chain.sample(jax.random.key(0), 3, shape=(20_000,))
    values = np.concatenate([found["z"].reshape(-1, 6), found["x"].reshape(-1, 3)], 1)
    graph = chain.unroll(3)
    names = ("z_0", "z_1", "z_2", "x_0", "x_1", "x_2")
    means = [np.asarray(vfe.exact.marginal(graph, n)[n].mean).ravel() for n in names]
    spreads = [np.asarray(vfe.exact.marginal(graph, n)[n].sd).ravel() for n in names]
    np.testing.assert_allclose(values.mean(0), np.concatenate(means), atol=0.06)
    np.testing.assert_allclose(values.std(0), np.concatenate(spreads), rtol=0.03)
    one_step = values[:, 2:4] - values[:, :2] @ np.asarray([[0.9, 0.2], [-0.2, 0.8]]).T
    np.testing.assert_allclose(np.cov(one_step.T), [[0.3, 0.1], [0.1, 0.2]], atol=0.02)


def test_held_states_are_an_intervention():
    chain = linear()
    z = jnp.arange(10.0).reshape(5, 2)
    found = chain.sample(jax.random.key(0), 5, given={"z": z}, shape=(2,))
    np.testing.assert_array_equal(found["z"], jnp.stack([z, z]))


def test_long_chains_cost_no_graph():
    """Ten thousand steps, sampled and evaluated: tracing must not grow with the number of steps."""
    chain = linear()
    start = time.perf_counter()
    values = chain.sample(jax.random.key(0), 10_000)
    energies = jax.jit(lambda values: chain.energies(values))(values)
    assert energies["z"].shape == (10_000,)
    assert time.perf_counter() - start < 60
    small = jax.make_jaxpr(chain.energies)({n: v[:10] for n, v in values.items()})
    large = jax.make_jaxpr(chain.energies)(values)
    assert len(small.jaxpr.eqns) == len(large.jaxpr.eqns)
    # The average energy per step is the entropy rate of the noise: ½ ln |2πe Q|.
    wanted = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.asarray([[0.3, 0.1], [0.1, 0.2]]))[1]
    assert float(energies["z"][1:].mean()) == pytest.approx(wanted, abs=0.05)


@pytest.mark.parametrize("family", [vfe.JointGaussian, vfe.DiagonalGaussian])
def test_free_energy_by_step_equals_the_unrolled_one(family):
    chain = linear()
    x = chain.sample(jax.random.key(0), 4)["x"].at[2].set(jnp.nan)
    data = {"x": x}
    graph, split = chain.unroll(4), chain.split(data)
    if family is vfe.JointGaussian:
        belief = vfe.exact.posterior(graph, split)
    else:
        belief = vfe.exact.mean_field(graph, split, family)
    found = chain.free_energy(belief, data)
    wanted = vfe.free_energy(graph, belief, split)
    assert found.kind is vfe.Kind.exact
    assert found.total.shape == (4,)
    for t in range(4):
        for name in ("z", "x"):
            np.testing.assert_allclose(found.by_level[name][t], wanted.by_level[f"{name}_{t}"], atol=1e-10)
        np.testing.assert_allclose(found.entropies["z"][t], wanted.entropies[f"z_{t}"], atol=1e-10)
    np.testing.assert_allclose(found.sum().total, wanted.total, rtol=1e-12)
    np.testing.assert_allclose(found.accuracy.sum(), wanted.accuracy, rtol=1e-12)
    if family is vfe.JointGaussian:
        np.testing.assert_allclose(found.total.sum(), -vfe.exact.log_evidence(graph, split), rtol=1e-10)


def test_free_energy_of_two_factors_by_monte_carlo():
    """Factors in either order in the belief; the same base sample gives the same number."""
    chain = Chain(
        {"z": vfe.gaussian(jnp.zeros(1)), "v": vfe.gaussian(jnp.zeros(1))},
        {
            "z": vfe.gaussian(lambda z, v: jnp.sin(z) + v, scale=0.5, parents=("z", "v'")),
            "v": vfe.gaussian(vfe.Affine(0.9 * jnp.eye(1)), scale=0.3, parents="v"),
        },
        vfe.gaussian(lambda z: z**2, scale=0.5, parents="z"),
    )
    data = {"x": chain.sample(jax.random.key(0), 4)["x"]}
    graph = chain.unroll(4)
    names = [n for n in graph.order if not n.startswith("x")]
    root = np.random.default_rng(0).normal(size=(8, 8))
    covariance = 0.05 * (root @ root.T) + 0.1 * np.eye(8)
    order = np.random.default_rng(1).permutation(8)
    belief = vfe.JointGaussian.from_moments(
        graph, {names[i]: 0.1 * i * jnp.ones(1) for i in order}, covariance[np.ix_(order, order)]
    )
    many = vfe.MonteCarlo(20_000)
    found = chain.free_energy(belief, data, expectation=many)
    wanted = vfe.free_energy(graph, belief, chain.split(data), expectation=many)
    assert found.kind is vfe.Kind.monte_carlo
    assert found.error.shape == (4,)
    assert abs(float(found.total.sum() - wanted.total)) < 5 * float(wanted.standard_error)
    np.testing.assert_allclose(
        found.entropies["z"].sum() + found.entropies["v"].sum(), wanted.entropy, rtol=1e-10
    )


def test_gradients_reach_the_one_copy_of_the_parameters():
    """The gradient through the chain is the sum over the steps of the unrolled one."""
    values = linear().sample(jax.random.key(0), 4)

    def by_chain(weight):
        chain = Chain(vfe.gaussian(jnp.ones(2)), _step(weight), _sense())
        return sum(e.sum() for e in chain.energies(values).values())

    def by_graph(weight):
        chain = Chain(vfe.gaussian(jnp.ones(2)), _step(weight), _sense())
        return sum(chain.unroll(4).energies(chain.split(values)).values())

    weight = 0.5 * jnp.eye(2)
    np.testing.assert_allclose(jax.grad(by_chain)(weight), jax.grad(by_graph)(weight), rtol=1e-10)


def _step(weight):
    return vfe.gaussian(vfe.Affine(weight), scale=0.5, parents="z")


def _sense():
    return vfe.gaussian(vfe.Affine(jnp.ones((1, 2))), parents="z")


def test_bad_chains_get_a_clear_error():
    start, walk = vfe.gaussian(jnp.zeros(2)), vfe.gaussian(vfe.Affine(jnp.eye(2)), parents="z")
    with pytest.raises(ValueError, match="must be the same"):
        Chain({"z": start}, {"w": walk}, _sense())
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        Chain(start, vfe.gaussian(vfe.Affine(jnp.ones((3, 2))), parents="z"), _sense())
    with pytest.raises(ValueError, match=r"in emission.*'s'"):
        Chain(start, walk, vfe.gaussian(vfe.Affine(jnp.eye(2)), parents="s"))
    with pytest.raises(ValueError, match=r"in transition.*cycle"):
        Chain(start, vfe.gaussian(vfe.Affine(jnp.eye(2)), parents="z'"), _sense())
    with pytest.raises(ValueError, match="inputs="):
        Chain(start, walk, {"x": _sense(), "u": vfe.given(2)})
    with pytest.raises(ValueError, match="shared"):
        Chain(vfe.gaussian(jnp.zeros(2), shared=True), walk, _sense())
    with pytest.raises(TypeError, match="wanted a node"):
        Chain(jnp.zeros(2), walk, _sense())  # type: ignore[arg-type]
    chain = Chain(start, walk, _sense())
    with pytest.raises(ValueError, match=r"'x' has an array of shape \(4, 2\)"):
        chain.energies({"z": jnp.zeros((4, 2)), "x": jnp.zeros((4, 2))})
    with pytest.raises(ValueError, match="leading axes"):
        chain.energies({"z": jnp.zeros((4, 2)), "x": jnp.zeros((5, 1))})
    with pytest.raises(ValueError, match=r"no value for \['x'\]"):
        chain.energies({"z": jnp.zeros((4, 2))})
    with pytest.raises(ValueError, match="no node 'y'"):
        chain.energies({"y": jnp.zeros((4, 2))})
    with pytest.raises(ValueError, match="inputs"):
        rich().sample(jax.random.key(0), 3)
    with pytest.raises(ValueError, match="257"):
        chain.unroll(257)
    point = vfe.Point.from_values(chain.unroll(1), {"z_0": jnp.zeros(2)})
    with pytest.raises(TypeError, match="Point"):
        chain.free_energy(point, {"x": jnp.zeros((1, 1))})  # type: ignore[arg-type]
