"""Models of time: what hidden states are doing, from samples of what they cause."""

from vfe.dynamics.attractors import birdsong, double_well, lorenz
from vfe.dynamics.causal import Causal
from vfe.dynamics.choices import ChoiceLogits, choice_model
from vfe.dynamics.collapsed import Collapsed, LearnedLevels, fit_dynamic_model
from vfe.dynamics.coloured_noise import ColouredNoise
from vfe.dynamics.convolution import linear_convolution
from vfe.dynamics.dem import dem
from vfe.dynamics.dynamic_model import DynamicModel
from vfe.dynamics.exact_filtering import filter_state_space, smooth_state_space
from vfe.dynamics.filter_states import filter_dynamic_model
from vfe.dynamics.filtering import filter, fit, smooth
from vfe.dynamics.fitted_components import FittedComponents, fit_components
from vfe.dynamics.fitted_parameters import FittedParameters, fit_parameters
from vfe.dynamics.generalised_filter import generalised_filter
from vfe.dynamics.haemodynamics import haemodynamic
from vfe.dynamics.level import Level
from vfe.dynamics.methods import ParallelInTime, Sequential
from vfe.dynamics.noise_precision import Precision
from vfe.dynamics.nonlinear_system import NonlinearSystem
from vfe.dynamics.path_smoothing import SmoothedPath, smooth_nonlinear_system
from vfe.dynamics.reduction import ReducedTrajectory, posterior_as_prior, reduce_dynamic_model
from vfe.dynamics.reference import Reference
from vfe.dynamics.sessions import Sessions
from vfe.dynamics.simulate import Simulated, simulate
from vfe.dynamics.smooth_noise import SmoothNoise, smooth_noise, smooth_noise_state_space
from vfe.dynamics.smooth_states import smooth_dynamic_model
from vfe.dynamics.smoothed import Filtered, Forecast, Gaussian, Now, OnlineState, Smoothed
from vfe.dynamics.smoothness import embed, smoothness_covariance, smoothness_precision
from vfe.dynamics.state_space import StateSpace
from vfe.dynamics.state_trajectory import CausalNow, CausalState, ForecastLevels, StateTrajectory
from vfe.dynamics.systems import (
    AbstractSystem,
    Autoregression,
    Components,
    LocalLevel,
    LocalTrend,
    Oscillator,
)
from vfe.dynamics.trajectory import Believed, FreeEnergyInTime, Parameters, Trajectory
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
    "Believed",
    "BinaryInput",
    "Causal",
    "CausalNow",
    "CausalState",
    "ChoiceLogits",
    "Collapsed",
    "ColouredNoise",
    "Components",
    "ContinuousInput",
    "DynamicModel",
    "EnhancedUpdate",
    "Filtered",
    "FilteredVolatility",
    "FittedComponents",
    "FittedParameters",
    "Forecast",
    "ForecastLevels",
    "FreeEnergyInTime",
    "Gaussian",
    "HierarchicalGaussianFilter",
    "LearnedLevels",
    "Level",
    "LocalLevel",
    "LocalTrend",
    "NonlinearSystem",
    "Now",
    "OnlineState",
    "Oscillator",
    "ParallelInTime",
    "Parameters",
    "Precision",
    "ReducedTrajectory",
    "Reference",
    "Sequential",
    "Sessions",
    "Simulated",
    "SmoothNoise",
    "Smoothed",
    "SmoothedPath",
    "StandardUpdate",
    "StateSpace",
    "StateTrajectory",
    "Trajectory",
    "birdsong",
    "choice_model",
    "dem",
    "double_well",
    "embed",
    "filter",
    "filter_dynamic_model",
    "filter_state_space",
    "filter_volatility",
    "fit",
    "fit_components",
    "fit_dynamic_model",
    "fit_parameters",
    "generalised_filter",
    "haemodynamic",
    "linear_convolution",
    "lorenz",
    "posterior_as_prior",
    "reduce_dynamic_model",
    "simulate",
    "smooth",
    "smooth_dynamic_model",
    "smooth_noise",
    "smooth_noise_state_space",
    "smooth_nonlinear_system",
    "smooth_state_space",
    "smoothness_covariance",
    "smoothness_precision",
]
