"""What learning returns."""

from typing import Any

import equinox as eqx

from vfe.beliefs import Point
from vfe.free_energy import FreeEnergy
from vfe.learning.modes import Modes
from vfe.model import Model


class Learned(eqx.Module):
    """What was learned.

    `model`; `belief`: the last beliefs about the training data, flattened to one leading axis (None for
    amortised ones, and where none are kept); `kept`: what stands for them (of a `vfe.GaussNewtonLaplace`
    family the modes alone, see `modes`); `family`: the belief family, with a learned encoder inside
    where amortised; `history`: arrays over the epochs, in nats per observation; `free_energy`: of the last
    epoch, per observation in the order of the data (of an iterable: as they came), as met during that
    epoch; `epochs` done; `failed`: visits in the last epoch at which perception found no answer.
    """

    model: Model
    family: Any
    kept: Any
    free_energy: FreeEnergy
    history: dict[str, Any]
    kind: str = eqx.field(static=True)
    epochs: int = eqx.field(static=True)
    status: str = eqx.field(static=True)
    failed: int = eqx.field(static=True)

    @property
    def belief(self) -> Any:
        """The last beliefs about the training data; None where there are none.

        Under `vfe.GaussNewtonLaplace` they are made from the modes kept, with the curvature that the
        learned model has there.

        **Raises:** `ValueError` where these curvatures would be too many numbers to hold.
        """
        return self.kept.beliefs(self.model) if isinstance(self.kept, Modes) else self.kept

    @property
    def modes(self) -> Point:
        """The modes kept under `vfe.GaussNewtonLaplace`, one per observation, n numbers each.

        **Raises:** `ValueError` where learning kept none.
        """
        if not isinstance(self.kept, Modes):
            raise ValueError(
                "modes: learning kept no modes; they are kept under belief=vfe.GaussNewtonLaplace with "
                "keep_beliefs=True. See `belief`."
            )
        return self.kept.points

    @property
    def steps(self) -> int:
        """Epochs done."""
        return self.epochs

    def plot(self, **options: Any) -> Any:
        """Draw F in its readings and by level over the epochs; returns matplotlib axes."""
        from vfe.results.plots import plot_learned

        return plot_learned(self, **options)

    def to_xarray(self) -> Any:
        """The history as an xarray Dataset."""
        from vfe.results.tables import learned_to_xarray

        return learned_to_xarray(self)

    def __repr__(self) -> str:
        totals = self.history.get("total", [])
        if not len(totals):
            return f"Learned(epochs={self.epochs})"
        return (
            f"Learned: F {totals[0]:.4f} → {totals[-1]:.4f} nats per observation ({self.kind}) in "
            f"{self.epochs} epochs; {self.status}"
        )
