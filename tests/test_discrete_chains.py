"""Exact beliefs about discrete chains, against reference models and sums over every path."""

import itertools

import jax
import numpy as np
import pytest
from discrete_cases import CASES, read

import vfe
from vfe.discrete import POMDP, HiddenMarkov


def near(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_reference_models(case):
    data, model = read(case)
    found = vfe.smooth(model, data["obs"], actions=data["actions"])
    steps = len(data["obs"])
    assert found.joint.dtype == np.float64
    near(np.cumsum(found.filtered.surprise), data["exact_neg_log_evidence"])
    near(found.filtered.joint.reshape(steps, -1), data["exact_filter_joint"])
    near(found.filtered.predicted.reshape(steps, -1), data["exact_predictive_joint"])
    near(found.joint.reshape(steps, -1), data["exact_smooth_joint"])
    if case in ("weather", "random_17"):
        near(vfe.filter(model, data["obs"], actions=data["actions"]).joint, found.filtered.joint)
        other = vfe.smooth(
            model, data["obs"], actions=data["actions"], method=vfe.dynamics.ParallelInTime()
        )
        near(other.joint, found.joint)
        near(other.filtered.surprise, found.filtered.surprise)
        near(other.free_energy.total, found.free_energy.total)
    for f in range(len(model.states)):
        near(found.factors[f], data[f"exact_smooth_{f}"])
        near(found.filtered.factors[f], data[f"exact_filter_{f}"])
        near(found.pairs[f], data[f"exact_pair_{f}"])
    free = found.free_energy
    assert free.total.sum() == pytest.approx(data["exact_neg_log_evidence"][-1], abs=1e-12)
    near(free.complexity - free.accuracy, free.total)
    near(sum(free.by_level.values()), free.total)


def by_paths(model, outcomes, actions):
    """p(path, o) of every path of joint states, and −ln p(o)."""
    states = list(itertools.product(*(range(n) for n in model.states)))
    found = {}
    for path in itertools.product(states, repeat=len(outcomes)):
        p = np.prod([D[s] for D, s in zip(model.D, path[0], strict=True)])
        for t, state in enumerate(path):
            for m, depends in enumerate(model.A_dependencies):
                if not np.isnan(outcomes[t][m]):
                    p *= model.A[m][(int(outcomes[t][m]), *(state[f] for f in depends))]
            if t:
                for f, depends in enumerate(model.B_dependencies):
                    before = tuple(path[t - 1][g] for g in depends)
                    p *= model.B[f][(state[f], *before, actions[t - 1][f])]
        found[path] = p
    return found


def two_factors():
    rng = np.random.default_rng(0)

    def table(*shape):
        values = rng.gamma(1.0, size=shape)
        return values / values.sum(0)

    return POMDP(
        A=[table(3, 3, 2), table(2, 2)],
        B=[table(2, 3, 2, 2), table(3, 3, 1)],
        D=[[0.3, 0.7], [0.2, 0.3, 0.5]],
        A_dependencies=[[1, 0], [0]],
        B_dependencies=[[1, 0], [1]],
    )


def test_missing_outcomes_and_factors_that_drive_each_other_by_every_path():
    model = two_factors()
    outcomes, actions = [[0, 1], [np.nan, 0], [2, np.nan]], [[1, 0], [0, 0]]
    found = vfe.smooth(model, outcomes, actions=actions)
    paths = by_paths(model, outcomes, actions)
    mass = sum(paths.values())
    assert found.free_energy.total.sum() == pytest.approx(-np.log(mass), abs=1e-12)
    for t in range(3):
        for state in np.ndindex(2, 3):
            share = sum(p for path, p in paths.items() if path[t] == state) / mass
            assert found.joint[(t, *state)] == pytest.approx(share, abs=1e-12)
    # Entropy and energy of the posterior over paths, from their definitions.
    shares = np.array([p for p in paths.values() if p > 0]) / mass
    assert found.free_energy.entropy.sum() == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-12)
    assert found.free_energy.energy.sum() == pytest.approx(
        -(shares * np.log(shares * mass)).sum(), abs=1e-12
    )


