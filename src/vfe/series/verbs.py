"""The verbs of time: what is believed so far, in hindsight, and what is learned from whole series."""

import functools
from typing import Any


@functools.singledispatch
def filter(model: Any, y: Any, **options: Any) -> Any:
    """Beliefs about the hidden states at every time, given the samples up to it.

    For a `vfe.StateSpace`: exact; takes `inputs=` and `method=`, returns `vfe.dynamics.Filtered`. For a
    `vfe.DynamicModel`: see `vfe.dynamics.filter_dynamic_model`.

    **Arguments:** `model`: a model of a series; `y`: (*batch, time, k), NaN where missing;
    (*batch, time) for a `vfe.dynamics.HierarchicalGaussianFilter`.

    **Raises:** `TypeError` for something that is no model of a series; `ValueError` for data that do not
    fit it.

    **Example:** `vfe.filter(model, y).mean`.

    **Source:** Kalman 1960.
    """
    raise TypeError(_no_model("filter", model))


@functools.singledispatch
def smooth(model: Any, y: Any, **options: Any) -> Any:
    """Beliefs about the hidden states at every time, given the whole series, and F of the path.

    For a `vfe.StateSpace`: exact; takes `inputs=` and `method=`, returns `vfe.dynamics.Smoothed`. For a
    `vfe.DynamicModel`: see `vfe.dynamics.smooth_dynamic_model`.

    **Arguments:** `model`: a model of a series; `y`: (*batch, time, k), NaN where missing.

    **Raises:** `TypeError` for something that is no model of a series; `ValueError` for data that do not
    fit it.

    **Example:** `vfe.smooth(model, y).free_energy`.

    **Source:** Rauch, Tung and Striebel 1965.
    """
    raise TypeError(_no_model("smooth", model))


@functools.singledispatch
def fit(model: Any, y: Any, **options: Any) -> Any:
    """What does not move: numbers of a model from whole series, with error bars and F.

    States are integrated out.

    For `vfe.dynamics.Components`: takes `intervals=`, returns `vfe.dynamics.FittedComponents`. For a
    `vfe.DynamicModel`: takes `times=` and `prior_causes=`, returns `vfe.dynamics.LearnedLevels`. For a
    function from a dictionary of positive numbers to a `vfe.StateSpace`: takes `prior=`, returns
    `vfe.dynamics.FittedParameters`. For a `vfe.discrete.POMDP`: takes `prior=` (counts) and `actions=`,
    returns `vfe.discrete.LearnedTables`.

    **Arguments:** `model`: a model of a series; `y`: the series, NaN where missing.

    **Raises:** `TypeError` for something that is no model of a series; `ValueError` for data that do not
    fit it; `vfe.DivergenceError` where no minimum was found.

    **Example:** `vfe.fit(vfe.dynamics.Components([vfe.dynamics.LocalLevel()]), y).free_energy`.

    **Source:** MacKay 2003, "Information Theory, Inference, and Learning Algorithms", chapter 27.
    """
    raise TypeError(_no_model("fit", model))


def _no_model(verb: str, model: Any) -> str:
    return (
        f"{verb}: got a {type(model).__name__}; wanted a model of a series, such as vfe.StateSpace "
        f"(vfe.{verb}(model, y))."
    )
