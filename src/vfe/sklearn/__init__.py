"""scikit-learn estimators: networks and encoders whose fitted `model_` is an ordinary `vfe.Model`."""

from vfe.sklearn.encoder import FreeEnergyEncoder
from vfe.sklearn.supervised import PredictiveCodingClassifier, PredictiveCodingRegressor

__all__ = ["FreeEnergyEncoder", "PredictiveCodingClassifier", "PredictiveCodingRegressor"]