def test_a_hidden_markov_model_is_one_factor_that_nobody_controls():
    A, B, D = np.array([[0.9, 0.3], [0.1, 0.7]]), np.array([[0.8, 0.1], [0.2, 0.9]]), np.array([0.5, 0.5])
    model = HiddenMarkov(A, D, B)
    found = vfe.filter(model, [0, 1])
    first = A[0] * D / (A[0] @ D)
    near(found.factors[0][0], first)
    second = A[1] * (B @ first)
    near(found.factors[0][1], second / second.sum())
    assert found.log_evidence == pytest.approx(np.log(A[0] @ D) + np.log(second.sum()), abs=1e-12)
    near(vfe.filter(HiddenMarkov([A, A], D, B), [[0, 0], [1, np.nan]]).joint[1].sum(), 1)


def test_soft_and_several_outcomes_by_copies_of_the_modality():
    """A reading is a modality of its own; a soft outcome an average of tables, weighted before or after."""
    model = two_factors()
    weights = np.array([[0.2, 0.5, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 3.0]])
    first, second = [0, np.nan, 2], [1, 1, np.nan]
    found = vfe.smooth(
        model,
        {"o0": vfe.discrete.Several(first, vfe.discrete.Soft(weights)), "o1": second},
        actions=[[1, 0], [0, 0]],
    )
    # Soft outcomes by the definition, over every path.
    total = 0.0
    for path, p in by_paths(model, np.array([first, second]).T, [[1, 0], [0, 0]]).items():
        total += p * np.prod([weights[t] @ model.A[0][:, s[1], s[0]] for t, s in enumerate(path)])
    assert found.log_evidence == pytest.approx(np.log(total), abs=1e-12)
    assert found.free_energy.total.sum() == pytest.approx(-np.log(total), abs=1e-12)
    # A modality left out is missing, and so is a row of NaN.
    one = vfe.filter(model, {"o1": second}, actions=[[1, 0], [0, 0]])
    two = vfe.filter(model, [[np.nan, a] for a in second], actions=[[1, 0], [0, 0]])
    near(one.joint, two.joint)


def test_many_sequences_of_different_lengths():
    """Padded sequences are those that end: beliefs, F and its parts, and nothing after the end."""
    model = two_factors()
    rng = np.random.default_rng(1)
    y = np.stack([rng.integers(0, 3, (2, 3)), rng.integers(0, 2, (2, 3))], -1).astype(float)
    actions = np.stack([rng.integers(0, 2, (2, 2)), np.zeros((2, 2), int)], -1)
    mask = [[True, True, True], [True, True, False]]
    together = vfe.smooth(model, y, actions=actions, mask=mask)
    for i, length in enumerate((3, 2)):
        alone = vfe.smooth(model, y[i, :length], actions=actions[i, : length - 1])
        near(together.joint[i, :length], alone.joint)
        near(together.free_energy.total[i, :length], alone.free_energy.total)
        near(together.log_evidence[i], alone.log_evidence)
        for f in range(2):
            near(together.pairs[f][i, : length - 1], alone.pairs[f])
            near(together.free_energy.entropies[f"s{f}"][i, :length], alone.free_energy.entropies[f"s{f}"])
    assert np.isnan(together.joint[1, 2]).all()
    assert together.free_energy.total[1, 2] == 0
    # Courses of action for one sequence of outcomes.
    courses = vfe.smooth(model, y[0], actions=actions)
    near(courses.joint[0], together.joint[0])
    near(courses.joint[1], vfe.smooth(model, y[0], actions=actions[1]).joint)


def test_impossible_outcomes_are_skipped_if_one_says_so():
    model = POMDP(A=[np.eye(2)], B=[np.eye(2)[..., None]], D=[[0.5, 0.5]])
    for belief in (None, vfe.discrete.Structured()):
        found = vfe.smooth(model, [0, 1, 0], impossible="skip", belief=belief)
        same = vfe.smooth(model, [0, np.nan, 0], belief=belief)
        skipped = found.filtered.skipped if belief is None else found.skipped
        assert skipped.tolist() == [False, True, False]
        near(found.factors[0], same.factors[0])
        near(found.free_energy.total, same.free_energy.total)
        assert found.log_evidence == pytest.approx(np.log(0.5), abs=1e-12)


