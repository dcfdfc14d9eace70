"""Exact beliefs about discrete chains, against reference models and sums over every path."""

import itertools

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
    near(vfe.filter(model, data["obs"], actions=data["actions"]).joint, found.filtered.joint)
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


def test_missing_outcomes_and_factors_that_drive_each_other_by_every_path():
    rng = np.random.default_rng(0)

    def table(*shape):
        values = rng.gamma(1.0, size=shape)
        return values / values.sum(0)

    model = POMDP(
        A=[table(3, 3, 2), table(2, 2)],
        B=[table(2, 3, 2, 2), table(3, 3, 1)],
        D=[[0.3, 0.7], [0.2, 0.3, 0.5]],
        A_dependencies=[[1, 0], [0]],
        B_dependencies=[[1, 0], [1]],
    )
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
