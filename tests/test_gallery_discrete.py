"""What the experiments in discrete worlds claim, in numbers, on small runs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gallery_cases import failing, page_of

from vfe.discrete import every_policy, expected_free_energy
from vfe.gallery.discrete import grid_learning, grid_learning_page, tmaze, tmaze_page
from vfe.gallery.intervals import NORMAL, mean_of, share_of
from vfe.gallery.job import Workspace
from vfe.gallery.progress import Silent

MAZE = tmaze.Settings(agents=200, steps=10)
GRID = grid_learning.Settings(agents=12, blocks=4)


@pytest.fixture(scope="module")
def lives():
    """Three ways to live in one program, three in another, and who looks two steps ahead."""
    kinds = tmaze.kinds(MAZE)
    names = (
        tmaze.POLICIES, tmaze.BLIND, tmaze.LITTLE, tmaze.TREE, tmaze.KEPT, tmaze.LITTLE_TREE, tmaze.SHORT
    )  # fmt: skip
    return {name: tmaze.live(MAZE, 0, *kinds[name]) for name in names}


@pytest.fixture(scope="module")
def maze_found(lives):
    """Kinds that were not lived here, which no claim reads, are shown as others that were."""
    names = [*tmaze.kinds(MAZE), tmaze.SHORT_DOUBLE]
    shown = {name: lives.get(name, lives[tmaze.POLICIES]) for name in names}
    return tmaze.Found(shown, tmaze.added_information(MAZE), tmaze.joint_information(MAZE), None)


def test_the_cue_comes_first_where_information_counts_and_never_where_it_does_not(lives):
    found = lives[tmaze.POLICIES]
    assert found.cue_first.all()
    assert (found.first_arm == 4).all()
    assert (found.readings == 1).all()
    share = share_of(found.rewarded)
    assert share.low < 95 < share.high
    assert (lives[tmaze.BLIND].place == 0).all()


def test_lives_are_worth_what_is_counted_by_hand(lives):
    exact = tmaze.utilities(MAZE)
    for name, course in ((tmaze.POLICIES, "cue first"), (tmaze.TREE, "straight")):
        utility = mean_of(lives[name].utility)
        assert abs(utility.value - exact[course]) < 4 * (utility.high - utility.low) / (2 * NORMAL)
    # One course after the other: right at once, or wrong first, then two steps to the other arm.
    r, loss, T = MAZE.reward, MAZE.loss, MAZE.steps
    for name, first in ((tmaze.POLICIES, 4), (tmaze.TREE, 2)):
        right = r * (T - first)
        wrong = loss + r * (T - first - 2)
        outcome = lives[name].outcome[:, first]
        np.testing.assert_allclose(lives[name].utility, np.where(outcome == 1, right, wrong), rtol=1e-6)
    assert exact["straight"] - exact["cue first"] == pytest.approx(0.85)
    assert (lives[tmaze.TREE].readings == 0).all()


def test_a_tree_turns_to_the_cue_where_its_detour_begins_to_pay():
    for settings in (MAZE, tmaze.Settings(cue_validity=0.8, reward=1.0)):
        assert tmaze.turning_point(settings) == pytest.approx(tmaze.break_even(settings), abs=2e-3)


def test_where_arms_cannot_be_left_a_tree_reads_the_cue_once(lives):
    found = lives[tmaze.KEPT]
    assert found.cue_first.all()
    assert (found.readings == 1).all()
    assert (found.place[:, 5:] == found.place[:, 4:5]).all()


def test_at_the_same_horizon_added_information_reads_on_and_updated_beliefs_do_not(lives):
    assert (lives[tmaze.LITTLE_TREE].readings == 1).all()
    # Two readings that agree are enough; of 1 − 2 · 0.05 · 0.95 of the agents the first two do.
    readings = lives[tmaze.LITTLE].readings
    assert (readings >= 2).all()
    share = share_of(readings == 2)
    assert share.low < 90.5 < share.high


def test_what_ends_re_reading_two_steps_ahead_is_rounding():
    """In exact arithmetic a reading is always worth more than the way back, which is worth nothing."""
    maze = tmaze.corridors(MAZE)
    policies = every_policy(maze, 2)
    ends: dict[bool, int | None] = {False: None, True: None}
    for precise in (False, True):
        with jax.enable_x64(precise):
            for readings in range(1, 11):
                sure = 1 / (1 + (1 / MAZE.cue_validity - 1) ** readings)
                belief = jnp.zeros((5, 2)).at[tmaze.CUE].set(jnp.array([sure, 1 - sure]))
                total = np.asarray(expected_free_energy(maze, belief, policies).total)
                # Of policies that are as probable the first is taken: back to the centre.
                if policies.sequences[np.exp(-total).argmax(), 0, 0] == 0:
                    ends[precise] = readings
                    break
    assert ends[False] is not None
    assert 5 <= ends[False] <= 8
    # In double precision ten readings do not end it: the loop ran through without a way back.
    assert ends[True] is None


def test_what_readings_are_worth():
    v = MAZE.cue_validity

    def disorder(p):
        return -(p * np.log(p) + (1 - p) * np.log(1 - p))

    # Every sequence of readings by itself, and the belief that it leads to.
    for n in (1, 2, 3):
        left = 0.0
        for told in itertools.product((v, 1 - v), repeat=n):
            one, other = np.prod(told), np.prod(1 - np.array(told))
            left += 0.5 * (one + other) * disorder(one / (one + other))
        assert tmaze.joint_information(MAZE)[n - 1] == pytest.approx(np.log(2) - left, abs=1e-12)
    np.testing.assert_allclose(
        tmaze.added_information(MAZE), np.arange(1, 6) * (np.log(2) - disorder(v)), rtol=1e-9
    )
    assert round(tmaze.added_information(MAZE)[1], 3) == 0.989
    assert round(tmaze.joint_information(MAZE)[1], 3) == 0.610


def test_agents_of_other_minds_break_the_claims_of_the_maze(maze_found):
    broken = [
        # Without information gain where the seeking ones are expected, and the other way round.
        (tmaze.POLICIES, tmaze.BLIND, ["with information", "the first arm rewards", "the first arm is"]),
        (tmaze.BLIND, tmaze.POLICIES, ["without, it is never"]),
        # Three steps ahead, from where the arms are seen; and policies that add, where a tree is expected.
        (tmaze.SHORT, tmaze.POLICIES, ["looking 2 steps ahead"]),
        (tmaze.LITTLE_TREE, tmaze.LITTLE, ["looking 3 steps ahead"]),
    ]
    for expected, put, wanted in broken:
        lives = {**maze_found.lives, expected: maze_found.lives[put]}
        failed = failing(tmaze_page.claims(MAZE, maze_found._replace(lives=lives)))
        assert len(failed) == len(wanted), (put, failed)
        assert all(map(str.startswith, failed, wanted)), (put, failed)
    # Readings that are counted together, not added.
    (failed,) = failing(tmaze_page.claims(MAZE, maze_found._replace(added=maze_found.joint)))
    assert failed.startswith("two readings, added")


def test_the_page_of_the_maze(maze_found):
    result = tmaze_page.write_up(MAZE, maze_found)
    assert failing(result.claims) == []
    page = page_of(result)
    assert "0.989 and 0.610" in page
    # F = −ln p(outcomes): −ln ½ at the cue, −ln v or −ln (1 − v) in the arm.
    data = result.dataset.sel(life=tmaze.POLICIES)
    v = MAZE.cue_validity
    wanted = np.log(2) - np.where(data.outcome[:, 4] == 1, np.log(v), np.log(1 - v))
    np.testing.assert_allclose(data.free_energy.sum("step"), wanted, rtol=1e-5)
    np.testing.assert_allclose(data.free_energy_by_level.sum("level"), data.free_energy, atol=1e-5)


@pytest.fixture(scope="module")
def learners():
    return grid_learning.live(GRID, 0)


def test_who_seeks_learns_faster_and_who_avoids_does_not_learn(learners):
    blocks = {name: mean_of(life.by_block(GRID.block)) for name, life in learners.items()}
    assert np.all(blocks["seeks"].high[1:] < blocks["wanders"].low[1:])
    # The broken variant: with the sign of the gain reversed they are slower than those who wander.
    assert np.all(blocks["avoids"].low > blocks["wanders"].high)
    assert learners["avoids"].tried[:, -1].max() < 0.5 * learners["wanders"].tried[:, -1].min()


def test_who_avoids_learning_breaks_the_claims_of_who_seeks(learners):
    seeks, wanders, avoids = (
        grid_learning_page.claims({**learners, name: learners[put]}, GRID)
        for name, put in (("seeks", "avoids"), ("seeks", "wanders"), ("avoids", "seeks"))
    )
    for broken in (seeks, wanders):
        saved, nearer, apart = failing(broken)
        assert saved.startswith("seeking saves steps")
        assert nearer.startswith("who seeks is nearer")
        assert apart.startswith("from this block on")
    (failed,) = failing(avoids)
    assert failed.startswith("who avoids learning is farther")


def test_counts_by_counting_are_those_that_agents_learned(learners):
    for life in learners.values():
        places, actions = (np.asarray(p)[..., 0] for p in (life.history.outcomes, life.history.actions))
        *_, counted = grid_learning.counts_in_time(GRID, places, actions)
        np.testing.assert_allclose(life.history.agent_state.counts.B[0], counted, rtol=1e-5)
        # One agent, step by step, in plain loops; and the surprise of each step under its counts.
        wanted, surprise = grid_learning.first_counts(GRID, grid_learning.world(GRID)), [np.log(9)]
        for before, after, u in zip(places[0, :-1], places[0, 1:], actions[0, :-1], strict=True):
            surprise.append(-np.log(wanted[after, before, u] / wanted[:, before, u].sum()))
            wanted[after, before, u] += 1
        np.testing.assert_array_equal(counted[0], wanted)
        np.testing.assert_allclose(
            life.history.percepts.free_energy.total[0], surprise, rtol=1e-4, atol=1e-5
        )
        truth, apart = np.asarray(grid_learning.world(GRID).B[0]), 0.0
        for place, u in itertools.product(range(9), range(5)):
            p, q = truth[:, place, u], wanted[:, place, u] / wanted[:, place, u].sum()
            apart += (p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum() / 45
        assert life.divergence[0, -1] == pytest.approx(apart, rel=1e-9)


def test_the_page_of_the_grid(tmp_path, learners, monkeypatch):
    monkeypatch.setattr(grid_learning, "live", lambda settings, seed: learners)
    result = grid_learning.run(
        GRID, seed=0, data=None, folder=Workspace(tmp_path), progress=Silent(), resume=False
    )
    assert failing(result.claims) == []
    assert "do not overlap from block" in page_of(result)


def test_intervals():
    rng = np.random.default_rng(0)
    values = rng.normal(2.0, 3.0, size=(400, 50))
    found = mean_of(values)
    np.testing.assert_allclose(found.high - found.value, 1.96 * values.std(0, ddof=1) / 20, rtol=1e-4)
    # Wilson's interval is where the normal test of a share does not reject it.
    share = share_of(np.arange(40) < 30)
    for edge in (share.low / 100, share.high / 100):
        assert abs(0.75 - edge) / np.sqrt(edge * (1 - edge) / 40) == pytest.approx(NORMAL)
    assert share_of(np.ones(10)).high == pytest.approx(100.0)
    assert mean_of([-2.0, -1.0, -3.0]).text(".1f") == "−2.0 (−3.1 to −0.9)"