def test_a_long_chain_does_not_underflow():
    """A context that never changes, first disfavoured by 700 nats, then favoured: at all times at once."""
    model = HiddenMarkov([[0.9, 0.1], [0.1, 0.9]], [0.5, 0.5], np.eye(2))
    y = np.repeat([0, 1], [320, 1000])
    found = vfe.smooth(model, y, method=vfe.dynamics.ParallelInTime())
    odds = 680 * np.log(9)
    near(found.factors[0][:, 1], 1 / (1 + np.exp(-odds)))
    evidence = 1000 * np.log(0.9) + 320 * np.log(0.1) + np.log(0.5) + np.log1p(np.exp(-odds))
    assert found.log_evidence == pytest.approx(evidence, abs=1e-9)
    near(vfe.smooth(model, y).joint, found.joint)


def test_many_joint_states_are_cheap():
    """Three factors of 16 states that share nothing, 4096 joint states: each as if it were alone."""
    rng = np.random.default_rng(2)
    A = rng.dirichlet(np.ones(2), (3, 16)).swapaxes(1, 2)
    B = rng.dirichlet(np.ones(16), (3, 16)).swapaxes(1, 2)
    model = POMDP(list(A), list(B[..., None]), A_dependencies=[[f] for f in range(3)])
    y = rng.integers(0, 2, (5, 3))
    found = vfe.smooth(model, y)
    for f in range(3):
        alone = vfe.smooth(HiddenMarkov(A[f], np.full(16, 1 / 16), B[f]), y[:, f])
        near(found.factors[f], alone.factors[0])
        near(found.pairs[f], alone.pairs[0])
        near(found.free_energy.by_level[f"s{f}"], alone.free_energy.by_level["s0"])


def test_the_chain_and_the_graph_that_a_pomdp_is():
    """Energies of a path, exact posterior and F by node and step, of `vfe.Chain` and `vfe.Model`."""
    model = two_factors()
    y, actions = [[0, 1], [1, 0], [2, 1], [0, 0]], [[1, 0], [0, 0], [1, 0]]
    with jax.enable_x64(True):
        twin, graph = vfe.discrete.chain(model), vfe.discrete.unrolled(model, 4)
        values = vfe.discrete.chain_values(model, y, actions)
        path = np.array([[0, 1, 1, 0], [2, 0, 1, 1]])
        energies = twin.energies({**values, "s0": path[0], "s1": path[1]})
        percept = vfe.perceive(graph, twin.split(values), solver=vfe.Exact())
        free = percept.free_energy
        for t in range(4):
            before = None if not t else tuple(path[[1, 0], t - 1])
            wanted = {
                "s0": model.D[0][path[0, 0]]
                if not t
                else model.B[0][(path[0, t], *before, actions[t - 1][0])],
                "s1": model.D[1][path[1, 0]] if not t else model.B[1][path[1, t], path[1, t - 1], 0],
                "o0": model.A[0][y[t][0], path[1, t], path[0, t]],
                "o1": model.A[1][y[t][1], path[0, t]],
            }
            for name, p in wanted.items():
                assert energies[name][t] == pytest.approx(-np.log(p), abs=1e-10)
        found = vfe.smooth(model, y, actions=actions)
        assert float(free.total) == pytest.approx(found.free_energy.total.sum(), abs=1e-10)
        for f, name in enumerate(("s0", "s1")):
            for t in range(4):
                near(percept.belief[f"{name}_{t}"].probabilities, found.factors[f][t])
                near(free.hidden[f"{name}_{t}"], found.free_energy.hidden[name][t])
                near(free.entropies[f"{name}_{t}"], found.free_energy.entropies[name][t])
        for name in ("o0", "o1"):
            near([free.observed[f"{name}_{t}"] for t in range(4)], found.free_energy.observed[name])


