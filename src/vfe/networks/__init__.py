"""Deep predictive-coding networks: hierarchies whose levels are neural layers, as ordinary models."""

from vfe.networks.attention import SelfAttention
from vfe.networks.generative import FromCauses, generative
from vfe.networks.images import Convolution, MaxPool, Reshape, convolutional
from vfe.networks.layers import Activated, Composed, Dense, Residual, dense
from vfe.networks.predict import predict
from vfe.networks.relaxation import Relaxation, Spectrum, WeightGradient, relaxation
from vfe.networks.repeated import FromLast, Repeated
from vfe.networks.supervised import supervised
from vfe.networks.two_way import two_way

__all__ = [
    "Activated",
    "Composed",
    "Convolution",
    "Dense",
    "FromCauses",
    "FromLast",
    "MaxPool",
    "Relaxation",
    "Repeated",
    "Reshape",
    "Residual",
    "SelfAttention",
    "Spectrum",
    "WeightGradient",
    "convolutional",
    "dense",
    "generative",
    "predict",
    "relaxation",
    "supervised",
    "two_way",
]
