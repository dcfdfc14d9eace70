"""Worlds: their tables against the reference models, what is drawn from them, what is refused."""

import jax
import numpy as np
import pytest
from discrete_cases import read
from helpers import assert_close
from loop_cases import Wanderer
from scipy import stats

import vfe
from vfe.discrete import worlds

KEY = jax.random.key(0)
MAKERS = {
    "tmaze_h2": worlds.tmaze,
    "cuechain_h3": worlds.cue_chaining,
}


@pytest.mark.parametrize("case", MAKERS)
def test_tables_are_those_of_the_reference(case):
    _, known = read(case)
    made = MAKERS[case]()
    for name in "ABCD":
        for got, want in zip(getattr(made, name), getattr(known, name), strict=True):
            assert_close(got, want, 1e-12, name)
    assert made.A_dependencies == known.A_dependencies
    assert made.B_dependencies == known.B_dependencies


@pytest.fixture(scope="module")
def foraging():
    """400 foragers at random for 25 steps, of whom states, outcomes and actions are read."""
    model = worlds.hidden_predator(4, sight=1, seen=0.5)
    history = vfe.live(Wanderer(model), model, 25, KEY, repeats=400)
    found = history.world_states.states, history.outcomes, history.actions
    return model, *(np.asarray(part) for part in found)


def test_what_is_drawn_follows_the_tables(foraging):
    """χ² of first states, of moves under every control and of outcomes in every state."""
    model, states, outcomes, actions = foraging
    for f, table in enumerate(model.D):
        _agree(states[:, 0, f], table)
    before, after, done = (part.reshape(-1, 3) for part in (states[:, :-1], states[:, 1:], actions[:, :-1]))
    for f, depends in enumerate(model.B_dependencies):
        known = np.column_stack([before[:, depends], done[:, f]])
        for columns in np.unique(known, axis=0):
            _agree(after[(known == columns).all(1), f], model.B[f][(slice(None), *columns)])
    here, seen = states.reshape(-1, 3), outcomes.reshape(-1, 4)
    for m, depends in enumerate(model.A_dependencies):
        for columns in np.unique(here[:, depends], axis=0):
            chosen = (here[:, depends] == columns).all(1)
            _agree(seen[chosen, m], model.A[m][(slice(None), *columns)])


def _agree(drawn, probabilities):
    counts = np.bincount(drawn, minlength=len(probabilities))
    possible = np.asarray(probabilities) > 0
    assert not counts[~possible].any()
    if possible.sum() > 1 and len(drawn) > 50:
        found = stats.chisquare(counts[possible], len(drawn) * np.asarray(probabilities)[possible])
        assert found.pvalue > 1e-5


def test_tiger():
    model = worlds.tiger()
    left = 0.85**2 / (0.85**2 + 0.15**2)
    heard = vfe.filter(model, [[0, 0], [1, 0], [1, 0], [0, 1]], actions=[[0, 0], [0, 0], [0, 2]])
    assert_close(heard.factors[0][:, 0], [0.5, 0.85, left, 1.0], 1e-9)  # the treasure was right
    assert_close(heard.surprise[3], -np.log(left), 1e-9)
    after = vfe.filter(model, [[0, 0], [0, 1], [0, 1]], actions=[[0, 2], [0, 2]])
    assert_close(after.surprise, [0.0, np.log(2), np.log(2)], 1e-9)  # behind either door again


def test_bandit():
    model = worlds.bandit((0.8, 0.2), hazard=0.1)
    believed = vfe.filter(model, [[0, 0], [2, 1], [2, 1]], actions=[[0, 0], [0, 0]])
    second = 0.8 * 0.9 + 0.2 * 0.1
    third = second * 0.8 / (second * 0.8 + (1 - second) * 0.2)
    assert_close(believed.factors[0][:, 0], [0.5, 0.8, third], 1e-9)
    three = worlds.bandit((0.9, 0.5, 0.1))
    assert three.A[0][2].tolist() == [[0, 0.9, 0.5, 0.1], [0, 0.1, 0.9, 0.5], [0, 0.5, 0.1, 0.9]]
    assert worlds.bandit([[0.9, 0.4]]).states == (1, 3)


def test_cues_only_tell_together():
    model = worlds.cue_chaining()
    only = vfe.filter(model, [[0, 0, 0, 0], [2, 0, 1, 0]], actions=[[2, 0, 0]])
    assert_close(only.factors[2][1], [0.5, 0.5], 1e-9)
    seen = [[0, 0, 0, 0], [1, 2, 0, 0], [2, 0, 1, 0]]
    both = vfe.filter(model, seen, actions=[[1, 0, 0], [2, 0, 0]])
    assert_close(both.factors[2][2], [0.1, 0.9], 1e-9)