@pytest.mark.parametrize(
    ("y", "options", "word"),
    [
        ([[[0, 0]], [[0, 0], [0, 0]]], {}, "pad them with NaN.*mask="),
        ({"sound": [0]}, {}, r"outcomes of \['sound'\]"),
        ({"o0": [0, 1], "o1": [0]}, {}, "wanted the same for all"),
        (vfe.discrete.Soft([[1, 0, 0]]), {}, "wanted a dictionary"),
        ({"o0": vfe.discrete.Soft([[1, 0]])}, {}, "2 weights at a time for modality 0"),
        ({"o0": vfe.discrete.Soft([[1, 0, -1]])}, {}, "Soft: got weights"),
        ({"o0": vfe.discrete.Soft([[0, 0, 0]])}, {}, "not all zero"),
        ({"o0": vfe.discrete.Soft([[np.nan, 0, 1]])}, {}, "Soft: got weights"),
        ({"o0": vfe.discrete.Soft([1, 0, 0])}, {}, r"\(\*batch, time, outcomes\)"),
        ({"o0": vfe.discrete.Several([0], [0, 1])}, {}, "wanted the same"),
        ({"o0": vfe.discrete.Several([0], [3])}, {}, "outcome 3 at time 0, modality 0"),
        (np.zeros((2, 3, 2)), {"mask": [[1, 0, 1], [1, 1, 1]]}, "true from the first time"),
        (np.zeros((2, 3, 2)), {"mask": [1, 1, 1]}, "same shape"),
        (np.zeros((2, 3, 2)), {"actions": np.zeros((3, 2, 2))}, "3 sequences for outcomes of 2"),
        (np.zeros((2, 3, 2)), {"actions": np.full((2, 2, 2), 2)}, "action 2 at time 0 of sequence 0"),
        (np.zeros((3, 2)), {"actions": np.full((2, 2), np.nan)}, "actions: got nan"),
    ],
)
def test_bad_forms_of_outcomes(y, options, word):
    with pytest.raises(ValueError, match=word):
        vfe.smooth(two_factors(), y, **options)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"A": [[[0.9, 0.3], [0.2, 0.7]]]}, r"A\[0\]: column \(0,\) sums to 1.1"),
        ({"A": [[[1.1, 0.3], [-0.1, 0.7]]]}, "-0.1 at"),
        ({"A": [np.ones((1, 3))]}, r"A\[0\]: got axes \(3,\)"),
        ({"B": [np.eye(2)]}, "without an axis of controls"),
        ({"D": [[0.5, 0.5], [1.0]]}, "2 tables D for 1 factors"),
        ({"D": [[0.2, 0.3, 0.5]]}, r"D\[0\]: got axes \(3,\)"),
        ({"A_dependencies": [[1]]}, "A_dependencies"),
        ({"A": "x"}, "no array of real numbers"),
        ({"A": []}, "at least one each"),
    ],
)
def test_bad_tables(change, word):
    good = {"A": [[[0.9, 0.3], [0.1, 0.7]]], "B": [np.eye(2)[..., None]], "D": [[0.5, 0.5]]}
    with pytest.raises(ValueError, match=word):
        POMDP(**(good | change))


@pytest.mark.parametrize(
    ("outcomes", "actions", "word"),
    [
        ([0, 2], None, "outcome 2 at time 1, modality 0"),
        ([0, -1], None, "whole numbers from 0"),
        ([0, 0.5], None, "whole numbers"),
        (["a"], None, "no array of real numbers"),
        ([[0, 0]], None, r"\(time, 1\)"),
        ([], None, "no outcomes"),
        ([0, 1], [1], "action 1 at time 0, factor 0"),
        ([0, 1], [0, 0], "2 actions for 2 times"),
        ([0, 1], None, "time 1 are impossible"),
    ],
)
def test_bad_outcomes_and_actions(outcomes, actions, word):
    model = POMDP(A=[np.eye(2)], B=[np.eye(2)[..., None]], D=[[0.5, 0.5]])
    for verb in (vfe.filter, vfe.smooth):
        with pytest.raises(ValueError, match=word):
            verb(model, outcomes, actions=actions)


def test_too_many_joint_states_are_refused():
    big = POMDP(A=[np.ones((1, 2))], B=[np.eye(2)[..., None]] * 17, A_dependencies=[[0]])
    with pytest.raises(ValueError, match="131072 joint states"):
        vfe.filter(big, [0])
