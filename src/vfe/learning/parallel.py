"""Which devices share a minibatch: its observations are split among them, everything else is on all.

Data-parallel learning is the same program on one device or on many: arrays are placed, and XLA's
partitioner adds what must be summed over devices. Several processes (`jax.distributed`) run it in step.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "batch"
LINE = 1024  # bytes that two processes exchange at once; longer messages take a second round


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the arrays of learning lie: `mesh` is one axis of devices; None is JAX's default device."""

    mesh: Mesh | None = None

    @staticmethod
    def of(devices: Sequence[Any] | None) -> "Placement":
        """The placement on these devices.

        **Raises:** `ValueError` for no devices, a device twice, or processes that hold unequal numbers.
        """
        if devices is None:
            if jax.process_count() > 1:
                raise ValueError(
                    f"learn: this is one of {jax.process_count()} processes; write devices=jax.devices() "
                    "to learn one model together, or devices=jax.local_devices() to learn in this one "
                    "alone."
                )
            return ALONE
        found = list(devices)
        if not found or not all(isinstance(d, jax.Device) for d in found) or len(set(found)) < len(found):
            raise ValueError(
                f"learn: devices={devices!r}; wanted different JAX devices, such as devices=jax.devices()."
            )
        here = [d.process_index for d in found]
        taking_part = set(here)
        if taking_part != {jax.process_index()} and (
            taking_part != set(range(jax.process_count())) or len({here.count(p) for p in taking_part}) > 1
        ):
            raise ValueError(
                "learn: devices= wants those of this process (jax.local_devices()), or equally many of "
                "every process (jax.devices()); got "
                f"{[here.count(p) for p in range(jax.process_count())]} by process."
            )
        return Placement(Mesh(np.asarray(found), (AXIS,), axis_types=(AxisType.Auto,)))

    @property
    def count(self) -> int:
        """The number of devices."""
        return 1 if self.mesh is None else self.mesh.devices.size

    @property
    def processes(self) -> int:
        """The number of processes that learn together."""
        return 1 if self.mesh is None else len({d.process_index for d in self.mesh.devices.flat})

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes checkpoints."""
        return self.processes == 1 or jax.process_index() == 0

    def check_batch(self, size: int) -> None:
        """**Raises:** `ValueError` where a minibatch cannot be split evenly."""
        if size % self.count:
            raise ValueError(
                f"learn: {size} observations per minibatch cannot be split evenly among {self.count} "
                f"devices; wanted a batch_size that is a multiple of {self.count}."
            )

    def share(self, size: int) -> np.ndarray:
        """The places in a minibatch of this size whose observations this process brings."""
        if self.mesh is None or self.processes == 1:
            return np.arange(size)
        pieces = self._sharding(0).addressable_devices_indices_map((size,)).values()
        return np.unique(np.concatenate([np.arange(size)[p] for p in pieces if p is not None]))

    # Inside a compiled function: what XLA must know.

    def spread(self, tree: Any) -> Any:
        """Arrays whose leading axis is split among the devices."""
        return self._constrained(tree, PartitionSpec(AXIS))

    def everywhere(self, tree: Any) -> Any:
        """Arrays that every device holds whole."""
        return self._constrained(tree, PartitionSpec())

    def _constrained(self, tree: Any, spec: PartitionSpec) -> Any:
        if self.mesh is None:
            return tree
        sharding = NamedSharding(self.mesh, spec)
        return jax.tree.map(
            lambda a: jax.lax.with_sharding_constraint(a, sharding) if eqx.is_array(a) else a, tree
        )

    # Outside: from the host to the devices and back.

    def put(self, tree: Any) -> Any:
        """The arrays of a pytree, the same in every process, on every device."""
        if self.mesh is None:
            return tree
        sharding = NamedSharding(self.mesh, PartitionSpec())

        def one(a: Any) -> Any:
            if not eqx.is_array(a) or getattr(a, "sharding", None) == sharding:
                return a
            if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
                return jax.random.wrap_key_data(one(jax.random.key_data(a)), impl=jax.random.key_impl(a))
            host = _held(a)
            return jax.make_array_from_callback(host.shape, sharding, lambda i: host[i])

        return jax.tree.map(one, tree)

    def bring(self, tree: Any, size: int) -> Any:
        """Host arrays (steps, share, …) of this process as arrays (steps, size, …) of all devices.

        They are copied: a source may use its memory again.
        """
        if self.mesh is None:
            return jax.tree.map(lambda a: jnp.array(a, copy=True), tree)
        sharding, places = self._sharding(1), self.share(size)

        def one(a: Any) -> Any:
            host = _held(a)

            def piece(index: Any) -> np.ndarray:
                return host[:, np.searchsorted(places, np.arange(size)[index[1]])]

            return jax.make_array_from_callback((host.shape[0], size, *host.shape[2:]), sharding, piece)

        return jax.tree.map(one, tree)

    def plain(self, tree: Any) -> Any:
        """The same arrays on JAX's default device of this process."""
        if self.mesh is None:
            return tree
        return jax.tree.map(_plain, tree)

    def _sharding(self, axis: int) -> NamedSharding:
        assert self.mesh is not None
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, AXIS))

    # Between processes.

    def exchange(self, text: str) -> list[str]:
        """What each process says, by process; every one must call this, as often as the others."""
        if self.processes == 1:
            return [text]
        data = text.encode()
        lengths = [int(n) for n in _gathered(np.asarray([len(data)], np.int32))[:, 0]]
        width = LINE * -(-max(lengths) // LINE)
        padded = np.frombuffer(data.ljust(width, b" "), np.uint8)
        return [bytes(row[:n]).decode() for row, n in zip(_gathered(padded), lengths, strict=True)]

    def exchanged(self, value: Any) -> list[Any]:
        """What each process has (anything that JSON can hold), by process."""
        return [value] if self.processes == 1 else [json.loads(t) for t in self.exchange(json.dumps(value))]

    def agree(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """What each process found; where one has an error, all raise it."""
        if self.processes == 1:
            return [message]
        return self._judged([json.loads(text) for text in self.exchange(json.dumps(message))])

    def in_all(self, function: Callable[[], Any]) -> Any:
        """What a function gives here; where it fails in one process, all raise its error."""
        if self.processes == 1:
            return function()
        found, message = None, {}
        try:
            found = function()
        except Exception as error:
            message = {"error": str(error)}
        self.agree(message)
        return found

    def from_first(self, function: Callable[[], Any]) -> Any:
        """What the first process gets from a function (anything that JSON can hold), in all of them."""
        if self.processes == 1:
            return function()
        message: dict[str, Any] = {}
        if self.writes:
            try:
                message = {"found": function()}
            except Exception as error:
                message = {"error": str(error)}
        return self._judged([json.loads(self.exchange(json.dumps(message))[0])])[0]["found"]

    def _judged(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for number, each in enumerate(found):
            if "error" in each:
                raise ValueError(f"process {number}: {each['error']}")
        return found

    def copy_of_first(self, tree: Any) -> Any:
        """The arrays of a pytree as the first process has them, in all of them."""
        if self.processes == 1:
            return tree
        from jax.experimental import multihost_utils

        arrays, rest = eqx.partition(tree, eqx.is_array)
        raw = jax.tree.map(lambda a: np.asarray(jax.random.key_data(a) if _is_key(a) else a), arrays)
        sent = multihost_utils.broadcast_one_to_all(raw)

        def one(a: Any, new: Any) -> Any:
            if _is_key(a):
                return jax.random.wrap_key_data(jnp.asarray(new), impl=jax.random.key_impl(a))
            return jnp.asarray(new, a.dtype)

        return eqx.combine(jax.tree.map(one, arrays, sent), rest)

    def lost(self, error: BaseException) -> bool:
        """Whether an error means that another process has gone."""
        words = r"gloo|nccl|connection (closed|reset)|unavailable|deadline_exceeded|heartbeat|unhealthy"
        return self.processes > 1 and re.search(words, str(error), re.IGNORECASE) is not None


def _held(a: Any) -> np.ndarray:
    """A copy in the numbers JAX holds: `make_array_from_callback` would keep float64 where x64 is off."""
    return np.array(a, dtype=jax.dtypes.canonicalize_dtype(a.dtype))


def _plain(a: Any) -> Any:
    if not isinstance(a, jax.Array):
        return a
    if _is_key(a):
        return jax.random.wrap_key_data(_plain(jax.random.key_data(a)), impl=jax.random.key_impl(a))
    return jnp.asarray(np.asarray(a))


def _is_key(a: Any) -> bool:
    return jnp.issubdtype(a.dtype, jax.dtypes.prng_key)


def _gathered(array: np.ndarray) -> np.ndarray:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array))


ALONE = Placement()
