"""attend: learn the precisions alone."""

from typing import Any

from vfe.learning.learn import learn
from vfe.learning.learned import Learned
from vfe.learning.trainable import noises
from vfe.model import Model


def attend(
    model: Model, observed: Any, *, nodes: tuple[str, ...] | str | None = None, **options: Any
) -> Learned:
    """Learn how much each prediction error counts: descend F over the precisions alone.

    Precision is the gain of prediction errors; at its optimum it matches the errors that are left.

    **Arguments:** `nodes`: the Gaussian nodes whose precision is learned, fixed ones included (all by
    default); `options`: those of `vfe.learn`, except `where`.

    **Raises:** `ValueError` for a node without precision, and as `vfe.learn`.

    **Example:** `vfe.attend(model, {"x": x}, nodes="x", epochs=50).model["x"].noise`.

    **Source:** Feldman and Friston 2010 (attention as the optimisation of precision).
    """
    if "where" in options:
        raise ValueError("attend: where= is set by nodes=; use vfe.learn to pick other leaves.")
    names = (nodes,) if isinstance(nodes, str) else (tuple(nodes) if nodes is not None else None)
    return learn(model, observed, where=noises(model, names), **options)
