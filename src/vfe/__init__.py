"""vfe: the free-energy principle as software.

Write a generative model once; perceive, learn, attend and compare models with it. Every one of these
minimises the same number, the variational free energy F, in nats.
"""

from typing import TYPE_CHECKING

from vfe.runtime import order_cpu_work

order_cpu_work()  # before anything below may start JAX

# ruff: isort: split
from vfe import exact, networks
from vfe.beliefs import (
    Amortised,
    Categorical,
    Conjugate,
    DiagonalGaussian,
    Enumerated,
    EnumeratedBelief,
    Flow,
    GaussNewtonLaplace,
    JointCategorical,
    JointGaussian,
    Laplace,
    MeanField,
    Mixture,
    NodeGaussian,
    Particles,
    Point,
    Present,
    recognition,
)
from vfe.cascade import cascade
from vfe.chain import Chain
from vfe.compare import Comparison, compare, reduce, reduce_model
from vfe.conditionals import (
    bernoulli,
    categorical,
    conditional,
    dirichlet,
    gamma,
    gaussian,
    given,
    plate,
)
from vfe.conditioning import masked
from vfe.evidence import AnnealedImportanceSampling, ImportanceSampling, log_evidence
from vfe.expectation import Enumerate, MonteCarlo, Taylor
from vfe.free_energy import Estimate, FreeEnergy, Kind, free_energy
from vfe.hierarchy import hierarchy
from vfe.lazy import later
from vfe.learning import (
    Batches,
    CentredNudging,
    Contrast,
    ExpectationMaximisation,
    ImportanceWeighted,
    Learned,
    ParameterUncertainty,
    Refined,
    Rows,
    StochasticTrace,
    Tempered,
    TotalDerivative,
    attend,
    learn,
    natural_descent,
    parameter_uncertainty,
)
from vfe.maps import MLP, Affine, Exp, Fixed, Table, learnable
from vfe.model import Model
from vfe.perception import (
    ActivityDescent,
    Anderson,
    CoordinateAscent,
    Descent,
    DivergenceError,
    ErrorCoordinates,
    ErrorDescent,
    Exact,
    FeedForward,
    GaussNewton,
    GradientFlow,
    Hessian,
    Langevin,
    NaturalGradient,
    Percept,
    Status,
    perceive,
)
from vfe.results import load

if TYPE_CHECKING:
    from vfe import action, discrete, dynamics
    from vfe.action import ActiveSystem, Process, act, live
    from vfe.dynamics import (
        DynamicModel,
        Level,
        Precision,
        StateSpace,
        dem,
        fit,
        generalised_filter,
    )
    from vfe.series.verbs import filter, smooth

__all__ = [
    "MLP",
    "ActiveSystem",
    "ActivityDescent",
    "Affine",
    "Amortised",
    "Anderson",
    "AnnealedImportanceSampling",
    "Batches",
    "Categorical",
    "CentredNudging",
    "Chain",
    "Comparison",
    "Conjugate",
    "Contrast",
    "CoordinateAscent",
    "Descent",
    "DiagonalGaussian",
    "DivergenceError",
    "DynamicModel",
    "Enumerate",
    "Enumerated",
    "EnumeratedBelief",
    "ErrorCoordinates",
    "ErrorDescent",
    "Estimate",
    "Exact",
    "Exp",
    "ExpectationMaximisation",
    "FeedForward",
    "Fixed",
    "Flow",
    "FreeEnergy",
    "GaussNewton",
    "GaussNewtonLaplace",
    "GradientFlow",
    "Hessian",
    "ImportanceSampling",
    "ImportanceWeighted",
    "JointCategorical",
    "JointGaussian",
    "Kind",
    "Langevin",
    "Laplace",
    "Learned",
    "Level",
    "MeanField",
    "Mixture",
    "Model",
    "MonteCarlo",
    "NaturalGradient",
    "NodeGaussian",
    "ParameterUncertainty",
    "Particles",
    "Percept",
    "Point",
    "Precision",
    "Present",
    "Process",
    "Refined",
    "Rows",
    "StateSpace",
    "Status",
    "StochasticTrace",
    "Table",
    "Taylor",
    "Tempered",
    "TotalDerivative",
    "act",
    "action",
    "attend",
    "bernoulli",
    "cascade",
    "categorical",
    "compare",
    "conditional",
    "dem",
    "dirichlet",
    "discrete",
    "dynamics",
    "exact",
    "filter",
    "fit",
    "free_energy",
    "gamma",
    "gaussian",
    "generalised_filter",
    "given",
    "hierarchy",
    "learn",
    "learnable",
    "live",
    "load",
    "log_evidence",
    "masked",
    "natural_descent",
    "networks",
    "parameter_uncertainty",
    "perceive",
    "plate",
    "recognition",
    "reduce",
    "reduce_model",
    "smooth",
]

# Imported when first asked for: a third of the time of `import vfe` would be theirs.
_LATER = {
    "action": ("ActiveSystem", "Process", "act", "live"),
    "discrete": (),
    "dynamics": (
        "DynamicModel",
        "Level",
        "Precision",
        "StateSpace",
        "dem",
        "fit",
        "generalised_filter",
    ),
    "series.verbs": ("filter", "smooth"),
}


__getattr__ = later(__name__, _LATER)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
