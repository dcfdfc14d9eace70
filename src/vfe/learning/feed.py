"""Where minibatches come from: arrays that the device holds, an indexable source, or an iterable."""

import abc
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from vfe.conditioning import Conditioned, examine
from vfe.learning.augmented import check_augmented
from vfe.learning.cursor import Cursor
from vfe.learning.parallel import Placement
from vfe.learning.source import Batches, Reader, is_source
from vfe.learning.store import LARGEST_GROUP, batches, count_of, in_groups
from vfe.model import Model

MOST_BYTES = 64 * 2**20  # that several minibatches brought to the device together may take


class Group(NamedTuple):
    """Some minibatches: which observations, (steps, batch), and what they are.

    `data`: their arrays (steps, batch, …), or None where the device holds the arrays of all observations.
    """

    indices: np.ndarray
    data: Conditioned | None


class AbstractFeed(abc.ABC):
    """Minibatches for every epoch; `conditioned`: what is observed and hidden in an observation."""

    conditioned: Conditioned
    labels: Array | None = None
    count: int | None = None  # observations of an epoch, where they are known beforehand
    resident: bool = False  # whether the device holds `conditioned` of all observations

    @abc.abstractmethod
    def groups(self, epoch: int) -> Iterator[Group]:
        """The minibatches of an epoch."""

    @abc.abstractmethod
    def cursor(self) -> str | None:
        """Where the data are between two epochs, for a checkpoint; None where they cannot tell."""


class Resident(AbstractFeed):
    """Arrays on the device; the order is a function of the key and the epoch."""

    resident = True

    def __init__(
        self,
        conditioned: Conditioned,
        labels: Array | None,
        size: int,
        key: PRNGKeyArray,
        placement: Placement,
    ):
        self.count = count = count_of(conditioned)
        check_size(size, count)
        placement.check_batch(size)
        self.conditioned = placement.put(conditioned)
        self.labels = placement.put(labels)
        self.size = size
        self.order = lambda epoch: order_of(key, epoch, count)

    def groups(self, epoch: int) -> Iterator[Group]:
        for index in in_groups(batches(self.order(epoch), self.size)):
            yield Group(index, None)

    def cursor(self) -> str | None:
        return None


