"""What came of living: sensations, beliefs, decisions and actions in time."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

if TYPE_CHECKING:
    import xarray as xr


KEPT = ("percepts", "decisions", "world_states")


def kept_of(keep: tuple[str, ...], *found: Any) -> tuple[Any, ...]:
    """Percept, decision and the world's state, None for what is not kept.

    **Example:** `kept_of(("percepts",), percept, decision, state)`.
    """
    return tuple(each if name in keep else None for name, each in zip(KEPT, found, strict=True))


class History(eqx.Module):
    """The course of an agent in its world; every array has the leading axes `axes` (agent, run, if any).

    - `outcomes` (time, modalities): what was sensed, −1 where nothing was.
    - `actions` (time, factors): the control of each factor that followed, −1 where an episode ended (and
      the world is not an endless one).
    - `percepts`, `decisions`: what the agent's `observe` and `decide` returned, with an axis time; None
      where they were not kept.
    - `agent_state`, `world_state`: after the last step.
    - `world_states`: the world's own state at every time, None of a Gymnasium environment.
    - `terminated`, `truncated` (time,): whether an episode ended with this sensation, by itself or because
      it was cut.
    - `rewards` (time,): what came with the sensation; None unless the world gives rewards.
    - `labels`: names, if the agent has a model with names; `options`: the first action of every option
      that its decisions weigh, if it says which.

    **Example:** `vfe.live(agent, world, 20, jax.random.key(0)).outcomes`.
    """

    outcomes: Int[Array, "*lead time m"]
    actions: Int[Array, "*lead time f"]
    percepts: Any
    decisions: Any
    agent_state: Any
    world_state: Any
    world_states: Any
    terminated: Bool[Array, "*lead time"]
    truncated: Bool[Array, "*lead time"]
    rewards: Float[Array, "*lead time"] | None
    labels: Any = None
    axes: tuple[str, ...] = eqx.field(static=True, default=())
    options: tuple[tuple[int, ...], ...] = eqx.field(static=True, default=())

    @property
    def ended(self) -> Bool[Array, "*lead time"]:
        """(time,): whether an episode ended with this sensation, by itself or because it was cut."""
        return jnp.logical_or(self.terminated, self.truncated)

    @property
    def episode(self) -> Int[Array, "*lead time"]:
        """(time,): the number of the episode, from 0."""
        return jnp.cumsum(self.ended, -1) - self.ended

    def __getitem__(self, index: int | tuple[int, ...]) -> "History":
        """One agent or run. **Example:** `history[0].plot()`."""
        where = index if isinstance(index, tuple) else (index,)
        lead = self.outcomes.shape[: len(self.axes)]
        fits = len(where) <= len(lead) and all(isinstance(k, int | np.integer) for k in where)
        if not fits or any(not -n <= k < n for k, n in zip(where, lead, strict=False)):
            there = dict(zip(self.axes, lead, strict=True))
            raise IndexError(f"history[{index}]: this history has the leading axes {there}.")
        parts = jax.tree.map(lambda leaf: leaf[where], self)
        return dataclasses.replace(parts, axes=self.axes[len(where) :])

    def to_xarray(self) -> "xr.Dataset":
        """A Dataset over `time` (and `agent`, `run`): outcomes by modality, actions and beliefs by factor,
        F by level, what the decisions hold.

        **Example:** `vfe.live(agent, world, 20, jax.random.key(0)).to_xarray()["free_energy"]`.
        """
        from vfe.results.history import history_to_xarray

        return history_to_xarray(self)

    def plot(self) -> Any:
        """A figure: beliefs by factor in time, outcomes, actions, F by level, what policies were worth.

        **Raises:** `ValueError` for several runs (plot one: `history[0].plot()`).

        **Example:** `vfe.live(agent, world, 20, jax.random.key(0)).plot().savefig("history.png")`.
        """
        from vfe.results.history import plot_history

        return plot_history(self)

    def animate(self, path: str | Path, *, frames_per_second: float = 2.0) -> Path:
        """A moving picture, GIF or MP4 by the name of the file, one image per step: beliefs, the state they
        are about, outcome, action, and F so far.

        **Raises:** `FileExistsError` for a file that exists; `ValueError` for several runs and other
        endings; `RuntimeError` that names what is missing to write MP4.

        **Example:** `vfe.live(agent, world, 20, jax.random.key(0)).animate("history.gif")`.
        """
        from vfe.results.animation import animate_history

        return animate_history(self, path, frames_per_second)

    def save(self, folder: str | Path, *, name: str = "live", **more: Any) -> Path:
        """A run folder: the numbers of `to_xarray`, the agent's last state, and the figure of one run.

        **Arguments:** `more`: `seed`, `settings`, `command`, … for the run's config.json.

        **Raises:** `FileExistsError` for a folder that exists.

        **Example:** `history.save("runs/first")`, then `vfe.load("runs/first")`.
        """
        from vfe.results.history import save_history

        return save_history(self, folder, name=name, **more)
