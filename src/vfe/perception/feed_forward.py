"""Recognition without recurrent dynamics: the encoder's answer as it is."""

import equinox as eqx


class FeedForward(eqx.Module):
    """q_φ(z | x) as the encoder gives it, with no step taken: for `vfe.Amortised` beliefs.

    It is the posterior only where that lies in the encoder's family and the encoder is at its optimum
    (6); otherwise refinement in the same family lowers F.

    **Example:** `vfe.perceive(model, {"x": x}, belief=amortised, solver=vfe.FeedForward())`.
    """
