"""Properties of F on random graphs, against a dense joint that NumPy builds from the same numbers."""

import itertools

import jax
import numpy as np
import pytest
from helpers import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

import vfe

pytestmark = pytest.mark.usefixtures("float64")


def random_covariance(rng, n, smallest):
    """A covariance with eigenvalues between `smallest` and 3, in a random basis."""
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    values = np.exp(rng.uniform(np.log(smallest), np.log(3.0), n))
    values[rng.integers(n)] = smallest
    matrix = basis @ np.diag(values) @ basis.T
    return 0.5 * (matrix + matrix.T)


class LinearGraph:
    """A random DAG of linear-Gaussian nodes: its numbers, and the joint N(mean, covariance) of all."""

    def __init__(self, seed, count, smallest):
        rng = np.random.default_rng(seed)
        self.sizes = [int(n) for n in rng.integers(1, 4, count)]
        self.parents = [
            [j for j in range(i) if rng.uniform() < 0.6] or ([i - 1] if i else []) for i in range(count)
        ]
        self.weights = [
            [rng.normal(size=(self.sizes[i], self.sizes[j])) for j in self.parents[i]] for i in range(count)
        ]
        self.biases = [rng.normal(size=n) for n in self.sizes]
        self.noises = [random_covariance(rng, n, smallest) for n in self.sizes]
        # The last node is observed, and sometimes one in the middle, with its ancestors hidden.
        self.seen = [count - 1] + ([1] if count > 3 and rng.uniform() < 0.5 else [])
        relevant = set(self.seen)
        for i in reversed(range(count)):
            if i in relevant:
                relevant.update(self.parents[i])
        # What has no observed descendant has no belief: it integrates to one.
        self.hidden = [i for i in range(count) if i in relevant and i not in self.seen]
        starts = np.cumsum([0, *self.sizes])
        self.rows = [np.arange(a, b) for a, b in itertools.pairwise(starts)]
        total = starts[-1]
        mean, mixing = np.zeros(total), np.zeros((total, total))
        for i in range(count):
            here = self.rows[i]
            mean[here] = self.biases[i]
            mixing[np.ix_(here, here)] = np.linalg.cholesky(self.noises[i])
            for w, j in zip(self.weights[i], self.parents[i], strict=True):
                mean[here] += w @ mean[self.rows[j]]
                mixing[here] += w @ mixing[self.rows[j]]
        self.mean, self.covariance = mean, mixing @ mixing.T
        self.draws = mean + rng.normal(size=(3, total)) @ mixing.T
        size = sum(self.sizes[i] for i in self.hidden)
        self.q_mean = self.draws[0, self.index(self.hidden)] + 0.3 * rng.normal(size=size)
        self.q_covariance = random_covariance(rng, size, smallest)

    def index(self, nodes):
        return np.concatenate([self.rows[i] for i in nodes])

    def model(self, letters, order):
        """The same graph with these names, its nodes given in this order."""
        nodes = {}
        for i in order:
            if self.parents[i]:
                mean = vfe.Affine(tuple(self.weights[i]), self.biases[i])
                parents = tuple(letters[j] for j in self.parents[i])
                nodes[letters[i]] = vfe.gaussian(mean, covariance=self.noises[i], parents=parents)
            else:
                nodes[letters[i]] = vfe.gaussian(self.biases[i], covariance=self.noises[i])
        return vfe.Model(**nodes)

    def data(self, letters, draws):
        return {letters[i]: draws[..., self.rows[i]] for i in self.seen}

    def belief(self, model, letters, order):
        """q with its nodes in this order."""
        starts = np.cumsum([0, *[self.sizes[i] for i in self.hidden]])
        where = {i: np.arange(starts[k], starts[k + 1]) for k, i in enumerate(self.hidden)}
        index = np.concatenate([where[i] for i in order])
        means = {letters[i]: self.q_mean[where[i]] for i in order}
        return vfe.JointGaussian.from_moments(model, means, self.q_covariance[np.ix_(index, index)])

    def posterior(self, draw):
        """ln p(x), and the mean and covariance of p(z | x), from the dense joint."""
        o, h = self.index(self.seen), self.index(self.hidden)
        inner = self.covariance[np.ix_(o, o)]
        gain = np.linalg.solve(inner, self.covariance[np.ix_(o, h)]).T
        residual = draw[o] - self.mean[o]
        _, log_det = np.linalg.slogdet(inner)
        evidence = -0.5 * (
            residual @ np.linalg.solve(inner, residual) + log_det + o.size * np.log(2 * np.pi)
        )
        mean = self.mean[h] + gain @ residual
        return evidence, mean, self.covariance[np.ix_(h, h)] - gain @ self.covariance[np.ix_(o, h)]


