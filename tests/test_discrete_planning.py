"""Expected free energy, policies, search, precision: against reference numbers and plain NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discrete_cases import CASES, read

import vfe
from vfe.discrete import POMDP, Goal, Policies, Search, Terms, every_policy, expected_free_energy

EVERY = dict.fromkeys(
    ("utility", "risk", "ambiguity", "state_information", "A_information", "B_information", "inductive"),
    1.0,
)


def near(got, wanted, atol=1e-10):
    np.testing.assert_allclose(np.asarray(got), wanted, rtol=0, atol=atol)


def joint_of(factors):
    whole = np.ones(())
    for q in factors:
        whole = np.multiply.outer(whole, q)
    return whole


@pytest.fixture(autouse=True, scope="module")
def in_double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def maze():
    with jax.enable_x64(True):
        yield vfe.discrete.worlds.tmaze()


@pytest.mark.parametrize("case", CASES)
def test_reference_terms(case):
    data, model = read(case)
    factors, modalities = range(len(model.states)), range(len(model.outcomes))
    beliefs = tuple(data[f"efe_q0_{f}"] for f in factors)
    counts = {
        "A_counts": tuple(data[f"pA_{m}"] for m in modalities),
        "B_counts": tuple(data[f"pB_{f}"] for f in factors),
    }
    wanted = {f: np.flatnonzero(data[f"goal_{f}"]) for f in factors if f"goal_{f}" in data}
    goal = Goal(model, wanted or {0: [0]}, depth=4)
    policies = Policies(model, data["policies"])
    joint = expected_free_energy(model, joint_of(beliefs), policies, Terms(**EVERY), **counts, goal=goal)
    apart = Terms(**EVERY, averages="factorised")
    factorised = expected_free_energy(model, beliefs, policies, apart, **counts, goal=goal).terms
    names = {
        "utility": "util",
        "state_information": "sinfo",
        "A_information": "novA",
        "B_information": "novB",
        "ambiguity": "ambiguity",
        "risk": "risk",
    }
    for name, key in names.items():
        near(joint.terms[name], data[f"efe_exact_{key}"])
        if f"efe_fac_{key}" in data:
            near(factorised[name], data[f"efe_fac_{key}"])
            near(factorised[name].sum(1), data[f"pymdp_negefe_{key}"])
    if "pymdp_negefe_inductive" in data:
        near(factorised["inductive"].sum(1), data["pymdp_negefe_inductive"])
    # risk + ambiguity = −(utility + information) where preferences are normalised.
    normal = POMDP(
        model.A,
        model.B,
        [np.asarray(jax.nn.log_softmax(jnp.asarray(c), -1)) for c in model.C],
        model.D,
        A_dependencies=model.A_dependencies,
        B_dependencies=model.B_dependencies,
    )
    pragmatic = expected_free_energy(normal, joint_of(beliefs), policies)
    near(joint.terms["risk"] + joint.terms["ambiguity"], -sum(pragmatic.terms.values()))
    near(pragmatic.total, -sum(pragmatic.terms.values()).sum(1))
    habit = np.log(np.maximum(data["E"], data["log_floor"]))
    gamma = float(data["gamma"])
    near(vfe.discrete.policy_posterior(-data["pymdp_negefe"], gamma, habit), data["pymdp_qpi"])
    found = vfe.discrete.infer_precision(
        data["prec_G"], data["prec_F"], habit, rate=float(data["prec_beta0"])
    )
    near(found.precision, data["prec_gamma"])
    near(found.after, data["prec_pi"])
    near(found.before, data["prec_pi0"])


@pytest.mark.parametrize("later", ["soft", "best"])
@pytest.mark.parametrize("case", ["tmaze_h2", "random_13", "random_03"])
def test_reference_search(case, later):
    data, model = read(case)
    belief = joint_of([data[f"efe_q0_{f}"] for f in range(len(model.states))])
    settings = Search(int(data["soph_horizon"]), later=later, budget=512)
    found = vfe.discrete.search(model, belief, settings, precision=float(data["gamma"]))
    assert (np.asarray(found.actions) == data["soph_actions"]).all()
    near(-found.total, data[f"soph_value_{'soft' if later == 'soft' else 'max'}"])
    assert not found.exceeded


def plain_value(model, belief, steps):
    """G of every action by plain recursion, best later actions, outcomes one after the other."""
    found = []
    for controls in itertools.product(*(range(n) for n in model.controls)):
        after = belief
        for f, table in enumerate(model.B):  # every factor depends on itself
            after = np.moveaxis(np.tensordot(table[..., controls[f]], after, (1, f)), 0, f)
        value, disorder = 0.0, 0.0
        chances, uncertain = {}, 0.0
        for outcomes in itertools.product(*(range(n) for n in model.outcomes)):
            seen = np.ones(model.states)
            for m, depends in enumerate(model.A_dependencies):
                row = model.A[m][outcomes[m]]
                shape = [model.states[f] if f in depends else 1 for f in range(len(model.states))]
                seen = seen * row.reshape(shape)
            mass = (seen * after).sum()
            uncertain -= (after * seen * np.log(np.where(seen > 0, seen, 1))).sum()
            if mass > 0:
                disorder -= mass * np.log(mass)
                value += mass * sum(model.C[m][o] for m, o in enumerate(outcomes))
                chances[outcomes] = mass, seen * after / mass
        value += disorder - uncertain
        if steps > 1:
            value += sum(p * max(plain_value(model, q, steps - 1)) for p, q in chances.values())
        found.append(value)
    return found


def test_search_is_the_plain_recursion(maze):
    belief = np.multiply.outer(maze.D[0], maze.D[1])
    found = vfe.discrete.search(maze, belief, Search(3, later="best"))
    near(-found.total, plain_value(maze, belief, 3))


def test_a_small_budget_says_what_it_left_out(maze):
    belief = np.multiply.outer(maze.D[0], maze.D[1])
    found = vfe.discrete.search(maze, belief, Search(3, budget=3))
    assert found.exceeded
    assert found.lost.shape == (2,)
    assert np.isfinite(found.total).all()
    # Four places, three beliefs at the cue and two in each arm: more is not needed.
    assert not vfe.discrete.search(maze, belief, Search(3, budget=64)).exceeded


def test_information_of_two_readings_is_less_than_twice_that_of_one():
    """A fixed binary state, a cue of validity .95: .610 nats in two readings, .989 by adding."""
    cue = np.array([[0.95, 0.05], [0.05, 0.95]])
    model = POMDP([cue], [np.eye(2)[..., None]])
    belief = np.array([0.5, 0.5])
    added = -expected_free_energy(model, belief, every_policy(model, 2)).total[0]
    updated = -vfe.discrete.search(model, belief, Search(2)).total[0]
    assert added == pytest.approx(0.989, abs=5e-4)
    assert updated == pytest.approx(0.610, abs=5e-4)


def test_prefixes_are_shared_and_policies_keep_their_order(maze):
    policies = every_policy(maze, 3)
    assert [level.of_policy.max() + 1 for level in policies.levels] == [4, 16, 64]
    belief = np.multiply.outer(maze.D[0], maze.D[1])
    everything = expected_free_energy(maze, belief, policies).total
    some = np.array([5, 63, 0, 17])
    chosen = Policies(maze, np.asarray(policies.sequences)[some])
    near(expected_free_energy(maze, belief, chosen).total, np.asarray(everything)[some], 1e-14)


def test_derivatives_of_the_precision_are_those_of_its_fixed_point():
    G, F = jnp.array([1.0, 2.0, 0.5]), jnp.array([0.3, 1.2, 2.0])

    def precision(scale):
        return vfe.discrete.infer_precision(scale * G, F, rate=0.7).precision

    step = 1e-5
    slope = (precision(1 + step) - precision(1 - step)) / (2 * step)
    assert jax.grad(precision)(1.0) == pytest.approx(float(slope), rel=1e-6)
    bend = (jax.grad(precision)(1 + step) - jax.grad(precision)(1 - step)) / (2 * step)
    assert jax.grad(jax.grad(precision))(1.0) == pytest.approx(float(bend), rel=1e-6)


def test_preferences_may_change_in_time():
    model = POMDP([np.eye(2)], [np.stack([np.eye(2), np.eye(2)[::-1]], -1)], C=[[[0.0, 1.0], [3.0, 0.0]]])
    found = expected_free_energy(model, np.array([1.0, 0.0]), every_policy(model, 3))
    # Stay is 0, switch 1. The last row holds beyond its step.
    utility = dict(zip(itertools.product((0, 1), repeat=3), found.terms["utility"].tolist(), strict=True))
    assert utility[(1, 1, 0)] == [1.0, 3.0, 3.0]
    assert utility[(0, 1, 0)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Policies(m, [[[0, 0]], [[4, 0]]]), "control 4 in policy 1, step 0, factor 0"),
        (lambda m: Policies(m, [[[0, 0]], [[0, 0]]]), "occurs twice"),
        (lambda m: Policies(m, [[0, 1, 2]]), r"wanted \(policies, steps, 2\)"),
        (lambda m: every_policy(m, 12), "got 16777216 policies.*Search"),
        (lambda m: every_policy(m, 0), "got horizon 0"),
        (lambda m: Search(2, budget=0), "got budget 0"),
        (lambda m: Search(2, later="worst"), 'wanted "soft" or "best"'),
        (lambda m: Terms(utility=float("nan")), "utility=nan"),
        (lambda m: Terms(utility=None, state_information=None), "every term is left out"),
        (lambda m: Terms(averages="both"), 'wanted "joint" or "factorised"'),
        (lambda m: Goal(m, {"place": ["attic"]}), "state of 'place' 'attic'"),
        (lambda m: Goal(m, {0: [1]}, threshold=1.0), "threshold 1.0"),
        (
            lambda m: expected_free_energy(m, m.D, every_policy(m, 1), Terms(A_information=1.0)),
            "A_information needs Dirichlet counts of A",
        ),
        (
            lambda m: expected_free_energy(m, m.D, every_policy(m, 1), Terms(inductive=1.0)),
            "inductive needs a goal",
        ),
        (lambda m: expected_free_energy(m, np.ones(3) / 3, every_policy(m, 1)), r"wanted \(4, 2\)"),
        (lambda m: expected_free_energy(m, (np.ones(3) / 3,), every_policy(m, 1)), r"of \(4, 2\)"),
        (lambda m: vfe.discrete.search(m, tuple(m.D), Search(2)), "beliefs by factor"),
        (lambda m: vfe.discrete.infer_precision([1.0, 2.0], rate=-1.0), "got rate -1.0"),
        (lambda m: vfe.discrete.infer_precision([1.0, 2.0], [1.0, 2.0, 3.0]), r"wanted \(policies,\)"),
    ],
)
def test_bad_plans(maze, make, message):
    with pytest.raises(ValueError, match=message):
        make(maze)
