"""Choosing models without a gateway: the selection, its memory and an executor as a Python library."""

from gatewright.errors import (
    BudgetExceeded,
    CapabilityNotSupported,
    FallbackExhausted,
    GatewrightError,
    ModelNotFound,
    ResourceExhausted,
)
from gatewright.selection.complexity import ComplexityEstimate, TaskComplexity
from gatewright.selection.criteria import Prefer, ScoringWeights
from gatewright.selection.decision import Exploration
from gatewright_host.store.vocabulary import StoreError
from gatewright_library.calling import ModelAnswer, OpenAICaller, ProviderUnknown
from gatewright_library.complexity import (
    estimate_task_complexity_llm,
    heuristic_complexity_estimator,
    heuristic_estimate,
)
from gatewright_library.course import ExecutionResult
from gatewright_library.executor import Executor
from gatewright_library.experience_store import ExperienceStore
from gatewright_library.failures import AnswerRejected, failure_of
from gatewright_library.fallback import (
    Cheaper,
    ConfiguredFallbacks,
    FallbackChain,
    FallbackStep,
    FallbackStrategy,
    LargerContext,
    LocalWhenOffline,
    NextInRanking,
    Retry,
    Situation,
    default_strategies,
)
from gatewright_library.manager import ModelManager, NoSuitableModel
from gatewright_library.models import DEFAULT_MODELS, ModelConfig, SelectionCriteria, estimate_cost
from gatewright_library.performance import ModelPerformance
from gatewright_library.presets import get_model_for_complexity, select_model
from gatewright_library.selection import SelectionResult, rank_models
from gatewright_library.selector import ModelSelector
from gatewright_library.token_manager import Budget, Reservation, TokenManager, TokenUsage

__all__ = [
    "DEFAULT_MODELS",
    "AnswerRejected",
    "Budget",
    "BudgetExceeded",
    "CapabilityNotSupported",
    "Cheaper",
    "ComplexityEstimate",
    "ConfiguredFallbacks",
    "ExecutionResult",
    "Executor",
    "ExperienceStore",
    "Exploration",
    "FallbackChain",
    "FallbackExhausted",
    "FallbackStep",
    "FallbackStrategy",
    "GatewrightError",
    "LargerContext",
    "LocalWhenOffline",
    "ModelAnswer",
    "ModelConfig",
    "ModelManager",
    "ModelNotFound",
    "ModelPerformance",
    "ModelSelector",
    "NextInRanking",
    "NoSuitableModel",
    "OpenAICaller",
    "Prefer",
    "ProviderUnknown",
    "Reservation",
    "ResourceExhausted",
    "Retry",
    "ScoringWeights",
    "SelectionCriteria",
    "SelectionResult",
    "Situation",
    "StoreError",
    "TaskComplexity",
    "TokenManager",
    "TokenUsage",
    "default_strategies",
    "estimate_cost",
    "estimate_task_complexity_llm",
    "failure_of",
    "get_model_for_complexity",
    "heuristic_complexity_estimator",
    "heuristic_estimate",
    "rank_models",
    "select_model",
]
