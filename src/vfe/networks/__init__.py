"""Deep predictive-coding networks: hierarchies whose levels are neural layers, as ordinary models."""

from vfe.networks.layers import Activated, Dense, Residual, dense
from vfe.networks.predict import predict
from vfe.networks.relaxation import Relaxation, Spectrum, WeightGradient, relaxation
from vfe.networks.repeated import FromLast, Repeated
from vfe.networks.supervised import supervised

__all__ = [
    "Activated",
    "Dense",
    "FromLast",
    "Relaxation",
    "Repeated",
    "Residual",
    "Spectrum",
    "WeightGradient",
    "dense",
    "predict",
    "relaxation",
    "supervised",
]
