"""How a perception ended: data, with a sentence for each way."""

import enum


class Status(enum.IntEnum):
    """How perception ended for one observation; `sentence` says it in words."""

    converged = 0
    sampled = 1
    encoded = 2
    precision = 3
    max_steps = 4
    indefinite = 5
    diverged = 6

    @property
    def sentence(self) -> str:
        """What happened, and what to change."""
        return {
            Status.converged: "the gradient is within the tolerance asked for",
            Status.sampled: "the samples asked for were drawn",
            Status.encoded: "the encoder's belief, as it is",
            Status.precision: (
                "no step lowers the objective any more although the gradient is above the tolerance: "
                "rounding is reached; ask for less (rtol=, atol=) or switch on float64"
            ),
            Status.max_steps: (
                "the steps ran out before the gradient came within the tolerance; allow more "
                "(max_steps=) or ask for less (rtol=, atol=)"
            ),
            Status.indefinite: (
                "the curvature at the point found is not positive definite, so it is no minimum that "
                "a Laplace belief could stand for; use a Gaussian belief (vfe.JointGaussian), or "
                "start elsewhere"
            ),
            Status.diverged: (
                "the objective is not finite; check the scale of the data and the model's precisions, "
                "or take another solver"
            ),
        }[self]

    @property
    def failed(self) -> bool:
        """Whether there is no answer (the numbers are withheld)."""
        return self in (Status.indefinite, Status.diverged)


class DivergenceError(RuntimeError):
    """Raised where perception found no answer and `throw=True`, and where learning met NaN or infinity."""
