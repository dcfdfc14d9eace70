"""Which gradient learning takes: at fixed beliefs, or with their dependence on the parameters."""

import equinox as eqx


class ExpectationMaximisation(eqx.Module):
    """∂F/∂θ at the belief perception found, held fixed: ⟨∂E/∂θ⟩_q (the M step of EM).

    Where the belief minimises F exactly this is the whole derivative of F; under Laplace beliefs in a
    nonlinear model it is not (see `TotalDerivative`).

    **Source:** Dempster, Laird and Rubin 1977; Neal and Hinton 1998.
    """


class TotalDerivative(eqx.Module):
    """dF/dθ with the belief's own dependence on θ, through the implicit function theorem.

    For a Laplace belief this counts how the mode, and the curvature there, move with the parameters.

    **Source:** implicit differentiation; Blondel et al. 2022.
    """
