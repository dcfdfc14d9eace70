"""Agents fitted to behaviour: likelihood of choices, parameters by subject and by group, recovery."""

from vfe.discrete.behaviour.fit import AgentLikelihood, fit_choices, read_choices
from vfe.discrete.behaviour.frequencies import ModelFrequencies, model_frequencies
from vfe.discrete.behaviour.group import FittedGroup, fit_group, fit_group_choices
from vfe.discrete.behaviour.likelihood import (
    Choices,
    choice_log_probabilities,
    log_likelihood,
    predicted,
)
from vfe.discrete.behaviour.parameters import ParameterPrior, positive, probability, real
from vfe.discrete.behaviour.recovery import Recovery, recovery
from vfe.discrete.behaviour.sampling import SampledSubjects, sample_subjects
from vfe.discrete.behaviour.subjects import FittedSubjects, fit_subjects

__all__ = [
    "AgentLikelihood",
    "Choices",
    "FittedGroup",
    "FittedSubjects",
    "ModelFrequencies",
    "ParameterPrior",
    "Recovery",
    "SampledSubjects",
    "choice_log_probabilities",
    "fit_choices",
    "fit_group",
    "fit_group_choices",
    "fit_subjects",
    "log_likelihood",
    "model_frequencies",
    "positive",
    "predicted",
    "probability",
    "read_choices",
    "real",
    "recovery",
    "sample_subjects",
]
