"""What learning records: F in its readings and by level, epoch by epoch."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from vfe.free_energy import FreeEnergy, Kind


def record(free_energy: FreeEnergy, observations: int) -> dict[str, Any]:
    """The numbers of one epoch, in nats per observation."""
    row = jax.device_get(_numbers(free_energy))
    scale = 1.0 / observations if free_energy.shared else 1.0
    return jax.tree.map(lambda v: float(v) * scale, row)


@eqx.filter_jit
def _numbers(free_energy: FreeEnergy) -> dict[str, Any]:
    one = free_energy if free_energy.shared else free_energy.mean()
    row: dict[str, Any] = {"total": one.total, "energy": one.energy, "accuracy": one.accuracy}
    if free_energy.kind is Kind.energy:
        row["prior_energy"] = one.prior_energy
    else:
        row["entropy"] = one.entropy
        row["complexity"] = one.complexity
    row["by_level"] = {n: jnp.sum(v) for n, v in one.by_level.items()}
    return row


def stack(rows: list[dict[str, Any]], epochs: list[int]) -> dict[str, Any]:
    """Rows as arrays over epochs; `by_level` as a dictionary of arrays."""
    if not rows:
        return {"step": np.asarray([], int), "by_level": {}}
    found: dict[str, Any] = {"step": np.asarray(epochs)}
    for name in rows[0]:
        if name == "by_level":
            found[name] = {
                n: np.asarray([r["by_level"].get(n, np.nan) for r in rows]) for n in rows[0][name]
            }
        else:
            found[name] = np.asarray([r[name] for r in rows])
    return found
