"""ln p(x) where no closed form exists: importance sampling from a belief, or annealing."""

from vfe.evidence.annealing import AnnealedImportanceSampling
from vfe.evidence.importance_sampling import ImportanceSampling
from vfe.evidence.log_evidence import log_evidence
from vfe.evidence.method import AbstractEvidenceMethod

__all__ = ["AbstractEvidenceMethod", "AnnealedImportanceSampling", "ImportanceSampling", "log_evidence"]
