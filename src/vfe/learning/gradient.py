"""Which gradient learning takes: at fixed beliefs, with their dependence on parameters, or by nudging."""

import equinox as eqx


class ExpectationMaximisation(eqx.Module):
    """∂F/∂θ at the belief perception found, held fixed: ⟨∂E/∂θ⟩_q (the M step of EM).

    Where the belief minimises F exactly this is the whole derivative of F; under Laplace beliefs in a
    nonlinear model it is not (see `TotalDerivative`). A `vfe.GaussNewtonLaplace` belief is held fixed in
    its standardised errors, q(e) (under a `vfe.Contrast` in z), so that ½ ln |I + J Jᵀ| counts with its
    exact derivative at the mode.

    **Source:** Dempster, Laird and Rubin 1977; Neal and Hinton 1998.
    """


class StochasticTrace(eqx.Module):
    """As `ExpectationMaximisation`, with the entropy's derivative estimated by one random direction.

    Under a `vfe.GaussNewtonLaplace` belief, with S = I + J Jᵀ,

        d ½ ln |S| = tr(S⁻¹ J dJᵀ) = ⟨ξᵀ dJ Jᵀ S⁻¹ ξ⟩

    over ξ of ±1 in output space, and one ξ per observation is drawn: unbiased, and F itself stays exact.
    Under other beliefs it is `ExpectationMaximisation`.

    **Source:** Hutchinson 1990.
    """


class TotalDerivative(eqx.Module):
    """dF/dθ with the belief's own dependence on θ, through the implicit function theorem.

    For a Laplace belief this counts how the mode, and the curvature there, move with the parameters.

    **Source:** implicit differentiation; Blondel et al. 2022.
    """


class CentredNudging(eqx.Module):
    """The gradient of the feed-forward loss from two equilibria: equilibrium propagation, centred.

    With E_b = E_hidden + b C, C = −ln p(observed | parents) the energy of what is observed, the activities
    z_b that minimise E_b are found for b = β and b = −β, and the parameters follow

        (∂E_β/∂θ(z_β) − ∂E_−β/∂θ(z_−β)) / 2β = dC/dθ + O(β²),

    C on the right taken at the feed-forward pass: backpropagation's gradient as β → 0, from differences of
    local terms. F reported is the energy at the feed-forward pass, −accuracy the loss C that is descended.

    For `vfe.learn(belief=vfe.Point, keep_beliefs=False)` of models whose hidden nodes are Gaussian with
    constant scales. The phase −β has no equilibrium where β outweighs the hidden precisions (Gaussian
    outputs: β Jᵀ J above 1 somewhere); such a visit counts as `failed` in `vfe.Learned` and teaches
    nothing.

    **Arguments:** `strength`: β. In float32 less than about 1e-3 drowns in rounding.

    **Raises:** `ValueError` for a strength that is not a positive number.

    **Example:**
    ```python
    vfe.learn(model, data, belief=vfe.Point, keep_beliefs=False, gradient=vfe.CentredNudging())
    ```

    **Source:** Scellier and Bengio 2017 (equilibrium propagation); Laborieux et al. 2021 (centred);
    Millidge et al. 2022 (for predictive coding).
    """

    strength: float = eqx.field(static=True, default=0.1)

    def __check_init__(self) -> None:
        if not (isinstance(self.strength, int | float) and 0 < self.strength < float("inf")):
            raise ValueError(f"CentredNudging: got strength={self.strength!r}; wanted a positive number.")
