"""What a scheme hands back to be described."""

import equinox as eqx
from jaxtyping import Array, Float

from vfe.dynamics.generalised.states import Course, Learned


class Outcome(eqx.Module):
    """Beliefs at every sample, and those about what does not move.

    `entropies`: ln |C|; `used`: the beliefs of parameters and log-precisions under which the states were
    found; `learned`: those reported; `history`: the log-evidence bound after each sweep, NaN where none was
    made.
    """

    course: Course
    covariances: Float[Array, "time u u"]
    entropies: Float[Array, " time"]
    used: Learned
    learned: Learned
    history: Float[Array, " sweeps"]
    sweeps: Float[Array, ""]
    parameters: Float[Array, "time p"] | None = None
    log_precisions: Float[Array, "time h"] | None = None
