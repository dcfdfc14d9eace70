"""Checkpoints of learning: the state between two epochs, and what a run must share to go on from it."""

import dataclasses
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from vfe.learning.cursor import UNKNOWN
from vfe.learning.described import described, described_state
from vfe.learning.parallel import Placement
from vfe.learning.plan import Plan


@dataclasses.dataclass(frozen=True)
class Settled:
    """Learning between two epochs: what a checkpoint holds.

    `cursors`: where each process's iterable is, in order of the processes.
    """

    done: int
    state: dict[str, Any]
    rows: list[dict[str, Any]]
    validation_rows: list[dict[str, Any]]
    cursors: list[str | None]


class Checkpoint:
    """The folder of a run's checkpoints."""

    def __init__(self, folder: Path, placement: Placement):
        self.folder, self.placement = folder, placement
        self.settings: dict[str, Any] = {}
        self.saved: int | None = None

    def settle(
        self, key: PRNGKeyArray, size: int | None, plan: Plan, memory: Any, found: dict[str, Any] | None
    ) -> None:
        """Say what tells this run from others; `found`: what the checkpoint to go on from says.

        `memory`: the optimiser's state.

        **Raises:** `ValueError` where that run had another key, other minibatches, or learned otherwise.
        """
        numbers = [int(n) for n in np.asarray(jax.random.key_data(key)).ravel()]
        self.settings = {
            "key": numbers,
            "batch_size": size,
            "belief": described(plan.family),
            "solver": described(plan.solver),
            "expectation": described(plan.settings.expectation),
            "gradient": described(plan.gradient),
            "objective": described(plan.objective),
            "perception_steps": plan.settings.max_steps,
            "parameter_steps": plan.parameter_steps,
            "optimiser": described_state(memory),
        }
        before = {**self.settings, **(found or {}).get("settings", {})}
        other = [name for name, now in self.settings.items() if before[name] != now]
        if other:
            differences = "; ".join(
                f"got {name}={self.settings[name]}, wanted {name}={before[name]}" for name in other
            )
            raise ValueError(
                f"learn: the checkpoint in {self.folder} is of a run with other settings: {differences}. "
                "Give what it had, or leave resume=True out and start from its model."
            )

    def save(self, now: Settled) -> None:
        """Write a checkpoint, whole or not at all; of several processes, the first one does."""
        self.saved = now.done
        if not self.placement.writes:
            return
        from vfe.results.checkpoint import save_checkpoint

        arrays = eqx.filter(now.state, eqx.is_array)
        metadata = {
            "rows": now.rows,
            "validation_rows": now.validation_rows,
            "cursors": now.cursors,
            "settings": self.settings,
        }
        save_checkpoint(self.folder, now.done, arrays, metadata)

    def metadata(self) -> dict[str, Any] | None:
        """What the newest checkpoint says beside its arrays, None where there is none."""

        def read() -> dict[str, Any] | None:
            from vfe.results.checkpoint import peek_checkpoint

            found = peek_checkpoint(self.folder)
            return None if found is None else {**found[1], "done": found[0]}

        return self.placement.from_first(read)

    def load(self, state: dict[str, Any], found: dict[str, Any]) -> Settled:
        """The state of the newest checkpoint; `found`: its metadata.

        **Raises:** `ValueError` that names the leaves where it is of another model.
        """
        arrays, rest = eqx.partition(state, eqx.is_array)

        def read() -> None:
            nonlocal arrays
            from vfe.results.arrays import OtherStructureError
            from vfe.results.checkpoint import load_checkpoint

            try:
                loaded = load_checkpoint(self.folder, arrays)
            except OtherStructureError as error:
                differences = "; ".join(error.differences)
                raise ValueError(
                    f"learn: the checkpoint in {self.folder} is of another model, or of other settings: "
                    f"{differences}. Give the model, belief and optimiser it was made with, or another "
                    "folder."
                ) from error
            assert loaded is not None  # its metadata were read
            arrays = loaded[1]

        self.placement.from_first(read)
        arrays = self.placement.copy_of_first(arrays)
        self.saved = found["done"]
        return Settled(
            found["done"],
            eqx.combine(arrays, rest),
            found["rows"],
            found["validation_rows"],
            found.get("cursors", [None]),
        )

    @property
    def sentence(self) -> str:
        """What is left, for an error."""
        if self.saved is None:
            return f"No epoch was whole yet, so there is no checkpoint in {self.folder}."
        return (
            f"The checkpoint in {self.folder} is that of epoch {self.saved}; resume=True goes on from it."
        )


def cursor_for(found: dict[str, Any] | None, placement: Placement) -> str | None:
    """Where this process's iterable had come to; None at the start of a run.

    **Raises:** `ValueError` where the checkpoint does not say.
    """
    if found is None:
        return None
    cursors = found.get("cursors", [None])
    if len(cursors) != placement.processes:
        raise ValueError(
            f"learn: the checkpoint is of a run of {len(cursors)} processes, this one has "
            f"{placement.processes}; an iterable goes on only where it was."
        )
    mine = cursors[jax.process_index() if placement.processes > 1 else 0]
    if mine is None:
        raise ValueError(UNKNOWN)
    return mine
