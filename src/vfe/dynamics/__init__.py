"""Models of time: what hidden states are doing, from samples of what they cause."""

from vfe.dynamics.dem import dem
from vfe.dynamics.dynamic_model import DynamicModel
from vfe.dynamics.filter_states import filter_dynamic_model
from vfe.dynamics.filtering import filter
from vfe.dynamics.generalised_filter import generalised_filter
from vfe.dynamics.level import Level
from vfe.dynamics.noise_precision import Precision
from vfe.dynamics.reference import Reference
from vfe.dynamics.smoothness import embed, smoothness_covariance, smoothness_precision
from vfe.dynamics.trajectory import Believed, FreeEnergyInTime, Parameters, Trajectory

__all__ = [
    "Believed",
    "DynamicModel",
    "FreeEnergyInTime",
    "Level",
    "Parameters",
    "Precision",
    "Reference",
    "Trajectory",
    "dem",
    "embed",
    "filter",
    "filter_dynamic_model",
    "generalised_filter",
    "smoothness_covariance",
    "smoothness_precision",
]
