"""Models of time: what hidden states are doing, from samples of what they cause."""

from vfe.dynamics.choices import ChoiceLogits, choice_model
from vfe.dynamics.exact_filtering import filter_state_space, smooth_state_space
from vfe.dynamics.filtering import filter, smooth
from vfe.dynamics.fitting import FittedParameters, fit_parameters
from vfe.dynamics.methods import ParallelInTime, Sequential
from vfe.dynamics.nonlinear_system import NonlinearSystem
from vfe.dynamics.path_smoothing import SmoothedPath, smooth_nonlinear_system
from vfe.dynamics.smooth_noise import SmoothNoise, smooth_noise, smooth_noise_state_space
from vfe.dynamics.smoothed import Filtered, Forecast, Gaussian, Now, OnlineState, Smoothed
from vfe.dynamics.state_space import StateSpace
from vfe.dynamics.volatility import (
    BinaryInput,
    ContinuousInput,
    EnhancedUpdate,
    HierarchicalGaussianFilter,
    StandardUpdate,
)
from vfe.dynamics.volatility_filter import FilteredVolatility, filter_volatility

__all__ = [
    "BinaryInput",
    "ChoiceLogits",
    "ContinuousInput",
    "EnhancedUpdate",
    "Filtered",
    "FilteredVolatility",
    "FittedParameters",
    "Forecast",
    "Gaussian",
    "HierarchicalGaussianFilter",
    "NonlinearSystem",
    "Now",
    "OnlineState",
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
    "fit_parameters",
    "smooth",
    "smooth_noise",
    "smooth_noise_state_space",
    "smooth_nonlinear_system",
    "smooth_state_space",
]
