"""Dirichlet counts of tables: online, over whole sequences, and reduced."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discrete_cases import read
from scipy.special import gammaln

import vfe
from vfe.discrete import (
    POMDP,
    DirichletTables,
    filtered_pairs,
    independent_pairs,
    learn_habits,
    learn_likelihood,
    learn_preferences,
    learn_start,
    learn_transitions,
    merge_states,
    prune_entries,
    reduce_tables,
)


@pytest.fixture
def double():
    """Double precision for one test; the others run as JAX is set."""
    with jax.enable_x64(True):
        yield


def near(got, wanted, tolerance=1e-10):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance)


def prior_of(data, model):
    return DirichletTables(
        model,
        A=[data[f"pA_{m}"] for m in range(len(model.A))],
        B=[data[f"pB_{f}"] for f in range(len(model.B))],
        D=[data[f"pD_{f}"] for f in range(len(model.B))],
    )


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("case", ["weather", "random_13", "random_17"])
def test_counts_of_the_reference_models(case):
    """Counts, means and KL of the standard library under its beliefs; exact counts under exact ones."""
    data, model = read(case)
    prior = prior_of(data, model)
    outcomes, actions = jnp.asarray(data["obs"], int), jnp.asarray(data["actions"], int)
    beliefs = tuple(jnp.asarray(data[f"pymdp_fpi_q_{f}"]) for f in range(len(model.B)))
    smoothed, filtered = (
        jnp.asarray(data[f"exact_{word}_joint"]).reshape(-1, *model.states) for word in ("smooth", "filter")
    )
    exact_pairs = tuple(jnp.asarray(data[f"exact_pair_{f}"]) for f in range(len(model.B)))

    @jax.jit
    def learn(prior):
        def see(counts, now):
            counts, exact = counts
            q, joint, seen = now
            return (learn_likelihood(counts, q, seen), learn_likelihood(exact, joint, seen)), None

        def move(counts, now):
            counts, exact = counts
            before, after, pairs, taken = now
            apart = independent_pairs(before, after, model.B_dependencies)
            return (learn_transitions(counts, apart, taken), learn_transitions(exact, pairs, taken)), None

        both, _ = jax.lax.scan(see, (prior, prior), (beliefs, smoothed, outcomes))
        steps = (tuple(q[:-1] for q in beliefs), tuple(q[1:] for q in beliefs), exact_pairs, actions)
        (counts, exact), _ = jax.lax.scan(move, both, steps)
        return counts, learn_start(exact, smoothed[0]), counts.expected(model), counts.divergence(prior)

    counts, exact, means, distances = learn(jax.tree.map(jnp.asarray, prior))
    for m, table in enumerate(counts.A):
        near(table, data[f"pymdp_qA_{m}"])
        near(means.A[m], data[f"pymdp_EA_{m}"])
    for f, table in enumerate(counts.B):
        near(table, data[f"pymdp_qB_{f}"])
        near(means.B[f], data[f"pymdp_EB_{f}"])
    for letter in "AB":
        total = sum(value for name, value in distances.items() if name[0] == letter)
        near(total, data[f"pymdp_kl_{letter}"])
        near(total, data[f"own_kl_{letter}"])
    counts = exact
    for m, table in enumerate(counts.A):
        near(table, data[f"exact_counts_qA_{m}"])
    for f, (table, first) in enumerate(zip(counts.B, counts.D, strict=True)):
        near(table, data[f"exact_counts_qB_{f}"])
        near(first, data[f"exact_counts_qD_{f}"])
    # At the last two times, what is known by then is all that is known.
    last = filtered_pairs(model, *filtered[-2:], actions[-1])
    for f, pair in enumerate(last):
        near(pair, data[f"exact_pair_{f}"][-1])


def small_model():
    return POMDP(
        A=[[[0.7, 0.2], [0.3, 0.8]]],
        B=[np.stack([np.eye(2), np.eye(2)[::-1]], -1)],
        C=[[0.0, 1.0]],
        D=[[0.5, 0.5]],
        E=[0.25, 0.75],
    )


def test_rates_forgetting_padding_and_what_is_missing():
    model = small_model()
    prior = DirichletTables.from_model(model, 2.0, "ABCDE")
    near(prior.C[0], 2 * np.exp([0, 1]) / np.exp([0, 1]).sum())
    q = (jnp.array([0.25, 0.75]),)
    once = learn_likelihood(prior, q, jnp.array([1]), rate=0.5)
    near(once.A[0], 2 * model.A[0] + 0.5 * np.array([[0, 0], [0.25, 0.75]]), 1e-6)
    lost = learn_likelihood(once, q, jnp.array([-1]), forgetting=0.2, prior=prior)
    near(lost.A[0], 2 * model.A[0] + 0.4 * np.array([[0, 0], [0.25, 0.75]]), 1e-6)
    still = learn_likelihood(once, q, jnp.array([0]), forgetting=0.2, prior=prior, present=False)
    near(still.A[0], once.A[0])
    # Impossible moves stay impossible, whatever is believed.
    pairs = independent_pairs(q, q, model.B_dependencies)
    moved = learn_transitions(prior, pairs, jnp.array([1]))
    near(moved.B[0][..., 0], 2 * np.eye(2))
    near(moved.B[0][..., 1], [[0, 2 + 0.1875], [2 + 0.1875, 0]], 1e-6)
    near(learn_habits(prior, jnp.array([0.0, 1.0])).E, [0.5, 2.5], 1e-6)
    liked = learn_preferences(prior, jnp.array([0]))
    near(liked.C[0] - prior.C[0], [1, 0], 1e-6)
    # ⟨ln θ⟩ of a beta distribution by quadrature.
    a, b = (float(c) for c in liked.C[0])
    x = (np.arange(200_000) + 0.5) / 200_000
    density = x ** (a - 1) * (1 - x) ** (b - 1)
    near(liked.expected(model).C[0][0], (density * np.log(x)).sum() / density.sum(), 1e-3)
    run = jax.jit(
        lambda counts, seen: jax.lax.scan(lambda c, o: (learn_likelihood(c, q, o), None), counts, seen)
    )
    start = jax.tree.map(jnp.asarray, prior)
    near(run(start, jnp.array([[1], [0], [-1]]))[0].A[0] - start.A[0], np.tile(q[0], (2, 1)), 1e-6)


def test_what_is_not_learned_is_known():
    model = small_model()
    counts = DirichletTables(model, A=[np.ones((2, 2))])
    assert list(counts.named()) == ["A[o0]"]
    found = learn_transitions(counts, (jnp.ones((2, 2)),), jnp.array([0]))
    assert found.B == (None,)
    assert found.expected(model).B[0] is model.B[0]
    near(found.expected(model).A[0], np.full((2, 2), 0.5))
    near(DirichletTables.flat(model, 3.0, "B").B[0], 3 * (model.B[0] > 0))


@pytest.mark.parametrize("case", ["weather", "random_03"])
def test_variational_bayes_of_the_reference_models(case):
    data, model = read(case)
    steps = len(data["vb_free_energy_trace"])
    # The counts of the reference are those that follow from its last beliefs about states.
    found = vfe.fit(
        model,
        data["obs"],
        actions=data["actions"],
        prior=prior_of(data, model),
        max_steps=steps + 1,
        tolerance=0.0,
    )
    near(found.trace[:steps], data["vb_free_energy_trace"][: len(found.trace)])
    for m, table in enumerate(found.counts.A):
        near(table, data[f"vb_qA_{m}"])
    near(found.counts.B[0], data["vb_qB"])
    near(found.counts.D[0], data["vb_qD"])
    near(found.joint, data["vb_q"], 1e-6)
    near(found.free_energy.total, found.trace[-1])
    assert (np.diff(found.trace) <= 1e-12).all()
    assert found.trace[-1] >= data["exact_dirichlet_neg_log_evidence"]


def chain(seed):
    rng = np.random.default_rng(seed)

    def table(*shape):
        values = rng.gamma(1.0, size=shape)
        return values / values.sum(0)

    return POMDP(
        A=[table(3, 2, 2), table(2, 2)],
        B=[table(2, 2, 2, 2), table(2, 2, 1)],
        D=[table(2), table(2)],
        A_dependencies=[[1, 0], [0]],
        B_dependencies=[[1, 0], [1]],
    )


@pytest.mark.usefixtures("double")
def test_variational_bayes_of_several_factors_by_every_path():
    """One step against sums over every path of joint states, with padding and missing outcomes."""
    model = chain(0)
    prior = DirichletTables.from_model(model, 1.5)
    y = np.array([[[0, 1], [2, np.nan], [1, 0]], [[1, 0], [0, 1], [7, np.nan]]])
    actions = np.array([[[1, 0], [0, 0]], [[1, 0], [9, np.nan]]])
    mask = np.array([[True, True, True], [True, True, False]])
    found = vfe.fit(model, y, actions=actions, mask=mask, prior=prior, max_steps=2, tolerance=0.0)
    logs = prior.expected_log(model)
    A, B, D = ([np.asarray(t, float) for t in tables] for tables in (logs.A, logs.B, logs.D))
    states = list(itertools.product(range(2), range(2)))
    counts = jax.tree.map(np.array, prior)
    value = 0.0
    for n, length in enumerate([3, 2]):
        paths = {}
        for path in itertools.product(states, repeat=length):
            p = D[0][path[0][0]] * D[1][path[0][1]]
            for t, (i, j) in enumerate(path):
                o = y[n, t]
                p *= A[0][int(o[0]), j, i] * (1 if np.isnan(o[1]) else A[1][int(o[1]), i])
                if t:
                    (k, l), u = path[t - 1], actions[n, t - 1].astype(int)
                    p *= B[0][i, l, k, u[0]] * B[1][j, l, 0]
            paths[path] = p
        mass = sum(paths.values())
        value -= np.log(mass)
        for path, p in paths.items():
            w = p / mass
            for f in range(2):
                counts.D[f][path[0][f]] += w
            for t, (i, j) in enumerate(path):
                o = y[n, t]
                counts.A[0][int(o[0]), j, i] += w
                if not np.isnan(o[1]):
                    counts.A[1][int(o[1]), i] += w
                if t:
                    (k, l), u = path[t - 1], actions[n, t - 1].astype(int)
                    counts.B[0][i, l, k, u[0]] += w
                    counts.B[1][j, l, 0] += w
    near(found.trace[0], value)
    for got, wanted in zip(jax.tree.leaves(found.counts), jax.tree.leaves(counts), strict=True):
        near(got, wanted)
    near(sum(np.sum(v) for v in found.free_energy.by_level.values()), found.trace[-1])
    assert not found.free_energy.by_level["o0"][1, 2]
    assert found.factors[0].shape == (2, 3, 2)


def log_evidence(alpha, seen):
    """ln p of counts of draws in order, Dirichlet-multinomial, one column."""
    total = gammaln(alpha.sum()) - gammaln(alpha.sum() + seen.sum())
    return total + (gammaln(alpha + seen) - gammaln(alpha)).sum()


def test_reduction_against_the_evidence_of_draws():
    rng = np.random.default_rng(1)
    model = POMDP(A=[np.full((3, 3), 1 / 3)], B=[np.eye(3)[..., None]])
    prior = DirichletTables(model, A=[rng.gamma(2.0, size=(3, 3))])
    seen = np.array([[9, 8, 0], [1, 2, 0], [0, 0, 12]])
    posterior = DirichletTables(model, A=[prior.A[0] + seen])
    other = rng.gamma(2.0, size=(3, 3))
    found = reduce_tables(prior, posterior, DirichletTables(model, A=[other]))
    before = [log_evidence(prior.A[0][:, k], seen[:, k]) for k in range(3)]
    after = [log_evidence(other[:, k], seen[:, k]) for k in range(3)]
    near(found.log_evidence_change["A[o0]"], sum(after) - sum(before))
    near(found.counts.A[0], other + seen)
    # An entry never seen may be impossible beforehand; one that was seen may not.
    other = prior.A[0] * [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    found = reduce_tables(prior, posterior, DirichletTables(model, A=[other]))
    near(found.log_evidence_change["A[o0]"], -before[2])
    other = prior.A[0] * [[0, 1, 1], [1, 1, 1], [1, 1, 1]]
    found = reduce_tables(prior, posterior, DirichletTables(model, A=[other]))
    assert found.log_evidence_change["A[o0]"] == -np.inf
    gains = prune_entries(prior, posterior, remainder=0.05)["A[o0]"]
    for i, k in np.ndindex(3, 3):
        alpha = prior.A[0][:, k].copy()
        alpha[i] = 0.05
        near(gains[i, k], log_evidence(alpha, seen[:, k]) - before[k])
    assert ((gains > 0) <= (seen == 0)).all()
    merged = merge_states(prior, posterior)
    for k, l in itertools.combinations(range(3), 2):
        alpha = 0.5 * (prior.A[0][:, k] + prior.A[0][:, l])
        wanted = log_evidence(alpha, seen[:, k] + seen[:, l]) - before[k] - before[l]
        near([merged[k, l], merged[l, k]], [wanted, wanted])
    assert merged[0, 1] > 0 > merged[0, 2]


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (lambda m, p: DirichletTables(m, A=[np.ones((3, 2))]), r"A\[0\]: got counts of shape \(3, 2\)"),
        (lambda m, p: DirichletTables(m, A=[np.zeros((2, 2))]), "no counts"),
        (lambda m, p: DirichletTables(m, D=[[-1.0, 1.0]]), "-1.0 at"),
        (lambda m, p: DirichletTables(m, C=[[0.0, 1.0]]), "positive counts"),
        (lambda m, p: DirichletTables(m, D=[]), "got 0 tables D"),
        (lambda m, p: DirichletTables.from_model(m, 0.0), "concentration=0.0"),
        (lambda m, p: DirichletTables.from_model(m, tables="Z"), "'Z'"),
        (lambda m, p: learn_start(p, (np.ones(2) / 2,), forgetting=0.1), "without prior="),
        (lambda m, p: vfe.fit(m, [[[0], [1]], [[0]]], prior=p), r"sequences of \[1, 2\] times.*mask="),
        (lambda m, p: vfe.fit(m, [0, 1], prior=p, mask=[False, True]), "got a mask"),
        (lambda m, p: vfe.fit(m, [0, 3], prior=p), "outcome 3 at time 1"),
        (lambda m, p: vfe.fit(m, [0, 1], prior=DirichletTables.from_model(m, 1.0, "E")), "habits E"),
        (lambda m, p: vfe.fit(chain(0), [[0, 1]], prior=p), "another model"),
        (lambda m, p: merge_states(p, p, "place"), "got factor 'place'"),
        (lambda m, p: prune_entries(p, p, remainder=0), "remainder=0"),
        (
            lambda m, p: reduce_tables(p, DirichletTables.from_model(m, 1.0), p),
            "fewer than those of the prior",
        ),
    ],
)
def test_bad_input(act, word):
    model = small_model()
    with pytest.raises(ValueError, match=word):
        act(model, DirichletTables.from_model(model, 2.0))
