"""`vfe.live`: the loop of an agent and its world."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vfe.action.gymnasium_worlds import GymnasiumWorld, is_environment, live_in_gymnasium
from vfe.action.history import KEPT, History, kept_of
from vfe.action.loop_parts import AbstractAgent, AbstractWorld


@functools.singledispatch
def as_world(world: Any) -> Any:
    """What `vfe.live` runs for a world as it was given; register further kinds with `as_world.register`.

    **Raises:** `TypeError` for what is no world.
    """
    if is_environment(world):
        return GymnasiumWorld(world)
    raise TypeError(
        f"live: got a {type(world).__name__} for a world; wanted a vfe.discrete.POMDP, a "
        "vfe.action.AbstractWorld, or a Gymnasium environment (or vfe.action.GymnasiumWorld)."
    )


as_world.register(AbstractWorld, lambda world: world)
as_world.register(GymnasiumWorld, lambda world: world)


def live(
    agent: AbstractAgent | Callable[[Any], AbstractAgent],
    world: Any,
    steps: int,
    key: Any,
    *,
    repeats: int | None = None,
    each: Any = None,
    keep: str | Sequence[str] = KEPT,
) -> History:
    """An agent in its world: sense, perceive, decide, act, `steps` times over.

    One program, compiled at the first call; a second call with an agent, a world and numbers of the same
    shapes uses it again. Where a world ends, its last sensation is still perceived, the action there is not
    done (−1 in the history), and at the next step a new episode begins, `agent.restart` telling the agent.

    **Arguments:**

    - `agent`: a `vfe.discrete.Agent`, or any `vfe.action.AbstractAgent`; with `each`, a function from one
      element of it to an agent.
    - `world`: a `vfe.discrete.POMDP` (`vfe.discrete.worlds` makes some; with episodes:
      `vfe.discrete.worlds.POMDPWorld`), any `vfe.action.AbstractWorld`, or a Gymnasium environment with
      discrete spaces (see `vfe.action.GymnasiumWorld`), which runs in a Python loop.
    - `steps`: sensations in all.
    - `key`: of everything that is drawn.
    - `repeats`: how many agents of the same kind live, each alone in a world like this: a leading axis.
    - `each`: a pytree of arrays with a common leading axis, one agent for every element of it.
    - `keep`: which of "percepts", "decisions" and "world_states" the history keeps, all by default: what
      plans were made from is large where many agents with many policies live long.

    **Returns:** `vfe.action.History`: outcomes, actions, percepts, decisions and states in time, with the
    leading axes (agent, run) where there are several.

    **Raises:** `TypeError` for what is no agent or no world; `ValueError` for numbers below one, a world
    with other outcomes or controls than the agent's model, actions that the world does not have, and
    outcomes that are impossible under the agent's model (unless the agent skips them), with the time.

    **Example:**
    ```python
    maze = vfe.discrete.worlds.tmaze()
    history = vfe.live(vfe.discrete.Agent(maze, horizon=3), maze, 5, jax.random.key(0), repeats=100)
    ```
    """
    world = as_world(world)
    for name, value in (("steps", steps), ("repeats", repeats)):
        if value is not None and (isinstance(value, bool) or not _is_whole(value) or value < 1):
            raise ValueError(f"live: got {name}={value!r}; wanted a whole number, 1 or more.")
    unknown = [name for name in (keep if isinstance(keep, tuple | list) else [keep]) if name not in KEPT]
    if unknown:
        raise ValueError(f"live: got keep={keep!r}; wanted some of {KEPT}.")
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    _check_key(key)
    batched, rest, count = _agents(agent, each)
    example = rest if count is None else eqx.combine(_first(batched), rest)
    if not isinstance(example, AbstractAgent):
        more = "; with each=, a function that returns one" if count is None else ", from the function given"
        raise TypeError(f"live: got a {type(example).__name__}; wanted a vfe.action.AbstractAgent{more}.")
    _check_fit(example, world)
    lead = tuple(n for n in (count, repeats) if n is not None)
    axes = (("agent",) if count is not None else ()) + (("run",) if repeats is not None else ())
    keys = jax.random.split(key, lead) if lead else key
    if isinstance(world, GymnasiumWorld):
        agents = [rest] if count is None else [eqx.combine(_at(batched, k), rest) for k in range(count)]
        record = live_in_gymnasium(agents, world, int(steps), keys, lead, tuple(keep))
    else:
        record = _lives(batched, rest, world, int(steps), keys, repeats, tuple(keep))
    labels = getattr(getattr(example, "model", None), "labels", None)
    *record, possible = record
    history = History(*record, labels=labels, axes=axes, options=_options(example))
    if not isinstance(history.actions, Tracer):
        _check_possible(history, possible, example)
        _check_actions(history, world)
        _check_outcomes(history, example)
    return history


@eqx.filter_jit
def _lives(
    batched: Any,
    rest: Any,
    world: AbstractWorld,
    steps: int,
    keys: Any,
    repeats: int | None,
    keep: tuple[str, ...],
) -> Any:
    def one(batched: Any, keys: Any) -> Any:
        agent = eqx.combine(batched, rest)
        course = functools.partial(_course, agent, world, steps, keep)
        return course(keys) if repeats is None else jax.vmap(course)(keys)

    return one(batched, keys) if not jax.tree.leaves(batched) else jax.vmap(one)(batched, keys)


def _course(agent: AbstractAgent, world: AbstractWorld, steps: int, keep: tuple[str, ...], key: Any) -> Any:
    def step(carry: Any, key: Any) -> tuple[Any, Any]:
        mind, place, outcome = carry
        to_decide, to_move, to_reset = jax.random.split(key, 3)
        mind, percept = agent.observe(mind, outcome)
        acting, decision = agent.decide(mind, to_decide)
        ended = world.ended(place)
        action = jnp.asarray(decision.action)
        after = (acting, *world.step(place, action, to_move))
        if ended is not False:  # a world that never ends needs nothing of this
            ended = jnp.asarray(ended)
            # The last decision of an episode is not done, so nothing is learned from it.
            anew = (agent.restart(mind), *world.reset(to_reset))
            after = jax.tree.map(functools.partial(jnp.where, ended), anew, after)
            action = jnp.where(ended, -1, action)
        possible = jnp.asarray(getattr(percept, "possible", True))
        kept = kept_of(keep, percept, decision, place)
        return after, (outcome, action, kept, jnp.asarray(ended), possible)

    first, later = jax.random.split(key)
    start = jax.tree.map(jnp.asarray, (agent.init(), *world.reset(first)))
    keys = jax.random.split(later, steps)
    (mind, place, _), found = jax.lax.scan(step, start, keys)
    outcomes, actions, (percepts, decisions, places), ended, possible = found
    course = (outcomes, actions, percepts, decisions, mind, place, places)
    return *course, ended, jnp.zeros_like(ended), None, possible


def _agents(agent: Any, each: Any) -> tuple[Any, Any, int | None]:
    """The arrays that differ between agents (None elsewhere), what all share, and how many agents."""
    if each is None:
        return None, agent, None
    if isinstance(agent, AbstractAgent) or not callable(agent):
        raise TypeError(
            f"live: got each= and a {type(agent).__name__}; wanted a function from one element to an agent."
        )
    counts = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(each)}
    if len(counts) != 1 or counts == {()} or counts == {(0,)}:
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(each)]
        raise ValueError(f"live: got each of shapes {shapes}; wanted arrays with a common leading axis.")
    kept = []

    def arrays(element: Any) -> Any:
        traced, rest = eqx.partition(agent(element), lambda leaf: isinstance(leaf, Tracer))
        kept.append(rest)
        return traced

    batched = jax.vmap(arrays)(jax.tree.map(jnp.asarray, each))
    if not jax.tree.leaves(batched):
        raise ValueError(
            "live: got a function for each= that does not use its element: all agents are one."
        )
    return batched, kept[0], int(counts.pop()[0])


def _first(batched: Any) -> Any:
    return _at(batched, 0)


def _at(batched: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], batched)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer)


def _check_key(key: Any) -> None:
    try:
        data = jax.random.key_data(key)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"live: got key={key!r}; write key=jax.random.key(0).") from error
    if data.ndim != 1:
        raise ValueError(
            f"live: got keys of shape {jnp.shape(key)}; wanted one (repeats= splits it among the runs)."
        )


def _check_fit(agent: AbstractAgent, world: Any) -> None:
    """The agent's model and the world have the same outcomes and controls, where both say which."""
    model = getattr(agent, "model", None)
    for word, kind in (("outcomes", "modality"), ("controls", "factor")):
        here, there = getattr(model, word, None), getattr(world, word, None)
        if here is None or there is None:
            continue
        here, there = tuple(here), tuple(there)
        if word == "controls" and len(here) != len(there):  # what cannot be moved does not matter
            here, there = _movable(here), _movable(there)
        if here != there:
            raise ValueError(
                f"live: got an agent whose model has {here} {word} and a world that has {there}, by {kind}"
                f"{' that can be moved' if word == 'controls' else ''}; they must agree."
            )


