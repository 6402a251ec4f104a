"""Estimators that need more than counts: a model that is asked, a Python function, what was learned from outcomes."""

from gatewright_host.estimators.estimators import Ask, Estimators
from gatewright_host.estimators.learned import LearnedEstimator, Prediction

__all__ = ["Ask", "Estimators", "LearnedEstimator", "Prediction"]
