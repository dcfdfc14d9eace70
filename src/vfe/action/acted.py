"""What came of acting: the world as it went, what was done, what was believed."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from vfe.dynamics.levels.trajectory import Trajectory


class World(eqx.Module):
    """The world as it went: `states` (time, x), `causes` (time, v), `sensations` (time, y).

    **Example:** `vfe.act(vfe.action.limb(), length=60).world.states`.
    """

    states: Float[Array | np.ndarray, "time x"]
    causes: Float[Array | np.ndarray, "time v"]
    sensations: Float[Array | np.ndarray, "time y"]


class Acted(eqx.Module):
    """A course of action: `action` (time, a), the `world`, and the agent's `percept` with its F by time.

    `sensed`: the sensations as they reached the agent, late if there are delays.

    **Example:** `vfe.act(vfe.action.limb(), length=60).percept.free_energy.by_time`.
    """

    time: Float[Array | np.ndarray, " time"]
    action: Float[Array | np.ndarray, "time a"]
    world: World
    sensed: Float[Array | np.ndarray, "time y"]
    percept: Trajectory

    def to_xarray(self) -> Any:
        """The percept as `Trajectory.to_xarray`, with action and the world beside it."""
        data = self.percept.to_xarray()
        return data.assign(
            action=(("time", "action_channel"), self.action),
            sensed=(("time", "channel"), self.sensed),
            world_states=(("time", "world_state"), self.world.states),
            world_causes=(("time", "world_cause"), self.world.causes),
            sensations=(("time", "channel"), self.world.sensations),
        )

    def plot(self) -> Any:
        """A figure: sensations and their prediction, states of the world, what the agent believes of its
        own states, action, and F in time."""
        import matplotlib.pyplot as plt

        believed = self.percept
        if self.action.ndim != 2:
            raise ValueError(
                f"Acted.plot: got {self.action.shape[0]} courses; take one first, "
                "jax.tree.map(lambda a: a[0], acted)."
            )
        figure, axes = plt.subplots(5, sharex=True, figsize=(7, 10), layout="constrained")
        for k in range(self.sensed.shape[1]):
            (line,) = axes[0].plot(self.time, believed.prediction.mean[:, k])
            axes[0].plot(self.time, self.sensed[:, k], ".", color=line.get_color(), markersize=3)
        axes[0].set(ylabel="sensations", title="sensations (points) and their predictions (lines)")
        axes[1].plot(self.time, self.world.states)
        axes[1].set(ylabel="states of the world")
        for k in range(believed.states.mean.shape[-1]):
            mean, sd = believed.states.mean[:, k], believed.states.sd[:, k]
            (line,) = axes[2].plot(self.time, mean)
            axes[2].fill_between(
                self.time,
                mean - 1.645 * sd,
                mean + 1.645 * sd,
                color=line.get_color(),
                alpha=0.2,
                linewidth=0,
            )
        axes[2].set(ylabel="states believed (90 %)")
        axes[3].plot(self.time, self.action)
        if self.world.causes.shape[1]:
            axes[3].plot(self.time, self.world.causes, "k--", linewidth=1, label="causes in the world")
            axes[3].legend(loc="upper right")
        axes[3].set(ylabel="action")
        axes[4].plot(self.time, believed.free_energy.by_time)
        axes[4].set(ylabel="F (nats)", xlabel="time")
        return figure
