"""The management API: models, keys, experiments, budgets, figures and feedback over HTTP."""

from gatewright_host.management.management import Management
from gatewright_host.management.waiting import is_waiting_for_keys, wait_for_keys

__all__ = ["Management", "is_waiting_for_keys", "wait_for_keys"]
