"""A hierarchy in time: beliefs of both levels against one flat model with a clock."""

import jax
import numpy as np
import pytest

import vfe
from vfe.discrete import POMDP, Agent, HiddenMarkov, HierarchicalAgent, Terms
from vfe.discrete.worlds import tmaze

SEEN = np.array([[0.8, 0.3, 0.1], [0.2, 0.7, 0.9]])  # of the context, at every step
ABOVE = np.array([[0.9, 0.1], [0.05, 0.3], [0.05, 0.6]])  # context given the slow state
MOVES = np.array([[0.8, 0.3], [0.2, 0.7]])  # of the slow state
START = np.array([0.6, 0.4])
DURATION = 3


def levels():
    slow = Agent(HiddenMarkov(ABOVE, START, MOVES), 1)
    fast = Agent(HiddenMarkov(SEEN, ABOVE @ START, np.eye(3)), 1)
    return HierarchicalAgent(slow, fast, {0: 0}, DURATION)


def by_sums(outcomes):
    """p(slow state, context | outcomes so far) and −ln p(outcome | before), by sums over both."""
    belief = START[:, None] * ABOVE.T  # (slow, context)
    found = []
    for t, outcome in enumerate(outcomes):
        if t and t % DURATION == 0:
            belief = (MOVES @ belief.sum(1))[:, None] * ABOVE.T
        both = belief * SEEN[outcome]
        found.append((both / both.sum(), -np.log(both.sum())))
        belief = both / both.sum()
    return found


def test_both_levels_believe_what_the_flat_model_does():
    with jax.enable_x64(True):
        agent = levels()
        state = agent.init()
        outcomes = [0, 1, 1, 1, 0, 1, 0, 0, 0, 1]
        for t, (belief, surprise) in enumerate(by_sums(outcomes)):
            state, percept = agent.observe(state, outcomes[t])
            np.testing.assert_allclose(percept.factors[0], belief.sum(0), atol=1e-12)
            assert float(percept.free_energy.total) == pytest.approx(surprise, abs=1e-12)
            if t % DURATION == DURATION - 1:
                np.testing.assert_allclose(percept.slow_factors[0], belief.sum(1), atol=1e-12)
            assert float(percept.slow_free_energy.total) == pytest.approx(0.0, abs=1e-12)
            state, _ = agent.decide(state, jax.random.key(t))


def test_an_agent_with_seasons_stops_reading_the_cue():
    """The better arm stays where it was for many periods: the slow level comes to expect it."""
    fast = tmaze()
    slow = HiddenMarkov(
        np.array([[0.97, 0.03], [0.03, 0.97]]), [0.5, 0.5], np.array([[0.98, 0.02], [0.02, 0.98]])
    )
    always_left = POMDP(
        fast.A,
        [np.asarray(fast.B[0]), fast.B[1]],
        D=[fast.D[0], [1.0, 0.0]],
        A_dependencies=fast.A_dependencies,
        B_dependencies=fast.B_dependencies,
    )
    # Arms are left at the end of a period: from anywhere "centre" leads back.
    back = np.array(fast.B[0])
    back[:, :, 0] = 0.0
    back[0, :, 0] = 1.0
    tables = {"A_dependencies": fast.A_dependencies, "B_dependencies": fast.B_dependencies}
    names = {
        "factors": dict(zip(fast.labels.factors, fast.labels.states, strict=True)),
        "modalities": dict(zip(fast.labels.modalities, fast.labels.outcomes, strict=True)),
    }
    model = POMDP(fast.A, [back, fast.B[1]], fast.C, fast.D, **tables, **names)
    world = POMDP(fast.A, [back, fast.B[1]], D=always_left.D, **tables)
    agent = HierarchicalAgent(Agent(slow, 1), Agent(model, 2), {0: "better arm"}, duration=4)
    history = vfe.live(agent, world, 32, jax.random.key(1))
    season = np.asarray(history.percepts.slow_factors[0])[:, 0]
    assert season[3] > 0.5
    assert season[-1] > 0.95
    places = np.asarray(history.outcomes)[:, 0].reshape(8, 4)
    assert (places[0] == 3).any()
    assert not (places[-1] == 3).any()
    assert np.asarray(history.decisions.slow.action).shape == (32, 1)


