"""Models of time: what hidden states are doing, from samples of what they cause."""

from vfe.dynamics.choices import ChoiceLogits, choice_model
from vfe.dynamics.exact_filtering import filter_state_space, smooth_state_space
from vfe.dynamics.filtering import filter, smooth
from vfe.dynamics.fit import FittedComponents, fit
from vfe.dynamics.fitting import FittedParameters, fit_parameters
from vfe.dynamics.methods import ParallelInTime, Sequential
from vfe.dynamics.nonlinear_system import NonlinearSystem
from vfe.dynamics.path_smoothing import SmoothedPath, smooth_nonlinear_system
from vfe.dynamics.smooth_noise import SmoothNoise, smooth_noise, smooth_noise_state_space
from vfe.dynamics.smoothed import Filtered, Forecast, Gaussian, Now, OnlineState, Smoothed
from vfe.dynamics.state_space import StateSpace
from vfe.dynamics.systems import (
    AbstractSystem,
    Autoregression,
    Components,
    LocalLevel,
    LocalTrend,
    Oscillator,
)
from vfe.dynamics.volatility import (
    BinaryInput,
    ContinuousInput,
    EnhancedUpdate,
    HierarchicalGaussianFilter,
    StandardUpdate,
)
from vfe.dynamics.volatility_filter import FilteredVolatility, filter_volatility

__all__ = [
    "AbstractSystem",
    "Autoregression",
    "BinaryInput",
    "ChoiceLogits",
    "Components",
    "ContinuousInput",
    "EnhancedUpdate",
    "Filtered",
    "FilteredVolatility",
    "FittedComponents",
    "FittedParameters",
    "Forecast",
    "Gaussian",
    "HierarchicalGaussianFilter",
    "LocalLevel",
    "LocalTrend",
    "NonlinearSystem",
    "Now",
    "OnlineState",
    "Oscillator",
    "ParallelInTime",
    "Sequential",
    "SmoothNoise",
    "Smoothed",
    "SmoothedPath",
    "StandardUpdate",
    "StateSpace",
    "choice_model",
    "filter",
    "filter_state_space",
    "filter_volatility",
    "fit",
    "fit_parameters",
    "smooth",
    "smooth_noise",
    "smooth_noise_state_space",
    "smooth_nonlinear_system",
    "smooth_state_space",
]
