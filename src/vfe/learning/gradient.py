"""Which gradient learning takes: at fixed beliefs, or with their dependence on the parameters."""

import equinox as eqx


class ExpectationMaximisation(eqx.Module):
    """∂F/∂θ at the belief perception found, held fixed: ⟨∂E/∂θ⟩_q (the M step of EM).

    Where the belief minimises F exactly this is the whole derivative of F; under Laplace beliefs in a
    nonlinear model it is not (see `TotalDerivative`). A `vfe.GaussNewtonLaplace` belief is held fixed in
    its standardised errors, q(e), so that ½ ln |I + J Jᵀ| counts with its exact derivative at the mode.

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
