"""Settings of the causal filter, and the filter sample by sample."""

import math
from typing import Any

import equinox as eqx

from vfe.dynamics.linear.smooth_noise import HIGHEST_ORDER
from vfe.dynamics.paths.state_trajectory import CausalNow, CausalState


class Causal(eqx.Module):
    """A filter that does not look ahead: the default of `vfe.filter` for a `vfe.DynamicModel`.

    Smooth noise is noise of a linear system driven by white noise (`vfe.dynamics.smooth_noise`). With the
    states of those systems beside its own, the model is a Markov process: an extended Kalman filter of it
    predicts from sample to sample by local linear steps and corrects by Gauss–Newton. For linear models
    this is exact, up to how well the linear system stands for the noise (its autocovariance is within 4e-3
    of the variance at order 6), and F of a sample is −ln p(y_t | y_1 … y_{t−1}); for others both are
    approximations. Samples may be missing (NaN) and times irregular.

    `vfe.dynamics.Reference`, the published scheme, embeds the data in generalised coordinates by a window
    that looks ahead, follows the mode by a gradient flow, and takes covariances from the curvature at one
    time, without a prior for where the states start; it has no place for missing samples, and its F is a
    bound up to constants. Both take parameters and precisions at their prior means. The model's `order` and
    `cause_order` are those of Reference alone; its `initial_covariance` is that of Causal alone.

    **Arguments:** `order`: of the linear systems that stand for smooth noise, 1 to 10; `substeps`: steps
    per sampling interval where the flow is not linear; `iterations`: of Gauss–Newton for each sample where
    the model is not linear, 1 being the extended Kalman filter; `floor`: deviation of white noise added to
    smooth noise of the data, as a fraction of the latter's, without which densely sampled smooth noise
    would be known from its past to more digits than there are (below 1e-3, `vfe.smooth` loses some).

    White noise (smoothness 0) of states has the intensity variance · dt; of causes, it is drawn anew at
    every sample, and moves the states as noise of that intensity. Noise whose fixed precision (per sample)
    is e¹⁶ or more counts as none, except that of the data.

    **Raises:** `ValueError` for settings out of range.

    **Example:**
    ```python
    scheme = vfe.dynamics.Causal()
    state = scheme.init(model)
    for value in y:
        state, now = scheme.step(model, state, value)
    ```

    **Source:** Hartikainen and Särkkä 2010 for the noise; Jazwinski 1970 for the filter; Bell and Cathey
    1993 for its iterated update.
    """

    order: int = eqx.field(static=True, default=6)
    substeps: int = eqx.field(static=True, default=2)
    iterations: int = eqx.field(static=True, default=2)
    floor: float = eqx.field(static=True, default=1e-3, converter=float)

    def __check_init__(self):
        for name, highest in (("order", HIGHEST_ORDER), ("substeps", math.inf), ("iterations", math.inf)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= highest:
                most = f" to {highest}" if highest < math.inf else " or more"
                raise ValueError(f"Causal: got {name}={value!r}; wanted a whole number of 1{most}.")
        if not (math.isfinite(self.floor) and 0 < self.floor <= 1):
            raise ValueError(f"Causal: got floor={self.floor}; wanted a small fraction, such as 1e-3.")

    def init(self, model: Any) -> CausalState:
        """The belief before the first sample, for `step`. Its size does not grow with time."""
        from vfe.dynamics.paths.filter_states import start

        return start(model, self)

    def step(
        self, model: Any, state: CausalState, y: Any, dt: float | None = None, *, prior_causes: Any = None
    ) -> tuple[CausalState, CausalNow]:
        """One sample arrives: the belief after it, equal to that of `vfe.filter` over the whole series.

        **Arguments:** `model`: that of `init`; `state`: of `init`, of the step before, or
        `vfe.filter(model, y).last`; `y`: (k,), NaN where missing; `dt`: time since the sample before, that
        of the model if not given; `prior_causes`: of the top causes at this sample, zero if not given.

        **Raises:** `ValueError` for shapes that do not fit or a dt that is not positive;
        `vfe.DivergenceError` where the numbers leave float64.
        """
        from vfe.dynamics.paths.filter_states import advance

        return advance(model, self, state, y, dt, prior_causes)