class Indexed(AbstractFeed):
    """An indexable source: the same order as of arrays, read minibatch by minibatch."""

    def __init__(
        self,
        conditioned: Conditioned,
        reader: Reader,
        size: int,
        key: PRNGKeyArray,
        placement: Placement,
        made: tuple[str, ...],
    ):
        self.conditioned = conditioned
        self.count = reader.count
        self.reader, self.size = reader, size
        self.order = lambda epoch: order_of(key, epoch, reader.count)
        self.door = Door(conditioned, placement, made)
        leaves = jax.tree.leaves((conditioned.observed, conditioned.masks))
        bytes_of_one = sum(np.asarray(a).nbytes for a in leaves)
        self.largest = int(np.clip(MOST_BYTES // max(1, bytes_of_one * size), 1, LARGEST_GROUP))

    def groups(self, epoch: int) -> Iterator[Group]:
        share = self.door.placement.share(self.size)
        number = 0
        for index in in_groups(batches(self.order(epoch), self.size), self.largest):
            mine = index[:, share].reshape(-1)
            where = f"epoch {epoch + 1}, minibatches {number + 1} … {number + len(index)}"
            data = self.door.admit(lambda mine=mine: self.reader(mine), len(index), where)
            assert data is not None  # a source does not end
            yield Group(index, data)
            number += len(index)

    def cursor(self) -> str | None:
        return None


class Streamed(AbstractFeed):
    """Minibatches as an iterable gives them, one step at a time.

    In a run of several processes, each process's iterable gives its share of every minibatch.
    """

    def __init__(
        self, stream: Batches, model: Model, placement: Placement, start: str | None, augment: Any
    ):
        self.stream = stream
        self.state = Cursor(stream.iterable)
        # What says where it is by itself must say so before a pass begins, which may draw an order.
        self.here = self.state.tell(None) if start is None and self.state.by_iterable else start
        self.running: Any = self.state.open(start)
        self.here = self.state.tell(self.running) if self.here is None else self.here
        # The first minibatch says what is observed; it is handed out when the first epoch begins.
        self.ahead = self._take()
        if self.ahead is None:
            self.ahead = self._anew("has no minibatches: it is empty")
        sample, made = _sampled(model, self.ahead, augment)
        observed, masks = jax.tree.map(lambda a: a[:1], (sample.observed, sample.masks))
        self.conditioned = dataclasses.replace(sample, observed=observed, masks=masks)
        self.door = Door(self.conditioned, placement, made)

    def groups(self, epoch: int) -> Iterator[Group]:
        found, count = self._epoch(epoch), 0
        for number in itertools.count(1):
            where = f"epoch {epoch + 1}, minibatch {number}"
            data = self.door.admit(lambda: next(found, None), 1, where)
            if data is None:
                break
            size = next(iter(data.observed.values())).shape[1]
            yield Group(np.arange(count, count + size)[None], data)
            count += size
        self.here = self.state.tell(self.running)

    def cursor(self) -> str | None:
        return self.here

    def _epoch(self, epoch: int) -> Iterator[Mapping[str, Any]]:
        """`per_epoch` minibatches, from as many passes as that takes, or those of one pass."""
        number, limit = 0, self.stream.per_epoch
        while limit is None or number < limit:
            batch, self.ahead = (self._take() if self.ahead is None else self.ahead), None
            if batch is None:
                if number and limit is None:
                    return
                batch = self._anew(
                    f"gave nothing in epoch {epoch + 1}: it has come to its end. Give something that can "
                    "be iterated again (a loader, or vfe.Batches of a list), or ask for fewer epochs"
                )
            yield batch
            number += 1

    def _take(self) -> Any:
        """The next minibatch of the running pass, None where it ends."""
        if self.running is None:
            return None
        found = next(self.running, None)
        if found is None:
            self.running = None
        elif not isinstance(found, Mapping):
            raise TypeError(
                f"learn: the iterable gave a {type(found).__name__}; wanted minibatches as mappings from "
                'node names to arrays, such as {"x": x, "y": y}.'
            )
        return found

    def _anew(self, otherwise: str) -> Any:
        self.running = self.state.open()
        found = self._take()
        if found is None:
            raise ValueError(f"learn: the iterable {otherwise}.")
        return found


class Door:
    """Checks minibatches as they arrive and brings them to the devices.

    `made`: the nodes whose data are made afresh of what arrives.
    """

    def __init__(self, sample: Conditioned, placement: Placement, made: tuple[str, ...] = ()):
        self.placement, self.made = placement, made
        self.model = sample.model
        self.names = set(sample.observed)
        self.placed = placement.put(sample)

    def admit(self, fetch: Callable[[], Any], steps: int, where: str) -> Conditioned | None:
        """This process's share of some minibatches as arrays (steps, batch, …); None where data end.

        **Raises:** in every process, what any of them found wrong, with `where` as a note.
        """
        arrays: Any = None
        found, rows, message = None, 0, {}
        try:
            arrays = fetch()
            found, rows = (None, 0) if arrays is None else self._examined(arrays)
            if found is not None:
                self.placement.check_batch(rows // steps * self.placement.processes)
            message = {"rows": rows, "incomplete": [] if found is None else sorted(found.masks)}
        except Exception as error:
            error.add_note(f"(learn, {where})")
            if self.placement.processes == 1:
                raise
            message = {"error": f"{error} ({where})"}
        said = self.placement.agree(message)
        if any(each["rows"] != rows for each in said):
            raise ValueError(
                f"learn: in {where} the processes brought {[each['rows'] for each in said]} observations; "
                "wanted equally many of each."
            )
        if found is None:
            return None
        incomplete = {name for each in said for name in each["incomplete"]}
        if arrays is not None and incomplete != set(found.masks):
            # Where values are missing in the share of one process, all must run the same program.
            found, _ = examine(self.model, arrays, incomplete=incomplete, raw=self.made)
        size = rows // steps * self.placement.processes
        host = jax.tree.map(
            lambda a: a.reshape(steps, rows // steps, *a.shape[1:]), (found.observed, found.masks)
        )
        observed, masks = self.placement.bring(host, size)
        return dataclasses.replace(
            found, model=self.placed.model, weight=self.placed.weight, observed=observed, masks=masks
        )

    def _examined(self, arrays: Mapping[str, Any]) -> tuple[Conditioned, int]:
        found, lead = examine(self.model, arrays, raw=self.made)
        if len(lead) != 1:
            raise ValueError(
                f"learn: got arrays with the leading axes {lead}; wanted one, over the observations. The "
                "items of an indexable source are single observations; minibatches go into "
                "vfe.Batches(...)."
            )
        if set(found.observed) != self.names:
            raise ValueError(
                f"learn: got values for {sorted(found.observed)}, and {sorted(self.names)} in the "
                "beginning; wanted the same nodes in every minibatch."
            )
        return found, lead[0]


def open_feed(
    model: Model,
    observed: Any,
    size: int | None,
    key: PRNGKeyArray,
    placement: Placement,
    start: str | None,
    augment: Any = None,
) -> "Indexed | Streamed":
    """The minibatches of data that are not arrays; `start`: where an iterable had come to.

    **Raises:** `ValueError` for data of which minibatches cannot be made, and for shared latents.
    """
    if is_source(observed):
        reader = Reader(observed)
        if size is None:
            raise ValueError(
                f"learn: the data are a source of {reader.count} observations; say how many are on the "
                "device at once: batch_size=..."
            )
        check_size(size, reader.count)
        placement.check_batch(size)
        first = reader(np.asarray([0]))
        _, lead = examine(model, first, raw=tuple(first))
        if len(lead) != 1:
            raise ValueError(
                f"learn: the items of the source have leading axes, {lead[1:]}; wanted single "
                "observations. A list of minibatches goes into vfe.Batches(...)."
            )
        sample, made = _sampled(model, first, augment)
        feed: Indexed | Streamed = Indexed(sample, reader, size, key, placement, made)
    elif isinstance(observed, Iterable):
        if size is not None:
            raise ValueError(
                f"learn: batch_size={size}, and the minibatches of an iterable come as they are; leave "
                "it out."
            )
        stream = observed if isinstance(observed, Batches) else Batches(observed)
        feed = Streamed(stream, model, placement, start, augment)
    else:
        raise TypeError(
            f"learn: got a {type(observed).__name__} for the data; wanted a dictionary of arrays, an "
            "indexable source (len() and items by number), or an iterable of minibatches."
        )
    shared = [*feed.conditioned.common, *(n for n in feed.conditioned.hidden if model.describe(n).shared)]
    if shared:
        raise ValueError(
            f"learn: the nodes {shared} are shared by all observations, which are then needed as arrays; "
            "give a dictionary of arrays."
        )
    return feed


def _sampled(model: Model, arrays: Mapping[str, Any], augment: Any) -> tuple[Conditioned, tuple[str, ...]]:
    """The first observations checked, and the nodes whose data `augment` makes."""
    if augment is None:
        return examine(model, arrays)[0], ()
    sample, _ = examine(model, arrays, raw=tuple(arrays))
    made = check_augmented(sample, augment)
    return examine(model, arrays, raw=made)[0], made


def check_size(size: int, count: int) -> None:
    """**Raises:** `ValueError` for a minibatch of no observations, or of more than there are."""
    if not 1 <= size <= count:
        raise ValueError(f"learn: batch_size={size}; wanted 1 … {count} (the observations).")


def order_of(key: PRNGKeyArray, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch meets the observations: a function of the key and the epoch."""
    return np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), count))