def divergence(m, s, mean, covariance):
    """KL(N(m, s) ‖ N(mean, covariance))."""
    inverse = np.linalg.inv(covariance)
    d = m - mean
    log_det = np.linalg.slogdet(covariance)[1] - np.linalg.slogdet(s)[1]
    return 0.5 * (np.trace(inverse @ s) + d @ inverse @ d - d.size + log_det)


@settings(max_examples=5)
@given(
    seed=st.integers(0, 10**6), count=st.integers(2, 5), smallest=st.sampled_from([0.3, 1e-2, 1e-4, 1e-6])
)
def test_linear_gaussian_graphs(seed, count, smallest):
    """The three readings agree; F ≥ −ln p(x); names, order of nodes and of a batch change nothing.

    The tolerance follows from the conditioning: sums of terms as large as ⟨E⟩ to 1e-9 of their size,
    inverses of covariances as small as `smallest` to 1e-13 of their size.
    """
    graph = LinearGraph(seed, count, smallest)
    letters = "abcdefgh"
    model = graph.model(letters, range(count))
    data = graph.data(letters, graph.draws)
    belief = graph.belief(model, letters, graph.hidden)
    found = vfe.free_energy(model, belief, data)
    scale = np.maximum(1.0, np.abs(np.asarray(found.energy)))
    tolerance = 1e-9 + 1e-13 / smallest
    assert found.kind is vfe.Kind.exact
    exact = vfe.exact.log_evidence(model, data)
    for i, draw in enumerate(graph.draws):
        evidence, mean, covariance = graph.posterior(draw)
        third = -evidence + divergence(graph.q_mean, graph.q_covariance, mean, covariance)
        assert_close(exact[i], evidence, tolerance, "ln p(x)")
        assert_close(found.total[i] / scale[i], third / scale[i], tolerance, "surprise + divergence")
        assert found.total[i] >= -evidence - tolerance * scale[i]
    second = found.complexity - found.accuracy
    assert np.all(np.abs(found.total - second) <= 1e-13 * scale)
    assert np.all(np.abs(found.total - sum(found.by_level.values())) <= 1e-13 * scale)
    assert np.all(np.asarray(found.complexity) >= -1e-12)
    for name in found.hidden:  # each level's complexity is an expected divergence
        assert np.all(np.asarray(found.hidden[name] - found.entropies[name]) >= -1e-12 * scale)

    other = "hgfedcba"
    renamed = graph.model(other, reversed(range(count)))
    flipped = graph.belief(renamed, other, graph.hidden[::-1])
    again = vfe.free_energy(renamed, flipped, graph.data(other, graph.draws[::-1]))
    assert np.all(np.abs(again.total[::-1] - found.total) <= tolerance * scale)
    assert_close(
        vfe.exact.log_evidence(renamed, graph.data(other, graph.draws[::-1]))[::-1], exact, tolerance
    )


@settings(max_examples=2)
@given(seed=st.integers(0, 10**6))
def test_vmap_loop_and_jit(seed):
    """A batch, a loop, vmap, jit, and no jit at all give the same F and the same evidence."""
    graph = LinearGraph(seed, 3, 0.1)
    letters = "abc"
    model = graph.model(letters, range(3))
    belief = graph.belief(model, letters, graph.hidden)

    def both(data):
        return vfe.free_energy(model, belief, data).total, vfe.exact.log_evidence(model, data)

    data = graph.data(letters, graph.draws)
    batch = both(data)
    ways = [jax.vmap(both)(data), jax.jit(both)(data)]
    rows = [both(graph.data(letters, draw)) for draw in graph.draws]
    ways.append([np.stack(part) for part in zip(*rows, strict=True)])
    for way in ways:
        for got, want in zip(way, batch, strict=True):
            assert_close(got, want, 1e-11)
    with jax.disable_jit():
        plain = vfe.free_energy(model, belief, graph.data(letters, graph.draws[0])).total
    assert_close(plain, batch[0][0], 1e-11)


