"""In which order an exact filter or smoother goes through a series."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Sequential:
    """One step after the other: the least work, O(time), and the default.

    **Example:** `vfe.smooth(model, y, method=vfe.dynamics.Sequential())`.
    """


@dataclasses.dataclass(frozen=True)
class ParallelInTime:
    """All steps at once, in O(log time) rounds: for accelerators, where width costs little.

    The numbers are those of `Sequential`, to rounding; the work is O(time · log time).

    **Example:** `vfe.smooth(model, y, method=vfe.dynamics.ParallelInTime())`.

    **Source:** Särkkä and García-Fernández 2021, sections III and IV.
    """