def test_grid_slips_and_misleads():
    model = worlds.grid(3, 3)
    assert_close(model.A[0], 0.85 * np.eye(9) + 0.15 / 8 * (1 - np.eye(9)), 1e-12)
    assert_close(model.B[0][:, 4, 0], 0.9 * np.eye(9)[1] + 0.1 * np.eye(9)[4], 1e-12)  # up
    assert_close(model.B[0][:, 8, 2], np.eye(9)[8], 1e-12)  # down, over the edge
    assert_close(model.C[0], 3 * np.eye(9)[8], 1e-12)
    assert_close(model.D[0], np.full(9, 1 / 9), 1e-12)


def test_grid_with_walls():
    walls = [(1, 1), (1, 2)]
    model = worlds.grid(3, 4, walls=walls, start=(0, 0), goal=(2, 0), slip=0.0, sees=1.0)
    names = model.labels.states[0]
    assert len(names) == 10
    assert "1,1" not in names
    assert names[int(np.argmax(model.C[0]))] == "2,0"

    def goes(cell, action):
        u = model.labels.actions[0].index(action)
        return names[int(np.argmax(model.B[0][:, names.index(cell), u]))]

    assert goes("0,1", "down") == "0,1"  # a wall
    assert goes("0,0", "up") == goes("0,0", "left") == "0,0"  # the edge
    assert (goes("0,0", "right"), goes("0,0", "down"), goes("0,3", "stay")) == ("0,1", "1,0", "0,3")
    assert goes("1,3", "left") == "1,3"
    assert worlds.grid(10, 10).states == (100,)


def test_graph():
    ways = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    model = worlds.graph(ways, names=["hall", "den", "attic"], hidden=[0.0, 0.5, 0.5])
    believed = vfe.filter(model, [[0, 0], [0, 0], [1, 0]], actions=[[2, 0], [1, 0]])  # no way to the attic
    assert_close(believed.factors[1][2], [0.0, 0.0, 1.0], 1e-9)
    assert worlds.graph(ways).D[1].tolist() == [0.0, 0.5, 0.5]


def test_life_with_a_predator(foraging):
    _, states, outcomes, _ = foraging
    place, predator, food = np.moveaxis(states, -1, 0)
    assert (outcomes[..., 0] == place).all()
    assert ((outcomes[..., 1] == 1) == (place == food)).all()
    assert ((outcomes[..., 3] == 1) == (place == predator)).all()
    eaten = place[:, :-1] == food[:, :-1]
    assert ((np.diff(food) != 0) == eaten).all()  # it grows elsewhere, and moves for no other reason
    assert (np.diff(predator) % 4 != 2).all()  # one patch at most
    near = (place - predator) % 4 != 2
    spotted = outcomes[..., 2] > 0
    assert not spotted[~near].any()
    assert (outcomes[..., 2] - 1 == predator)[spotted].all()
    assert abs(spotted[near].mean() - 0.5) < 5 * np.sqrt(0.25 / near.sum())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: worlds.tmaze(cue_validity=1.2), "cue_validity=1.2; wanted a probability"),
        (lambda: worlds.tmaze(reward=np.inf), "tmaze: got reward=inf"),
        (lambda: worlds.tmaze(loss="much"), "loss='much'"),
        (lambda: worlds.cue_chaining(cue_validity=-0.1), "cue_chaining: got cue_validity"),
        (lambda: worlds.grid(3, 2.5), "columns=2.5"),
        (lambda: worlds.grid(3, 3, walls=[(3, 0)]), "outside the grid of 3 rows"),
        (lambda: worlds.grid(3, 3, walls=[4]), r"cells \(row, column\)"),
        (lambda: worlds.grid(3, 3, walls=[(1, 1)], goal=(1, 1)), r"goal=\(1, 1\), which is a wall"),
        (lambda: worlds.grid(1, 2, walls=[(0, 0)]), "1 free cells"),
        (lambda: worlds.graph(np.ones((2, 3))), r"\(2, 3\); wanted \(places, places\)"),
        (lambda: worlds.graph([[0, 0.5], [1, 0]]), "0.5 in adjacency"),
        (lambda: worlds.graph(np.ones((2, 2)), start=2), "the places are 0 to 1"),
        (lambda: worlds.graph(np.ones((2, 2)), hidden=[0.5, 0.6]), "sums to 1.1"),
        (lambda: worlds.bandit([0.5]), r"shape \(1,\)"),
        (lambda: worlds.bandit((0.5, 1.5)), "probabilities=1.5"),
        (lambda: worlds.bandit(hazard=2), "hazard=2"),
        (lambda: worlds.tiger(accuracy=np.nan), "accuracy=nan"),
        (lambda: worlds.hidden_predator(2), "patches=2"),
        (lambda: worlds.POMDPWorld(worlds.tiger(), episode=0), "episode=0"),
    ],
)
def test_what_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_world_needs_a_model_and_an_action_of_its_size():
    with pytest.raises(TypeError, match="got a function"):
        worlds.POMDPWorld(worlds.tmaze)
    world = worlds.POMDPWorld(worlds.tmaze())
    state, _ = world.reset(KEY)
    with pytest.raises(ValueError, match=r"shape \(1,\); wanted \(2,\)"):
        world.step(state, [0], KEY)