class DiscreteGraph:
    """A random DAG of tables, and its joint by multiplication."""

    def __init__(self, seed, count, sparse):
        rng = np.random.default_rng(seed)
        self.states = [int(n) for n in rng.integers(2, 4, count)]
        self.parents = [[j for j in range(i) if rng.uniform() < 0.5][:3] for i in range(count)]
        self.tables, self.joint = [], np.ones(self.states)
        for i, parents in enumerate(self.parents):
            table = rng.dirichlet(
                np.full(self.states[i], 0.1 if sparse else 1.0), [self.states[j] for j in parents]
            )
            self.tables.append(np.moveaxis(table, -1, 0))
            axes = [*parents, i]
            shape = np.ones(count, int)
            shape[axes] = [self.states[j] for j in axes]
            self.joint = self.joint * table.reshape(shape)

    def model(self, letters, order):
        return vfe.Model(
            **{
                letters[i]: vfe.categorical(
                    self.tables[i], parents=tuple(letters[j] for j in self.parents[i])
                )
                for i in order
            }
        )


@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 5), sparse=st.booleans())
def test_discrete_graphs(seed, count, sparse):
    """The same for graphs of tables: evidence by brute force, three readings, names and order."""
    graph = DiscreteGraph(seed, count, sparse)
    last = graph.states[-1]
    rng = np.random.default_rng(seed + 1)
    letters, other = "abcde", "edcba"
    model = graph.model(letters, range(count))
    data = {letters[count - 1]: np.arange(last)}
    relevant = {count - 1}
    for i in reversed(range(count)):
        if i in relevant:
            relevant.update(graph.parents[i])
    hidden = [i for i in range(count - 1) if i in relevant]
    drop = tuple(i for i in range(count - 1) if i not in relevant)
    joint = graph.joint.sum(drop)
    evidence = np.log(joint.reshape(-1, last).sum(0))
    assert_close(vfe.exact.log_evidence(model, data), evidence, 1e-11)
    if not hidden:
        return
    q = {i: rng.dirichlet(np.ones(graph.states[i]), last) for i in hidden}
    belief = vfe.Categorical.from_probabilities({letters[i]: q[i] for i in hidden})
    found = vfe.free_energy(model, belief, data)
    for k in range(last):
        product = np.ones(())
        for i in hidden:
            product = np.multiply.outer(product, q[i][k])
        with np.errstate(divide="ignore"):
            logs = np.log(joint[..., k])
        want = np.sum(product * (np.log(product) - logs))
        if np.isfinite(want) and np.isfinite(float(found.total[k])):
            assert_close(found.total[k], want, 1e-11, "F")
            assert found.total[k] >= -evidence[k] - 1e-10
            assert_close(found.complexity[k] - found.accuracy[k], want, 1e-10)
        else:
            assert not np.isfinite(want)
    renamed = graph.model(other, reversed(range(count)))
    flipped = vfe.Categorical.from_probabilities({other[i]: q[i][::-1] for i in reversed(hidden)})
    again = vfe.free_energy(renamed, flipped, {other[count - 1]: np.arange(last)[::-1]})
    finite = np.isfinite(np.asarray(found.total))
    assert_close(np.asarray(again.total)[::-1][finite], np.asarray(found.total)[finite], 1e-11)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    smallest=st.sampled_from([1.0, 1e-3, 1e-6, 1e-9]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_units_of_the_latents_do_not_matter(seed, smallest, scale):
    """F is invariant when z is measured in other units in p and q together."""
    rng = np.random.default_rng(seed)
    weight, covariance = rng.normal(size=(3, 2)), random_covariance(rng, 2, smallest)
    mean, spread, x = rng.normal(size=2), random_covariance(rng, 2, 0.1), rng.normal(size=3)

    def total(unit):
        model = vfe.Model(
            z=vfe.gaussian(np.zeros(2), covariance=covariance * unit**2),
            x=vfe.gaussian(vfe.Affine(weight / unit), scale=0.5, parents="z"),
        )
        belief = vfe.JointGaussian.from_moments(model, {"z": mean * unit}, spread * unit**2)
        return float(vfe.free_energy(model, belief, {"x": x}).total)

    assert total(scale) == pytest.approx(total(1.0), rel=1e-12 / smallest**0.5 + 1e-11)
