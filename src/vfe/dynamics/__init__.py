"""Models of time: what hidden states are doing, from samples of what they cause."""

from vfe.dynamics.generalised.dem import dem
from vfe.dynamics.generalised.generalised_filter import generalised_filter
from vfe.dynamics.generalised.reduction import ReducedTrajectory, posterior_as_prior, reduce_dynamic_model
from vfe.dynamics.generalised.reference import Reference
from vfe.dynamics.levels.attractors import birdsong, double_well, lorenz
from vfe.dynamics.levels.convolution import linear_convolution
from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.haemodynamics import haemodynamic
from vfe.dynamics.levels.learned_smoothness import Smoothness
from vfe.dynamics.levels.level import Level
from vfe.dynamics.levels.noise_precision import Precision
from vfe.dynamics.levels.sessions import Sessions
from vfe.dynamics.levels.simulate import Simulated, simulate
from vfe.dynamics.levels.smoothness import embed, smoothness_covariance, smoothness_precision
from vfe.dynamics.levels.trajectory import Believed, FreeEnergyInTime, Parameters, Trajectory
from vfe.dynamics.linear.coloured_noise import ColouredNoise
from vfe.dynamics.linear.exact_filtering import filter_state_space, smooth_state_space
from vfe.dynamics.linear.fitted_components import FittedComponents, fit_components
from vfe.dynamics.linear.fitted_parameters import FittedParameters, fit_parameters
from vfe.dynamics.linear.smooth_noise import SmoothNoise, smooth_noise, smooth_noise_state_space
from vfe.dynamics.linear.smoothed import Filtered, Forecast, Gaussian, Now, OnlineState, Smoothed
from vfe.dynamics.linear.state_space import StateSpace
from vfe.dynamics.linear.systems import (
    AbstractSystem,
    Autoregression,
    Components,
    LocalLevel,
    LocalTrend,
    Oscillator,
)
from vfe.dynamics.paths.causal import Causal
from vfe.dynamics.paths.collapsed import Collapsed, LearnedLevels, fit_dynamic_model
from vfe.dynamics.paths.filter_states import filter_dynamic_model
from vfe.dynamics.paths.nonlinear_system import NonlinearSystem
from vfe.dynamics.paths.path_smoothing import SmoothedPath, smooth_nonlinear_system
from vfe.dynamics.paths.smooth_states import smooth_dynamic_model
from vfe.dynamics.paths.state_trajectory import CausalNow, CausalState, ForecastLevels, StateTrajectory
from vfe.dynamics.volatility.choices import ChoiceLogits, choice_model
from vfe.dynamics.volatility.volatility import (
    BinaryInput,
    ContinuousInput,
    EnhancedUpdate,
    HierarchicalGaussianFilter,
    StandardUpdate,
)
from vfe.dynamics.volatility.volatility_filter import FilteredVolatility, filter_volatility
from vfe.series.methods import ParallelInTime, Sequential
from vfe.series.verbs import filter, fit, smooth

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
    "Smoothness",
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
