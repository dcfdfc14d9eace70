"""Agents: what they believe, do and learn, against exact filters and known behaviour."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discrete_cases import read

import vfe
from vfe.discrete import (
    POMDP,
    Agent,
    DirichletTables,
    Goal,
    MeanField,
    OnlineLearning,
    Policies,
    Search,
    Terms,
    every_policy,
)
from vfe.discrete.worlds import POMDPWorld, bandit, corridor_tmaze, tmaze

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def maze():
    return tmaze()


@pytest.fixture(scope="module")
def corridors():
    return corridor_tmaze()


def arms(history):
    """For every run: the step of the first arm, whether the cue came before, and whether it rewarded."""
    places = np.asarray(history.outcomes)[..., 0]
    arm = (places == 1) | (places == 2)
    cue = places == 3
    never = places.shape[1] + 1
    first = np.where(arm.any(1), arm.argmax(1), never)
    read = np.where(cue.any(1), cue.argmax(1), never)
    rewards = np.asarray(history.outcomes)[..., 1]
    met = first < never
    rewarded = rewards[np.arange(len(first))[met], first[met]] == 1
    return first, read < first, rewarded, cue.sum(1)


def test_an_agent_in_step_is_the_exact_filter():
    data, model = read("random_17")
    with jax.enable_x64(True):
        model = POMDP(
            model.A,
            model.B,
            model.C,
            model.D,
            A_dependencies=model.A_dependencies,
            B_dependencies=model.B_dependencies,
        )
        agent = Agent(model, 1)
        state, F = agent.init(), 0.0
        for t, outcomes in enumerate(data["obs"]):
            state, percept = agent.observe(state, outcomes)
            F += float(percept.free_energy.total)
            free = percept.free_energy
            assert float(free.complexity - free.accuracy) == pytest.approx(float(free.total), abs=1e-12)
            for f, q in enumerate(percept.factors):
                np.testing.assert_allclose(q, data[f"exact_filter_{f}"][t], atol=1e-12)
            assert pytest.approx(float(data["exact_neg_log_evidence"][t]), abs=1e-12) == F
            if t < len(data["actions"]):
                state = agent.take(state, data["actions"][t])


def test_a_mean_field_agent_perceives_no_worse_than_the_published_filter():
    data, model = read("cuechain_h3")
    with jax.enable_x64(True):
        model = POMDP(
            model.A,
            model.B,
            model.C,
            model.D,
            A_dependencies=model.A_dependencies,
            B_dependencies=model.B_dependencies,
        )
        agent = Agent(model, 1, belief=MeanField(starts=8), terms=Terms(averages="factorised"))
        state = agent.init()
        # So far the reference's priors are those of this agent, too.
        for t in range(2):
            state, percept = agent.observe(state, data["obs"][t])
            F = float(percept.free_energy.total)
            assert pytest.approx(float(data["mf_step_vfe"][t]), abs=1e-6) == F
            assert data["pymdp_fpi_vfe"][t] + 1e-9 >= F
            state, decision = agent.decide(state, KEY)
            assert np.isfinite(decision.expected_free_energy).all()
            state = agent.take(state, data["actions"][t])
    many = POMDP([np.eye(2)], [np.eye(2)[..., None]] * 20, A_dependencies=[[0]])
    with pytest.raises(ValueError, match="got 1048576 joint states"):
        Agent(many, 1)
    wide = Agent(many, 1, belief=MeanField(starts=1), terms=Terms(averages="factorised"))
    _, percept = wide.observe(wide.init(), [1])
    assert percept.factors[0].tolist() == pytest.approx([0.0, 1.0], abs=1e-6)


def test_cue_first_with_information_gain_and_never_without(corridors):
    first, cued, rewarded, _ = arms(vfe.live(Agent(corridors, 3), corridors, 8, KEY, repeats=400))
    assert cued.mean() >= 0.99
    assert first.mean() == 4.0
    assert rewarded.mean() == pytest.approx(0.94, abs=0.025)
    blind = Agent(corridors, 3, terms=Terms(state_information=None))
    assert arms(vfe.live(blind, corridors, 8, KEY, repeats=400))[1].mean() == 0.0


def test_two_steps_ahead_it_reads_the_cue_again_and_again_and_further_ahead_it_does_not(corridors, maze):
    short = Agent(corridors, 2, precision=1.0)
    *_, reads = arms(vfe.live(short, corridors, 12, KEY, repeats=100))
    assert reads.mean() > 5
    longer = Agent(maze, plan=Search(3, budget=32))
    first, cued, _, reads = arms(vfe.live(longer, maze, 6, KEY, repeats=100))
    assert (reads == 1).all()
    assert (first == 2).all()
    assert cued.all()


def test_choices_are_drawn_from_the_probabilities_they_are_said_to_have():
    model = POMDP(
        [np.array([[0.9, 0.2, 0.4], [0.1, 0.8, 0.6]])],
        [np.stack([np.eye(3)[np.roll(range(3), k)] for k in range(3)], -1), np.ones((1, 1, 2))],
        [[1.0, 0.0]],
        [[0.7, 0.2, 0.1], [1.0]],
        A_dependencies=[[0]],
    )
    for choose in ("policy", "action", "factor"):
        agent = Agent(model, 2, precision=1.5, action_precision=0.6, choose=choose)
        state, _ = agent.observe(agent.init(), 0)
        p = np.exp(agent.log_probabilities(state))
        assert p.sum() == pytest.approx(1.0, abs=1e-5)
        drawn = jax.vmap(lambda key, agent=agent, state=state: agent.decide(state, key)[1].action)(
            jax.random.split(KEY, 4000)
        )
        counts = [(np.asarray(drawn) == u).all(1).mean() for u in np.asarray(agent.choosing.actions)]
        np.testing.assert_allclose(counts, p, atol=0.03)


@pytest.mark.parametrize(
    "settings", [{}, {"plan": Search(2)}, {"choose": "factor"}, {"infer_precision": True}]
)
def test_derivatives_of_recorded_choices(maze, settings):
    """With respect to a table with zeros, preferences and precision: against finite differences."""
    horizon = None if "plan" in settings else 2

    def log_likelihood(p):
        cue = jnp.zeros((3, 4, 2)).at[0, :3].set(1.0)
        cue = cue.at[1, 3].set(jnp.stack([p[0], 1 - p[0]])).at[2, 3].set(jnp.stack([1 - p[0], p[0]]))
        reward = p[1] * jnp.array([0.0, 1.0, 0.0]) - p[2] * jnp.array([0.0, 0.0, 1.0])
        model = POMDP(
            [*maze.A[:2], cue],
            maze.B,
            [maze.C[0], reward, maze.C[2]],
            maze.D,
            A_dependencies=maze.A_dependencies,
            B_dependencies=maze.B_dependencies,
        )
        agent = Agent(model, horizon, precision=p[3], action_precision=1.0, **settings)
        state, total = agent.init(), 0.0
        for outcomes, action in (([0, 0, 0], [3, 0]), ([3, 0, 1], [1, 0]), ([1, 1, 0], [1, 0])):
            state, _ = agent.observe(state, jnp.array(outcomes))
            chosen = (agent.actions == jnp.array(action)).all(1)
            total = total + agent.log_probabilities(state)[jnp.argmax(chosen)]
            state = agent.take(state, action)
        return total

    with jax.enable_x64(True):
        both = jax.jit(jax.value_and_grad(log_likelihood))
        p, step = np.array([0.9, 2.0, 3.0, 1.5]), 1e-5
        slopes = [(both(p + step * e)[0] - both(p - step * e)[0]) / (2 * step) for e in np.eye(4)]
        np.testing.assert_allclose(both(p)[1], slopes, atol=1e-7)


def test_precision_rises_where_policies_that_were_good_explain_the_outcomes(maze):
    agent = Agent(maze, 2, precision=2.0, infer_precision=True)
    state, _ = agent.observe(agent.init(), [0, 0, 0])
    state, decision = agent.decide(state, KEY)
    assert int(decision.action[0]) == 3
    expected, _ = agent.observe(state, [3, 0, 1])
    assert float(expected.precision) > 2.0
    # Outcomes that only the worst policies would have led to: entering an arm unread.
    missed, _ = Agent(maze, 2, precision=2.0, infer_precision=True, impossible="skip").observe(
        state, [1, 2, 0]
    )
    assert float(missed.precision) < 2.0


def test_many_modalities_and_long_evidence_do_not_underflow():
    """Eighty modalities at once, and 80 outcomes for one state after which 100 speak for the other."""
    seen = np.array([[0.9, 0.1], [0.1, 0.9]])
    many = POMDP([seen] * 80, [np.eye(2)[..., None]])
    agent = Agent(many, 1, terms=Terms(averages="factorised"))
    _, percept = agent.observe(agent.init(), [0] * 41 + [1] * 39)
    wanted = -np.log(0.5 * (0.9**41 * 0.1**39 + 0.9**39 * 0.1**41))
    assert float(percept.free_energy.total) == pytest.approx(wanted, rel=1e-5)
    assert float(percept.factors[0][0]) == pytest.approx(81 / 82, rel=1e-5)
    one = POMDP([np.array([[0.8, 0.2], [0.2, 0.8]])], [np.eye(2)[..., None]])
    long = Agent(one, 1, terms=Terms(averages="factorised"))
    outcomes = jnp.concatenate([jnp.zeros(80, int), jnp.ones(100, int)])[:, None]
    belief = jax.lax.scan(lambda s, o: long.observe(s, o), long.init(), outcomes)[0].belief
    assert float(belief[1]) == pytest.approx(1.0)


def test_derivatives_of_F_and_where_habits_forbid(maze):
    def surprise(cue, start):
        model = POMDP(
            [*maze.A[:2], cue],
            maze.B,
            maze.C,
            [maze.D[0], start],
            A_dependencies=maze.A_dependencies,
            B_dependencies=maze.B_dependencies,
        )
        agent = Agent(model, 1)
        _, percept = agent.observe(agent.init(), jnp.array([0, 0, 0]))
        return percept.free_energy.total

    found = jax.jit(jax.grad(surprise, (0, 1)))(jnp.asarray(maze.A[2]), jnp.array([0.5, 0.5]))
    assert all(np.isfinite(g).all() for g in found)
    habit = POMDP([np.eye(2)], [np.stack([np.eye(2)] * 3, -1)], [[3.0, 0.0]], E=[0.5, 0.5, 0.0])

    def log_probability(precision, choose):
        agent = Agent(habit, 1, precision=precision[0], action_precision=precision[1], choose=choose)
        state, _ = agent.observe(agent.init(), jnp.array([0]))
        return agent.log_probabilities(state)

    for choose in ("policy", "action", "factor"):
        found = log_probability(jnp.array([400.0, 2.0]), choose)
        np.testing.assert_allclose(np.exp(found), [0.5, 0.5, 0.0], atol=1e-6)
        slopes = jax.jacobian(log_probability)(jnp.array([400.0, 2.0]), choose)
        assert np.isfinite(slopes).all()


def test_a_plan_that_was_departed_from_is_not_followed(corridors):
    agent = Agent(corridors, 3, plan_above=5.0)
    state, _ = agent.observe(agent.init(), [0, 0, 0])
    state, _ = agent.decide(state, KEY)
    followed, _ = agent.observe(state, [3, 0, 1])
    assert not agent.decide(followed, KEY)[1].planned
    state, _ = agent.observe(agent.take(state, [0, 0]), [0, 0, 0])
    assert agent.decide(state, KEY)[1].planned


def test_a_mean_field_agent_refuses_what_is_impossible():
    fixed = POMDP([np.eye(2)], [np.eye(2)[..., None]], D=[[1.0, 0.0]])
    agent = Agent(fixed, 1, belief=MeanField(starts=2))
    state, _ = agent.observe(agent.init(), [0])
    with pytest.raises(ValueError, match="impossible under the model"):
        agent.observe(state, [1])


def test_a_plan_is_followed_while_the_belief_is_sharp(corridors):
    agent = Agent(corridors, 3, plan_above=0.3)
    history = vfe.live(agent, corridors, 5, KEY, repeats=20)
    planned = np.asarray(history.decisions.planned)
    # The belief is open, then the cue changes it, then a plan of three steps leads into the arm.
    assert planned[:, :2].all()
    assert not planned[:, 2:4].any()
    first, cued, *_ = arms(history)
    assert (first == 4).all()
    assert cued.all()


def test_learning_while_living_is_counting_where_states_are_seen():
    world = POMDP(
        [np.eye(3)], [np.stack([np.eye(3)[[2, 0, 1]].T, np.full((3, 3), 1 / 3)], -1)], D=[[1.0, 0, 0]]
    )
    counts = DirichletTables.flat(world, 1.0, "B")
    flat = DirichletTables(world, B=[np.ones((3, 3, 2))])
    agent = Agent(
        flat.expected(world), 1, action_precision=1.0, learning=OnlineLearning(flat), terms=Terms()
    )
    history = vfe.live(agent, world, 60, KEY)
    assert counts.B[0].shape == (3, 3, 2)
    places, actions = np.asarray(history.outcomes)[:, 0], np.asarray(history.actions)[:, 0]
    wanted = np.ones((3, 3, 2))
    for before, after, u in zip(places[:-1], places[1:], actions[:-1], strict=True):
        wanted[after, before, u] += 1
    np.testing.assert_allclose(history.agent_state.counts.B[0], wanted, rtol=1e-5)


def test_preferences_are_learned_from_outcomes_and_old_ones_are_forgotten():
    """c ← c_0 + (1 − φ)(c − c_0) + η [o], step by step by hand."""
    model = POMDP([np.eye(2)], [np.full((2, 2, 1), 0.5)])
    flat = DirichletTables(model, C=[np.array([1.0, 3.0])])
    agent = Agent(model, 1, learning=OnlineLearning(flat, rate=0.5, forgetting=0.2))
    state, wanted = agent.init(), np.array([1.0, 3.0])
    for outcome in (0, 1, 1, -1, 0):
        state, _ = agent.observe(state, [outcome])
        state, decision = agent.decide(state, KEY)
        wanted = [1.0, 3.0] + 0.8 * (wanted - [1.0, 3.0]) + 0.5 * (np.arange(2) == outcome)
    np.testing.assert_allclose(state.counts.C[0], wanted, rtol=1e-5)
    # C is ⟨ln θ⟩ of these counts, and the outcomes to come are 50 : 50.
    logs = jax.scipy.special.digamma(wanted) - jax.scipy.special.digamma(wanted.sum())
    assert float(decision.terms["utility"][0, 0]) == pytest.approx(float(logs.mean()), rel=1e-4)


def test_what_is_still_to_learn_is_asked_of_the_counts_learned_so_far():
    model = POMDP([np.full((2, 2), 0.5)], [np.stack([np.eye(2), np.eye(2)[::-1]], -1)], D=[[1.0, 0.0]])
    flat = DirichletTables(model, A=[np.ones((2, 2))], B=[np.ones((2, 2, 2))])
    terms = Terms(utility=None, state_information=None, A_information=1.0, B_information=1.0)
    agent = Agent(model, 1, learning=OnlineLearning(flat), terms=terms)
    state = agent.init()
    first = None
    for outcome in (0, 0, 1, 0, 0):
        state, _ = agent.observe(state, [outcome])
        state, decision = agent.decide(state, KEY)
        first = decision.terms if first is None else first
    counts = state.counts
    wanted = vfe.discrete.expected_free_energy(
        counts.expected(model),
        state.belief,
        every_policy(model, 1),
        terms,
        A_counts=counts.A,
        B_counts=counts.B,
    )
    for name, values in wanted.terms.items():
        np.testing.assert_allclose(decision.terms[name], values, rtol=1e-5)
        # What was done often has less left to tell.
        assert float(values.max()) < float(first[name].min())


def test_episodes_keep_what_was_learned_and_start_beliefs_anew(maze):
    flat = DirichletTables(maze, D=[None, np.array([1.0, 1.0])])
    agent = Agent(maze, 2, learning=OnlineLearning(flat))
    always_left = POMDP(
        maze.A,
        maze.B,
        D=[maze.D[0], [1.0, 0.0]],
        A_dependencies=maze.A_dependencies,
        B_dependencies=maze.B_dependencies,
    )
    history = vfe.live(agent, POMDPWorld(always_left, episode=4), 40, KEY)
    counts = np.asarray(history.agent_state.counts.D[1])
    # The first outcomes of an episode say nothing about the arm: the counts grow by what is believed then.
    assert counts.sum() == pytest.approx(2 + 10, rel=1e-5)
    np.testing.assert_allclose(counts, 6.0, rtol=1e-5)


def test_habits_shape_choice_and_are_learned(maze):
    policies = every_policy(maze, 1)
    indifferent = Terms(utility=1.0, state_information=None)
    uniform = POMDP(
        maze.A,
        maze.B,
        None,
        maze.D,
        [0.1, 0.1, 0.1, 0.7],
        A_dependencies=maze.A_dependencies,
        B_dependencies=maze.B_dependencies,
    )
    agent = Agent(uniform, plan=policies, terms=indifferent)
    state, _ = agent.observe(agent.init(), [0, 0, 0])
    _, decision = agent.decide(state, KEY)
    assert int(decision.action[0]) == 3
    np.testing.assert_allclose(decision.policy_probabilities, [0.1, 0.1, 0.1, 0.7], rtol=1e-5)
    learner = Agent(
        uniform,
        plan=policies,
        terms=indifferent,
        learning=OnlineLearning(DirichletTables(uniform, E=np.ones(4))),
        action_precision=1.0,
    )
    counts = vfe.live(learner, maze, 20, KEY).agent_state.counts
    assert float(counts.E.sum()) == pytest.approx(24.0)


def test_a_batch_of_agents_that_differ():
    model = bandit((0.9, 0.1))
    history = vfe.live(
        lambda precision: Agent(
            model, 1, precision=precision, action_precision=1.0, terms=Terms(state_information=None)
        ),
        model,
        20,
        KEY,
        each=jnp.array([0.01, 20.0]),
        repeats=30,
    )
    assert history.actions.shape[:3] == (2, 30, 20)
    # At γ = 0.01 all policies are nearly as probable; at γ = 20 what was learned of the arms decides.
    extremes = [np.abs(np.asarray(p) - 0.5).max() for p in history.decisions.policy_probabilities]
    assert extremes[0] < 0.01
    assert extremes[1] > 0.45


def test_a_second_call_compiles_nothing(maze, caplog):
    agent = Agent(maze, 2, terms=Terms(utility=0.5), action_precision=1.0)
    state, _ = agent.observe(agent.init(), [0, 0, 0])
    state, _ = agent.decide(state, KEY)

    def compiled(agent, state):
        caplog.clear()
        with jax.log_compiles():
            state, _ = agent.observe(state, [3, 0, 1])
            agent.decide(state, KEY)
        messages = [record.getMessage() for record in caplog.records]
        return [m for m in messages if m.startswith("Compiling") and ("_observe" in m or "_decide" in m)]

    other = Agent(tmaze(cue_validity=0.8), 2, terms=Terms(utility=0.7), action_precision=2.0, precision=3.0)
    assert compiled(other, state) == []
    longer = Agent(maze, 1, terms=Terms(utility=0.5), action_precision=1.0)
    moved = longer.take(longer.observe(longer.init(), [0, 0, 0])[0], [3, 0])
    assert compiled(longer, moved)


def test_later_choices_of_a_search_are_as_precise_as_the_agent_and_restarts_keep_that(maze):
    belief = np.multiply.outer(maze.D[0], maze.D[1])
    values = {}
    for precision in (0.5, 8.0):
        agent = Agent(maze, plan=Search(2, budget=32), precision=precision)
        state, _ = agent.observe(agent.init(), [0, 0, 0])
        values[precision] = agent.decide(state, KEY)[1].expected_free_energy
        wanted = vfe.discrete.search(maze, belief, Search(2, budget=32), precision=precision).total
        np.testing.assert_allclose(values[precision], wanted, rtol=1e-5)
    assert float(np.abs(values[0.5] - values[8.0]).max()) > 0.1
    learner = Agent(maze, 2, precision=2.0, infer_precision=True)
    state, _ = learner.observe(learner.init(), [0, 0, 0])
    state, _ = learner.observe(learner.decide(state, KEY)[0], [3, 0, 1])
    assert float(state.precision) != 2.0
    assert float(learner.restart(state).precision) == float(state.precision)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Agent(m, 2, precision=0.0), "got precision 0.0; wanted a number greater than zero"),
        (lambda m: Agent(m, 2, action_precision=-1.0), "got action_precision -1.0"),
        (lambda m: Agent(m, 2, choose="best"), "got choose='best'"),
        (lambda m: Agent(m, 2, impossible="ignore"), "got impossible='ignore'"),
        (lambda m: Agent(m, 2, plan=Search(2)), "a horizon and a plan"),
        (lambda m: Agent(m, plan=Search(2), plan_above=0.1), "a search has no policies"),
        (lambda m: Agent(m, 12), "got 16777216 policies"),
        (lambda m: Agent(m, 2, terms=Terms(A_information=1.0)), "needs counts of A"),
        (lambda m: Agent(m, 2, terms=Terms(inductive=1.0)), "needs a goal"),
        (
            lambda m: Agent(m, 2, learning=OnlineLearning(DirichletTables(m, E=np.ones(3)))),
            "counts of E for 3 policies; the plan has 16",
        ),
        (lambda m: OnlineLearning(DirichletTables.flat(m), rate=0.0), "got rate 0.0"),
        (lambda m: OnlineLearning(DirichletTables.flat(m), forgetting=1.5), "got forgetting 1.5"),
        (lambda m: Agent(m, 1).observe(Agent(m, 1).init(), [0, 0]), r"wanted \(3,\)"),
        (lambda m: Agent(m, 1).observe(Agent(m, 1).init(), [0, 0, 3]), "outcome 3 of 'cue'"),
        (lambda m: Agent(m, 1).observe(Agent(m, 1).init(), [0, 0, "x"]), "Agent: outcomes"),
        (lambda m: Agent(m, 1).observe(Agent(m, 1).init(), [1, 1, 0]), "impossible under the model"),
        (lambda m: Agent(m, 1).log_probabilities(Agent(m, 1).init()), "action_precision=1.0"),
        (
            lambda m: Agent(POMDP([np.eye(2)], [np.eye(2)[..., None]], E=[0.5, 0.5]), 1),
            "got habits E over 2",
        ),
        (lambda m: Agent(m, plan=Policies(m, [[[9, 0]]])), "control 9"),
        (lambda m: Agent(m, plan=every_policy(bandit((0.9, 0.1)), 1)), "policies of another model"),
        (
            lambda m: Agent(m, 1, goal=Goal(bandit((0.9, 0.1)), {0: [1]}), terms=Terms(inductive=1.0)),
            "a goal of another model",
        ),
        (lambda m: Agent(m, 1, goal=Goal(m, {0: [1]})), "a goal that no term is about"),
        (lambda m: Agent(m, 1, plan_above=float("nan")), "got plan_above nan"),
        (lambda m: Agent(m, 1, plan_above=0.1, infer_precision=True), "leave one of them out"),
        (
            lambda m: Agent(m, 1, learning=OnlineLearning(DirichletTables.flat(bandit((0.9, 0.1))))),
            "got counts of A of shapes",
        ),
        (lambda m: Agent(m, 1).take(Agent(m, 1).init(), [4, 0]), r"got action \[4.0, 0.0\]"),
        (lambda m: Agent(m, 1).take(Agent(m, 1).init(), [1]), "one control of each factor"),
    ],
)
def test_bad_agents(maze, make, message):
    with pytest.raises(ValueError, match=message):
        make(maze)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "maze"}, "a str for model; wanted a vfe.discrete.POMDP"),
        ({"plan": 3}, "a int for plan; wanted a vfe.discrete.Policies or vfe.discrete.Search"),
        ({"terms": "utility"}, "a str for terms"),
        ({"goal": 3}, "a int for goal"),
        ({"belief": "mean field"}, "a str for belief"),
        ({"learning": 1.0}, "a float for learning"),
    ],
)
def test_agents_of_other_things(maze, settings, message):
    with pytest.raises(TypeError, match=message):
        Agent(**({"model": maze} | settings))
