"""Discrete graphs: variable elimination and coordinate ascent against sums over every joint state."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close

import vfe

pytestmark = pytest.mark.usefixtures("float64")


def random_graph(seed, sizes, edges, zeros=False):
    """Random tables on a graph: the library's model, and its joint table by brute force.

    `edges`: the parents of each node, by number; nodes are named a, b, c, …
    """
    rng = np.random.default_rng(seed)
    names = [chr(ord("a") + i) for i in range(len(sizes))]
    nodes, joint = {}, np.ones(sizes)
    for i, parents in enumerate(edges):
        table = rng.dirichlet(np.full(sizes[i], 0.8), [sizes[p] for p in parents])
        if zeros and parents:
            table[..., 0] = np.where(rng.uniform(size=table.shape[:-1]) < 0.4, 0.0, table[..., 0])
            table /= table.sum(-1, keepdims=True)
        table = np.moveaxis(table, -1, 0)
        nodes[names[i]] = vfe.categorical(table, parents=tuple(names[p] for p in parents))
        axes = [i, *parents]
        shape = np.ones(len(sizes), int)
        shape[axes] = [sizes[a] for a in axes]
        order = np.argsort(axes)
        joint = joint * np.transpose(table, order).reshape(shape)
    return names, vfe.Model(**nodes), joint


GRAPHS = {
    "chain": ((3, 2, 4, 3), ((), (0,), (1,), (2,)), (3,)),
    "tree": ((3, 2, 3, 2, 4), ((), (0,), (0,), (1,), (2,)), (3, 4)),
    "collider": ((3, 4, 3, 2), ((), (), (0, 1), (2,)), (3,)),
    "loop": ((2, 3, 2, 3, 2), ((), (0,), (0,), (1, 2), (3, 0)), (4,)),
    "grid": ((2, 2, 3, 2, 2, 3), ((), (0,), (1,), (0,), (1, 3), (2, 4)), (5,)),
    "observed-in-the-middle": ((3, 3, 2, 3), ((), (0,), (1,), (2, 0)), (1, 3)),
}


@pytest.mark.core
@pytest.mark.parametrize("name", GRAPHS)
def test_elimination_against_enumeration(name):
    """ln p(x), every marginal, every clique, F = −ln p(x) and the entropy of the whole posterior."""
    sizes, edges, seen = GRAPHS[name]
    names, model, joint = random_graph(1, sizes, edges)
    states = np.array(list(itertools.product(*[range(sizes[i]) for i in seen])))
    data = {names[i]: states[:, j] for j, i in enumerate(seen)}
    posterior = vfe.exact.posterior(model, data)
    evidence = vfe.exact.log_evidence(model, data)
    free_energy = vfe.free_energy(model, posterior, data)
    hidden = [i for i in range(len(sizes)) if i not in seen]
    for row, state in enumerate(states):
        index = [slice(None)] * len(sizes)
        for i, s in zip(seen, state, strict=True):
            index[i] = s
        table = joint[tuple(index)]
        total = table.sum()
        assert_close(evidence[row], np.log(total), 1e-12, "ln p(x)")
        assert_close(free_energy.total[row], -np.log(total), 1e-11, "F")
        table = table / total
        whole = -(table * np.log(table)).sum()
        assert_close(free_energy.entropy[row], whole, 1e-11, "entropy")
        for axis, i in enumerate(hidden):
            others = tuple(a for a in range(len(hidden)) if a != axis)
            assert_close(posterior[names[i]].probabilities[row], table.sum(others), 1e-12, names[i])
        everything = {
            names[i]: np.array([s]) for i, s in zip(hidden, [n // 2 for n in table.shape], strict=True)
        }
        one = jax.tree.map(lambda a, row=row: a[row], posterior)
        got = one.log_density(everything)
        assert_close(got, [np.log(table[tuple(n // 2 for n in table.shape)])], 1e-11, "ln q")


def test_elimination_with_impossible_states():
    """Tables with zeros: states that the data exclude get no weight, and no NaN."""
    sizes, edges, seen = GRAPHS["loop"]
    names, model, joint = random_graph(3, sizes, edges, zeros=True)
    for state in range(sizes[seen[0]]):
        table = joint[..., state]
        data = {names[4]: state}
        posterior = vfe.exact.posterior(model, data)
        assert_close(vfe.exact.log_evidence(model, data), np.log(table.sum()), 1e-12)
        assert_close(vfe.free_energy(model, posterior, data).total, -np.log(table.sum()), 1e-12)
        assert_close(posterior["d"].probabilities, table.sum((0, 1, 2)) / table.sum(), 1e-12)


def test_evidence_has_gradients_through_zeros():
    """∂ln p(x)/∂logits = posterior − prior, finite though one entry is impossible."""
    likelihood = np.array([[1.0, 0.0, 0.3], [0.0, 1.0, 0.7]])

    def log_evidence(logits):
        model = vfe.Model(
            s=vfe.categorical(logits=vfe.learnable(logits)), o=vfe.categorical(likelihood, parents="s")
        )
        return vfe.exact.log_evidence(model, {"o": 0})

    logits = np.array([0.2, -0.1, 0.5])
    prior = np.exp(logits) / np.exp(logits).sum()
    posterior = prior * likelihood[0] / (prior @ likelihood[0])
    assert_close(jax.grad(log_evidence)(jnp.asarray(logits)), posterior - prior, 1e-13)


@pytest.mark.core
def test_a_graph_too_large_to_sum():
    """The error gives the size of the table that would be needed, and a way out."""
    nodes = {f"n{i}": vfe.categorical(np.full(40, 1 / 40)) for i in range(5)}
    nodes["x"] = vfe.categorical(
        logits=lambda *k: jnp.stack([sum(k) * 0.01, 0.0]), parents=tuple(f"n{i}" for i in range(5))
    )
    with pytest.raises(ValueError, match=r"102,400,000 entries.*CoordinateAscent"):
        vfe.exact.log_evidence(vfe.Model(**nodes), {"x": 1})


@pytest.mark.parametrize("name", ["collider", "loop", "grid"])
def test_mean_field_coordinate_ascent(name):
    """F never rises, stays above −ln p(x), and each factor ends at exp⟨ln p⟩ of the others."""
    sizes, edges, seen = GRAPHS[name]
    names, model, joint = random_graph(2, sizes, edges)
    states = np.arange(sizes[seen[0]])
    percept = vfe.perceive(
        model,
        {names[seen[0]]: states},
        belief=vfe.Categorical,
        solver=vfe.CoordinateAscent(),
        max_steps=2000,
        rtol=1e-12,
        atol=1e-12,
        throw=False,
    )
    assert np.all(np.diff(np.asarray(percept.trace), axis=1) <= 1e-13)
    hidden = [i for i in range(len(sizes)) if i not in seen]
    q = [np.asarray(percept.belief[names[i]].probabilities) for i in hidden]
    for k in states:
        logs = np.log(joint[..., k])
        assert float(percept.free_energy.total[k]) >= -np.log(joint[..., k].sum())
        product = np.ones(())
        for axis in range(len(hidden)):
            product = np.multiply.outer(product, q[axis][k])
        want = (product * (np.log(product) - logs)).sum()
        assert_close(percept.free_energy.total[k], want, 1e-12, "F")
        for axis in range(len(hidden)):
            mean = logs
            for other in reversed(range(len(hidden))):
                if other != axis:
                    mean = np.tensordot(mean, q[other][k], (other, 0))
            fixed = np.exp(mean - mean.max())
            assert_close(q[axis][k], fixed / fixed.sum(), 1e-6, "stationary")


def test_joint_categorical_samples():
    """Draws of the exact posterior: frequencies of joint states within their sampling error."""
    sizes, edges, _ = GRAPHS["loop"]
    names, model, joint = random_graph(1, sizes, edges)
    posterior = vfe.exact.posterior(model, {names[4]: np.array([0, 1])})
    drawn = posterior.sample(jax.random.key(0), (20_000,))
    for row in range(2):
        table = joint[..., row] / joint[..., row].sum()
        counts = np.zeros(table.shape)
        np.add.at(counts, tuple(np.asarray(drawn[n])[:, row] for n in "abcd"), 1)
        error = np.sqrt(table * (1 - table) / 20_000)
        assert np.all(np.abs(counts / 20_000 - table) < 5 * error + 1e-12)


def test_joint_categorical_densities_sum_to_one():
    """Σ_k q(k) = 1, and −Σ q ln q is what `entropies` adds up to."""
    sizes, edges, _ = GRAPHS["grid"]
    names, model, _ = random_graph(4, sizes, edges)
    posterior = vfe.exact.posterior(model, {names[5]: 1})
    states = np.array(list(itertools.product(*[range(n) for n in sizes[:5]])))
    logs = np.asarray(posterior.log_density({names[i]: states[:, i] for i in range(5)}))
    assert_close(np.exp(logs).sum(), 1.0, 1e-12)
    assert_close(sum(posterior.entropies().values()), -(np.exp(logs) * logs).sum(), 1e-12)
    pairs = vfe.exact.posterior(model, {names[5]: np.array([1, 1])})
    assert_close(pairs.log_density({names[i]: states[:2, i] for i in range(5)}), logs[:2], 1e-12)


def test_mean_field_of_continuous_and_discrete():
    """q(z) q(l) by coordinate ascent: F never rises and stays above the exact −ln p(x)."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 2)) * 2
    model = vfe.Model(
        l=vfe.categorical(np.array([0.2, 0.5, 0.3])),
        z=vfe.gaussian(vfe.Table(centres), scale=0.7, parents="l"),
        x=vfe.gaussian(vfe.Affine(rng.normal(size=(4, 2))), scale=0.6, parents="z"),
    )
    x = rng.normal(size=(4, 4))
    percept = vfe.perceive(model, {"x": x}, belief=vfe.MeanField, rtol=1e-9, throw=False)
    assert percept.free_energy.kind is vfe.Kind.exact
    assert np.all(np.diff(np.asarray(percept.trace), axis=1) <= 1e-12)
    assert np.all(percept.free_energy.total >= -vfe.exact.log_evidence(model, {"x": x}) - 1e-12)
    sum_of_parts = sum(percept.free_energy.by_level.values())
    assert_close(percept.free_energy.total, sum_of_parts, 1e-12)
