"""A small job for the tests of the command line: learns a number, step by step."""

import dataclasses
import os
import time
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Settings:
    steps: int = dataclasses.field(default=5, metadata={"help": "how many steps"})
    rate: float = dataclasses.field(default=0.5, metadata={"help": "step size"})
    sizes: tuple[int, ...] = (3, 2)
    noisy: bool = False
    kind: Literal["plain", "fancy"] = "plain"
    limit: float | None = None
    pause: float = 0.0
    fail: bool = False


def run(settings, *, seed, data, folder, progress, resume):
    import matplotlib.pyplot as plt
    import xarray as xr

    from vfe.gallery.job import JobResult
    from vfe.results.report import Report, Section, Table, picture

    if settings.fail:
        raise FloatingPointError("the objective is not finite")
    target = 1.0 if data is None else float(np.mean(data["x_train"]))
    state = {"w": jnp.zeros(3), "key": jax.random.key(seed)}
    first, history = 0, []
    found = folder.load(state) if resume else None
    if found is not None:
        first, state, metadata = found
        history = metadata["history"]
    progress.start("learning", settings.steps)
    progress.step(first)
    for step in range(first, settings.steps):
        key, noise = jax.random.split(state["key"])
        w = state["w"] + settings.rate * (target - state["w"]) + 0.1 * jax.random.normal(noise, (3,))
        state = {"w": w, "key": key}
        history.append(float(jnp.sum((w - target) ** 2)))
        folder.save(step + 1, state, {"history": history})
        progress.step(1, F=history[-1])
        if os.environ.get("TOY_INTERRUPT") == str(step + 1):
            raise KeyboardInterrupt
        time.sleep(settings.pause)
    progress.done()
    figure, ax = plt.subplots()
    ax.plot(history)
    plt.close(figure)
    return JobResult(
        model={"w": state["w"]},
        dataset=xr.Dataset({"free_energy": ("step", np.asarray(history))}),
        figures={"learning": figure},
        report=Report(
            "A toy",
            "It learns a number.",
            [Section("Course", "F falls.", [picture(figure, "F.", "A line.")], Table(["a"], [["1"]]))],
        ),
        headline=[("F at the end", f"{history[-1]:.6f} nats")],
        data=data or {"x_train": np.ones(3)},
    )
