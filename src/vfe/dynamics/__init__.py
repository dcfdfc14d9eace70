"""Models of time: what hidden states are doing, from samples of what they cause."""

from vfe.dynamics.choices import ChoiceLogits, choice_model
from vfe.dynamics.filtering import filter, smooth
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
    "FilteredVolatility",
    "HierarchicalGaussianFilter",
    "StandardUpdate",
    "choice_model",
    "filter",
    "filter_volatility",
    "smooth",
]