def test_bad_hierarchies():
    slow, fast = levels().slow, levels().fast
    other = Agent(HiddenMarkov(SEEN, ABOVE @ START, np.full((3, 3), 1 / 3)), 1)
    small = Agent(HiddenMarkov(np.eye(2), START, MOVES), 1)
    for make, message in (
        (lambda: HierarchicalAgent(slow, fast, {}, 3), "no links"),
        (lambda: HierarchicalAgent(slow, fast, {"weather": 0}, 3), "a modality of the slow agent"),
        (lambda: HierarchicalAgent(slow, fast, {0: 1}, 3), "a factor of the fast agent"),
        (lambda: HierarchicalAgent(slow, fast, {0: 0}, 0), "got duration 0"),
        (lambda: HierarchicalAgent(slow, other, {0: 0}, 3), "changes within a period"),
        (
            lambda: HierarchicalAgent(slow, Agent(fast.model, 1, infer_precision=True), {0: 0}, 3),
            "the fast agent has .'infer_precision'.",
        ),
        (lambda: HierarchicalAgent(small, fast, {0: 0}, 3), "2 outcomes.*3 states"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_what_is_not_linked_goes_on_from_period_to_period():
    """A seen place that moves by itself and by action, beside the linked context: sums over all three."""
    rng = np.random.default_rng(1)
    walk = rng.gamma(1.0, size=(3, 3, 2))
    walk /= walk.sum(0)
    seen = rng.gamma(1.0, size=(4, 3, 2))  # of place and context
    seen /= seen.sum(0)
    above = np.array([[0.9, 0.2], [0.1, 0.8]])
    push = np.stack([MOVES, MOVES[::-1]], -1)  # the slow state is moved, too
    slow_model = POMDP([above], [push], D=[START])
    fast_model = POMDP(
        [np.eye(3), seen],
        [walk, np.eye(2)[..., None]],
        D=[[0.2, 0.3, 0.5], [0.5, 0.5]],
        A_dependencies=[[0], [0, 1]],
    )
    with jax.enable_x64(True):
        agent = HierarchicalAgent(
            Agent(slow_model, 1, terms=Terms(utility=1.0)), Agent(fast_model, 1), {0: 1}, DURATION
        )
        state = agent.init()
        belief = np.einsum("i,ji,k->ijk", START, above, np.asarray(fast_model.D[0]))
        action = slow_action = 0
        for t in range(8):
            place, other = int(rng.integers(3)), int(rng.integers(4))
            if t:
                belief = np.einsum("ijk,lk->ijl", belief, walk[..., action])
            if t and t % DURATION == 0:
                # The context is drawn anew; what goes on is the place.
                moved = np.einsum("ab,bjk->ajk", push[..., slow_action], belief).sum(1)
                belief = np.einsum("ak,ja->ajk", moved, above)
            belief = belief * (np.arange(3) == place) * seen[other].T
            surprise = -np.log(belief.sum())
            belief /= belief.sum()
            state, percept = agent.observe(state, [place, other])
            np.testing.assert_allclose(percept.factors[1], belief.sum((0, 2)), atol=1e-10)
            assert float(percept.free_energy.total) == pytest.approx(surprise, abs=1e-10)
            if t % DURATION == DURATION - 1:
                np.testing.assert_allclose(percept.slow_factors[0], belief.sum((1, 2)), atol=1e-10)
            state, decision = agent.decide(state, jax.random.key(t))
            action = int(decision.action[0])
            if t % DURATION == DURATION - 1:
                slow_action = int(decision.slow.action[0])
