"""The closed form as a solver, so that it can be asked for like any other."""

import equinox as eqx


class Exact(eqx.Module):
    """q = p(z | x) in closed form, where the model's declared types allow it.

    **Example:** `vfe.perceive(model, {"x": x}, solver=vfe.Exact())`.
    """
