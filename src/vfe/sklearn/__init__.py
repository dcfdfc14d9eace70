"""scikit-learn estimators: networks and encoders whose fitted `model_` is an ordinary `vfe.Model`."""

try:
    import sklearn as _sklearn  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "vfe.sklearn needs scikit-learn, which is not installed; pip install 'vfe[sklearn]'."
    ) from error

from vfe.sklearn.encoder import FreeEnergyEncoder
from vfe.sklearn.generative import GenerativeClassifier
from vfe.sklearn.supervised import PredictiveCodingClassifier, PredictiveCodingRegressor

__all__ = [
    "FreeEnergyEncoder",
    "GenerativeClassifier",
    "PredictiveCodingClassifier",
    "PredictiveCodingRegressor",
]
