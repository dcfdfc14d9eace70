"""The course of learning: one epoch after the other."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from vfe.conditioning import Conditioned
from vfe.free_energy import FreeEnergy
from vfe.learning.feed import AbstractFeed, Group
from vfe.learning.history import record
from vfe.learning.plan import Plan
from vfe.learning.resume import Checkpoint, Settled
from vfe.learning.sound import check_steps
from vfe.learning.step import Report, steps, steps_on
from vfe.learning.store import count_of, gather
from vfe.learning.watch import remembered, watch_step


class Course:
    """Runs epochs. `last`: F of the last one, per observation; `failed`: its visits without an answer."""

    def __init__(
        self,
        plan: Plan,
        feed: AbstractFeed,
        fixed: Any,
        watch: Any,
        key: PRNGKeyArray,
        checkpoint: Checkpoint | None,
    ):
        self.plan, self.feed, self.fixed, self.watch = plan, feed, fixed, watch
        self.key, self.checkpoint = key, checkpoint
        self.last: FreeEnergy | None = None
        self.failed = 0

    def epoch(self, now: Settled, epochs: int) -> Settled:
        """What follows after one more epoch; `epochs`: of the whole course."""
        epoch, placement = now.done, self.plan.placement
        here = jax.random.fold_in(self.key, epoch)
        common = placement.put((here, self.plan.strengths(epoch, epochs)))
        state = {n: v for n, v in now.state.items() if n != "validation"}
        pieces, indices, failed, number = [], [], 0, 0
        groups = self.feed.groups(epoch)
        group = next(groups, None)
        while group is not None:
            state, report = self._advance(state, group, common, number)
            # Read ahead while the device works; one group only: a queue of asynchronous steps gains
            # nothing on a busy device, and an interrupt would have to wait for all of it.
            done, group = group, next(groups, None)
            found: Report = jax.device_get(report)
            check_steps(found, state["learned"], epoch, number, self._kept())
            failed += int(np.sum(~found.answered))
            pieces += [
                jax.tree.map(lambda a, i=i: a[i], found.free_energy) for i in range(len(done.indices))
            ]
            indices += list(done.indices)
            number += len(done.indices)
        self.failed = failed
        self.last = gather(pieces, np.concatenate(indices), self.feed.conditioned)
        rows = [*now.rows, record(self.last, self.feed.count or 1)]
        state, val_rows = {**now.state, **state}, now.validation_rows
        if self.watch is not None:
            seen, labels = self.watch
            held = placement.put(jax.random.fold_in(here, 2**30))
            watched, val_energy = watch_step(
                self.plan, state["learned"], self.fixed, seen, labels, state["validation"], held
            )
            state = {**state, "validation": watched}
            val_rows = [*val_rows, record(placement.plain(val_energy), count_of(seen))]
        return Settled(epoch + 1, state, rows, val_rows, placement.exchanged(self.feed.cursor()))

    def measured(self, now: Settled) -> FreeEnergy:
        """F under the model as it is, where nothing was left to learn."""
        placement = self.plan.placement
        key = placement.put(self.key)
        if self.feed.resident:
            found = remembered(
                self.plan, now.state, self.fixed, self.feed.conditioned, self.feed.labels, key
            )
            return placement.plain(found)
        pieces, indices = [], []
        for group in self.feed.groups(now.done):
            assert group.data is not None
            for i, index in enumerate(group.indices):
                arrays = (group.data.observed, group.data.masks)
                observed, masks = jax.tree.map(lambda a, i=i: a[i], arrays)
                one = dataclasses.replace(group.data, observed=observed, masks=masks)
                found = remembered(self.plan, now.state, self.fixed, one, None, key)
                pieces.append(jax.device_get(found))
                indices.append(index)
        return gather(pieces, np.concatenate(indices), self.feed.conditioned)

    def _advance(
        self, state: dict[str, Any], group: Group, common: Any, number: int
    ) -> tuple[dict[str, Any], Report]:
        here, strengths = common
        put = self.plan.placement.put
        first = put(jnp.asarray(number))
        if group.data is not None:
            return steps_on(self.plan, state, self.fixed, group.data, here, first, strengths)
        conditioned: Conditioned = self.feed.conditioned
        index = put(jnp.asarray(group.indices))
        arrays = (conditioned, self.feed.labels, index)
        return steps(self.plan, state, self.fixed, *arrays, here, first, strengths)

    def _kept(self) -> str:
        return "" if self.checkpoint is None else self.checkpoint.sentence
