"""The loop of agent and world: its order, its axes, its episodes, what it keeps and what it refuses."""

import re
import runpy
from pathlib import Path

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close
from loop_cases import Coin, Corridor, Counter, Echo, Rooms, Wanderer
from PIL import Image

import vfe
from vfe.discrete.worlds import POMDPWorld, tiger, tmaze

KEY = jax.random.key(3)
MAZE = tmaze()


@pytest.fixture(scope="module")
def maze():
    """One course with episodes of four."""
    return vfe.live(Wanderer(MAZE), POMDPWorld(MAZE, episode=4), 12, KEY)


def test_an_action_is_answered_at_the_next_step():
    history = vfe.live(Counter(), Echo(), 7, KEY)
    assert history.actions[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert history.outcomes[:, 0].tolist() == [7, 0, 1, 2, 0, 1, 2]
    assert history.percepts["outcome"].tolist() == history.outcomes.tolist()
    assert history.world_states.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert (int(history.world_state), int(history.agent_state["all"])) == (7, 7)
    assert history.axes == ()
    assert not history.ended.any()


def test_a_second_call_does_not_trace_again():
    traced = set()
    agent = Counter(traced=_Unhashed(traced))
    vfe.live(agent, Echo(), 5, KEY)
    first = len(traced)
    vfe.live(agent, Echo(), 5, jax.random.key(9))
    assert first == len(traced) > 0


class _Unhashed:
    """A set that may be a static field."""

    def __init__(self, inside):
        self.inside = inside

    def add(self, item):
        self.inside.add(item)

    def __len__(self):
        return len(self.inside)


def test_free_energy_of_a_course_is_its_surprise():
    """An exact agent's F sums to −ln p(o | u), which the filter knows."""
    history = vfe.live(Wanderer(MAZE), MAZE, 12, KEY)
    known = vfe.filter(MAZE, history.outcomes, actions=history.actions[:-1])
    assert_close(history.percepts.free_energy.total, known.surprise, 1e-5)
    for got, want in zip(history.percepts.factors, known.factors, strict=True):
        assert_close(got, want, 1e-5)


def test_an_episode_ends_and_another_begins(maze):
    ends = np.flatnonzero(maze.ended)
    assert ends.tolist() == [3, 7, 11]
    assert (maze.actions[ends] == -1).all()
    assert (np.delete(np.asarray(maze.actions), ends, 0) >= 0).all()
    assert maze.episode.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    starts = np.array([0, 4, 8])
    assert (maze.outcomes[starts] == 0).all()  # centre, no reward, no cue
    assert_close(maze.percepts.factors[1][starts], np.full((3, 2), 0.5), 1e-6)
    for start in starts:  # the outcomes of an episode follow from its own actions alone
        part = slice(start, start + 4)
        known = vfe.filter(MAZE, maze.outcomes[part], actions=maze.actions[part][:-1])
        assert_close(maze.percepts.free_energy.total[part], known.surprise, 1e-5)


def test_what_was_learned_outlives_an_episode():
    model = vfe.discrete.POMDP([np.eye(3)], [np.broadcast_to(np.eye(3)[:, None], (3, 3, 3))])
    history = vfe.live(Counter(), POMDPWorld(model, episode=3), 7, KEY)
    assert history.percepts["steps"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    # The last decision of an episode is not done, and leaves nothing behind.
    assert history.percepts["all"].tolist() == [0, 1, 2, 2, 3, 4, 4]


def test_each_agent_lives_as_it_would_alone():
    tilts = jnp.array([0.0, 1.0, -1.0])
    together = vfe.live(Coin, Echo(), 20, KEY, each=tilts, repeats=2)
    assert together.axes == ("agent", "run")
    assert together.outcomes.shape == (3, 2, 20, 1)
    keys = jax.random.split(KEY, (3, 2))
    alone = vfe.live(Coin(tilts[2]), Echo(), 20, keys[2, 1])
    one = together[2, 1]
    assert one.axes == ()
    assert together[2].axes == ("run",)
    assert one.outcomes.tolist() == alone.outcomes.tolist()
    assert together.decisions.tilt[:, 0, 0].tolist() == tilts.tolist()
    with pytest.raises(IndexError, match=r"history\[3\]: .*'agent': 3"):
        together[3]


def test_runs_differ_and_repeat_themselves():
    history = vfe.live(Coin(), Echo(), 20, KEY, repeats=64)
    assert history.axes == ("run",)
    assert len({str(row) for row in history.actions.tolist()}) == 64
    assert abs(float(history.actions.mean()) - 0.5) < 5 * np.sqrt(0.25 / (64 * 20))
    again = vfe.live(Coin(), Echo(), 20, KEY, repeats=64)
    assert again.actions.tolist() == history.actions.tolist()


def test_a_history_may_be_small():
    whole = vfe.live(Coin(), Echo(), 20, KEY, repeats=64)
    small = vfe.live(Coin(), Echo(), 20, KEY, repeats=64, keep=())
    assert (small.percepts, small.decisions, small.world_states) == (None, None, None)
    assert small.actions.tolist() == whole.actions.tolist()
    assert "free_energy" not in small.to_xarray()
    assert small[0].plot() is not None


def test_outcomes_held_impossible_are_an_error():
    """An agent in the left arm, sure that this is the better one, where the right one is, for certain."""
    sure = eqx.tree_at(lambda m: m.D[0], tmaze(reward_probability=1.0), np.eye(4)[1])
    wrong, right = (eqx.tree_at(lambda m: m.D[1], sure, np.eye(2)[arm]) for arm in range(2))
    with pytest.raises(ValueError, match=r"outcomes \[1, 2, 0\] at time 0 are impossible"):
        vfe.live(Wanderer(wrong), right, 12, KEY)
    history = vfe.live(Wanderer(wrong, impossible="skip"), right, 12, KEY)
    assert np.isinf(np.asarray(history.percepts.free_energy.total)).all()


def test_dataset_has_the_names(maze):
    data = maze.to_xarray()
    assert data["modality"].values.tolist() == ["where", "reward", "cue"]
    assert_close(data["belief_place"].sel(state_place="cue"), maze.percepts.factors[0][:, 3], 0.0)
    assert_close(data["free_energy_by_level"].sum("level"), data["free_energy"], 1e-6)
    assert data["expected_free_energy"].dims == data["policy_probabilities"].dims == ("time", "policy")
    assert data["state_of_better arm"].values.tolist() == maze.world_states.states[:, 1].tolist()
    several = vfe.live(Coin(), Echo(), 20, KEY, repeats=64).to_xarray()
    assert dict(several.sizes)["run"] == 64
    assert several["outcomes"].dims == ("run", "time", "modality")


def test_a_run_folder_holds_it(maze, tmp_path):
    maze.save(tmp_path / "run", seed=3)
    data = vfe.load(tmp_path / "run")
    assert data["actions"].values.tolist() == maze.actions.tolist()
    assert_close(vfe.load(tmp_path / "run", like=maze.agent_state), maze.agent_state, 0.0)
    assert (tmp_path / "run" / "figures" / "history.png").stat().st_size > 10_000
    with pytest.raises(FileExistsError):
        maze.save(tmp_path / "run")


def test_figure_shows_every_part(maze):
    import matplotlib.pyplot as plt

    figure = maze.plot()
    titles = [axis.get_title("left") for axis in figure.axes]
    for part in (
        "belief: place",
        "belief: better arm",
        "outcome: cue",
        "action: place",
        "F by level",
        "policies",
    ):
        assert any(part in title for title in titles), part
    assert not any("action: better arm" in title for title in titles)  # it cannot be moved
    plt.close(figure)
    several = vfe.live(Coin(), Echo(), 20, KEY, repeats=64)
    with pytest.raises(ValueError, match=r"history\[0\]\.plot"):
        several.plot()


def test_moving_picture(maze, tmp_path):
    path = maze.animate(tmp_path / "maze.gif", frames_per_second=4)
    with Image.open(path) as film:
        assert (film.n_frames, film.info["duration"]) == (12, 250)
    assert [file.name for file in tmp_path.iterdir()] == ["maze.gif"]
    with pytest.raises(FileExistsError, match="not overwritten"):
        maze.animate(path)
    with pytest.raises(ValueError, match=r"\.gif or \.mp4"):
        maze.animate(tmp_path / "maze.png")
    with pytest.raises(FileNotFoundError, match="make it first"):
        maze.animate(tmp_path / "nowhere" / "maze.gif")


def test_a_missing_encoder_is_named(maze, tmp_path, monkeypatch):
    from matplotlib import animation

    monkeypatch.setattr(animation.writers, "is_available", lambda name: name != "ffmpeg")
    with pytest.raises(RuntimeError, match="ffmpeg"):
        maze.animate(tmp_path / "maze.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"steps": 0}, ValueError, "steps=0"),
        ({"steps": 2.5}, ValueError, "steps=2.5"),
        ({"keep": "beliefs"}, ValueError, "keep='beliefs'"),
        ({"repeats": 0}, ValueError, "repeats=0"),
        ({"key": 3.5}, ValueError, "jax.random.key"),
        ({"key": jax.random.split(KEY, 3)}, ValueError, "repeats="),
        ({"world": tiger()}, ValueError, r"outcomes .*\(3, 3\).* by modality"),
        ({"world": tmaze}, TypeError, "function for a world"),
        ({"agent": MAZE}, TypeError, "got a POMDP; wanted a vfe.action.AbstractAgent"),
        ({"each": np.zeros(3)}, TypeError, "wanted a function"),
        ({"each": np.zeros(3), "agent": lambda e: e}, TypeError, "from the function given"),
        ({"each": np.zeros(3), "agent": lambda e: Wanderer(MAZE)}, ValueError, "does not use"),
        ({"each": (np.zeros(3), np.zeros(2)), "agent": lambda e: Wanderer(MAZE)}, ValueError, "common"),
    ],
)
def test_what_is_refused(settings, error, words):
    given = {"agent": Wanderer(MAZE), "world": MAZE, "steps": 3, "key": KEY} | settings
    with pytest.raises(error, match=words):
        vfe.live(**given)


def test_an_action_that_the_world_lacks_is_refused():
    model = vfe.discrete.POMDP([np.eye(3)], [np.broadcast_to(np.eye(3)[:, None], (3, 3, 3))])
    with pytest.raises(ValueError, match="action 3 at time 3, factor 0, whose controls are 0 to 2"):
        vfe.live(Counter(controls=4), model, 5, KEY)


# --- Gymnasium ---


def corridor_model():
    """Places 0 to 3 and the reward at the last; right or left."""
    right, left = np.eye(4)[:, [1, 2, 3, 3]], np.eye(4)[:, [0, 0, 1, 2]]
    pays = np.array([[1, 1, 1, 0], [0, 0, 0, 1.0]])
    return vfe.discrete.POMDP([np.eye(4), pays], [np.stack([right, left], -1)], D=[[1.0, 0, 0, 0]])


def test_an_environment_is_lived_in():
    """Every number against the corridor walked by hand."""
    world = vfe.action.GymnasiumWorld(Corridor(), rewards=(0.0, 1.0))
    assert (world.outcomes, world.controls) == ((4, 2), (2,))
    history = vfe.live(Wanderer(corridor_model(), 0.5), world, 40, KEY)
    place, action, ended = 0, -1, False
    for t in range(40):
        begins = t == 0 or ended
        place = 0 if begins else place + (1 if action == 0 else -1)
        place = min(max(place, 0), 3)
        ended = place == 3
        assert int(history.outcomes[t, 0]) == place
        assert int(history.outcomes[t, 1]) == (-1 if begins else int(ended))
        assert float(history.rewards[t]) == float(ended)
        assert (bool(history.terminated[t]), bool(history.truncated[t])) == (ended, False)
        action = int(history.actions[t, 0])
        assert (action == -1) == ended
    assert history.ended.sum() > 2
    assert_close(history.percepts.factors[0], np.eye(4)[history.outcomes[:, 0]], 1e-6)


def test_an_endless_environment_goes_on_at_the_start():
    """The agent is not restarted: that 3 is followed by 0 is a move like any other, and actions go on."""
    right, left = np.eye(4)[:, [1, 2, 3, 0]], np.eye(4)[:, [0, 0, 1, 0]]
    moves = np.stack([right, left], -1)
    model = vfe.discrete.POMDP([np.eye(4), corridor_model().A[1]], [moves], D=[[1.0, 0, 0, 0]])
    world = vfe.action.GymnasiumWorld(Corridor(), rewards=(0.0, 1.0), endless=True)
    history = vfe.live(Wanderer(model, 0.5), world, 40, KEY)
    assert history.terminated.sum() > 2
    assert (np.asarray(history.actions) >= 0).all()
    known = vfe.filter(
        model, np.where(history.outcomes < 0, np.nan, history.outcomes), actions=history.actions[:-1]
    )
    assert_close(known.surprise, np.zeros(40), 1e-9)


def test_episodes_cut_short_are_told_apart():
    env = gymnasium.wrappers.TimeLimit(Corridor(), max_episode_steps=2)
    model = vfe.discrete.POMDP([np.eye(4)], corridor_model().B, D=[[1.0, 0, 0, 0]])
    history = vfe.live(Wanderer(model), env, 7, KEY, repeats=2)
    assert history.axes == ("run",)
    assert np.flatnonzero(history.truncated[0]).tolist() == [2, 5]
    assert not history.terminated.any()
    assert history[1].to_xarray()["episode"].values.tolist() == [0, 0, 0, 1, 1, 1, 2]


def test_spaces_of_several_parts():
    free = np.broadcast_to(np.eye(3)[:, None], (3, 3, 3))
    model = vfe.discrete.POMDP(
        [np.eye(3), np.eye(3)],
        [free[..., :2], np.eye(3)[..., None], free],
        A_dependencies=[[0], [2]],
        D=[np.eye(3)[0], np.eye(3)[0], np.eye(3)[2]],
    )
    history = vfe.live(Wanderer(model), Rooms(), 6, KEY)
    assert history.outcomes[0].tolist() == [0, 2]
    assert history.outcomes[1:].tolist() == history.actions[:-1, [0, 2]].tolist()
    chosen = vfe.action.GymnasiumWorld(Rooms(), factors=(0, 2))
    assert vfe.live(Wanderer(model), chosen, 6, KEY).outcomes.tolist() == history.outcomes.tolist()


def test_an_agent_is_a_policy():
    """In a loop of the user's own it does what it does in `vfe.live` with the same key."""
    world = vfe.action.GymnasiumWorld(Corridor(), rewards=(0.0, 1.0))
    agent = Wanderer(corridor_model(), 0.5)
    history = vfe.live(agent, world, 12, KEY)
    env, policy = Corridor(), vfe.action.policy(agent, world, jax.random.split(KEY)[1])
    policy.reset()
    observation, _ = env.reset(seed=0)
    reward, ended, actions = None, False, []
    for _ in range(12):
        action = policy(observation, reward)
        assert env.action_space.contains(action)
        actions.append(-1 if ended else action + 1)
        if ended:
            policy.reset()
            observation, _ = env.reset()
            reward, ended = None, False
        else:
            observation, reward, ended, _, _ = env.step(action)
    assert actions == history.actions[:, 0].tolist()
    assert_close(policy.percept.factors[0], history.percepts.factors[0][-1], 1e-6)


def test_the_example_runs(capsys):
    path = Path(__file__).parent.parent / "examples" / "frozen_lake.py"
    runpy.run_path(str(path))["main"](steps=310, seeds=1, horizon=1)
    assert re.search(r"steps +300 to +600: goal in 0 of \d+ episodes .*at random", capsys.readouterr().out)


class Continuous(Corridor):
    def __init__(self, name):
        super().__init__()
        setattr(self, name, gymnasium.spaces.Box(0.0, 1.0, (2,)))


@pytest.mark.parametrize(
    ("name", "wrapper"),
    [("observation_space", "TransformObservation"), ("action_space", "TransformAction")],
)
def test_a_space_that_is_not_discrete_is_refused(name, wrapper):
    assert hasattr(gymnasium.wrappers, wrapper)
    with pytest.raises(ValueError, match=rf"{name.split('_')[0]} space Box.* not discrete.*{wrapper}"):
        vfe.live(Wanderer(corridor_model()), Continuous(name), 3, KEY)


def test_what_gymnasium_worlds_refuse():
    world = vfe.action.GymnasiumWorld
    with pytest.raises(TypeError, match="got a str"):
        world("FrozenLake-v1")
    with pytest.raises(ValueError, match="rising"):
        world(Corridor(), rewards=(1.0, 0.0))
    with pytest.raises(ValueError, match="wanted 1, one for each"):
        world(Corridor(), factors=(0, 1))
    with pytest.raises(ValueError, match=r"reward 1\.0; .*rewards="):
        vfe.live(Wanderer(corridor_model(), 3.0), world(Corridor(), rewards=(0.0, 0.5)), 9, KEY)
    with pytest.raises(ValueError, match="9, which is not in Discrete"):
        world(Corridor()).outcome(9)
    with pytest.raises(ValueError, match=r"controls \[2\]"):
        vfe.live(Counter(), Corridor(), 9, KEY)
    with pytest.raises(ValueError, match=r"outcomes .*\(4,\)"):
        vfe.live(Wanderer(corridor_model()), Corridor(), 3, KEY)
    with pytest.raises(TypeError, match="AbstractAgent"):
        vfe.action.policy("agent", Corridor(), KEY)