def _movable(controls: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in controls if n > 1)


def _options(agent: AbstractAgent) -> tuple[tuple[int, ...], ...]:
    """The first action of every option that the agent weighs, if it says which."""
    found = getattr(agent, "options", None)
    if found is None or isinstance(found, Tracer):
        return ()
    return tuple(tuple(row) for row in np.asarray(found).tolist())


def _check_possible(history: History, possible: Any, agent: AbstractAgent) -> None:
    """Outcomes that the agent held impossible are an error, unless it says that it skips them."""
    if getattr(agent, "impossible", "error") == "skip":
        return
    bad = np.argwhere(~np.asarray(possible))
    if len(bad):
        *lead, time = (int(k) for k in bad[0])
        where = "".join(f", {axis} {k}" for axis, k in zip(history.axes, lead, strict=True))
        seen = np.asarray(history.outcomes)[(*lead, time)].tolist()
        raise ValueError(
            f"live: the outcomes {seen} at time {time}{where} are impossible under the agent's model and "
            "what it believed (their surprise is infinite); give every outcome some probability in A, or "
            'write Agent(..., impossible="skip") to take them as missing.'
        )


def _check_outcomes(history: History, agent: AbstractAgent) -> None:
    """What the world gave is something the agent's model has (where both are plain numbers)."""
    sizes = getattr(getattr(agent, "model", None), "outcomes", None)
    outcomes = history.outcomes
    if sizes is None or not hasattr(outcomes, "ndim") or outcomes.shape[-1:] != (len(sizes),):
        return
    bad = np.argwhere(np.asarray(outcomes) >= np.asarray(sizes))
    if len(bad):
        where = tuple(int(k) for k in bad[0])
        raise ValueError(
            f"live: got outcome {np.asarray(outcomes)[where]} at time {where[-2]}, modality {where[-1]}; "
            f"the agent's model has 0 to {sizes[where[-1]] - 1} there."
        )


def _check_actions(history: History, world: Any) -> None:
    controls = getattr(world, "controls", None)
    if controls is None or isinstance(world, GymnasiumWorld):
        return
    actions = np.asarray(history.actions)
    bad = (actions >= np.asarray(controls)) | (actions < 0) & ~np.asarray(history.ended)[..., None]
    if bad.any():
        where = tuple(int(k) for k in np.argwhere(bad)[0])
        raise ValueError(
            f"live: got action {actions[where]} at time {where[-2]}, factor {where[-1]}, whose controls "
            f"are 0 to {controls[where[-1]] - 1}."
        )
