"""The tables of the store.

Times (`_s` of a moment) are Unix seconds, money is whole nano-dollars, and what nobody searches by is JSON text. The
migrations make exactly these tables; a test compares the two.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

NANO: Final = 1_000_000_000
"""Nano-dollars of a dollar."""

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

# SQLite counts up by itself only what is called INTEGER.
_COUNTER: Final = BigInteger().with_variant(Integer(), "sqlite")

requests: Final = Table(
    "requests",
    metadata,
    Column("request_id", String(200), primary_key=True),
    Column("at_s", Double, nullable=False),  # its end
    Column("writer", String(64), nullable=False),  # id of the owner (process) that wrote it
    Column("path", Text, nullable=False),
    Column("outcome", String(32), nullable=False),  # values of `commands.Outcome`
    Column("status", Integer, nullable=False),
    Column("route", Text),
    Column("model", Text),  # that answered or would have
    Column("chosen", Text),  # first of the chain; another one than `model` after a fallback
    Column("task", Text, nullable=False),
    Column("key_id", Text),
    Column("user", Text),
    Column("context_tokens", Integer),
    Column("attempts", Integer, nullable=False),
    Column("failed", Integer, nullable=False),  # attempts in vain
    Column("wait_s", Double, nullable=False),
    Column("first_byte_s", Double),
    Column("total_s", Double, nullable=False),
    Column("select_s", Double, nullable=False),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("finish_reason", Text),
    Column("estimated_cost_nano", BigInteger, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
    Column("complexity", String(16)),
    Column("complexity_score", Double),
    Column("estimator", Text),
    Column("experiment", Text),
    Column("arm", Text),
    Column("problem_kind", Text),
    Column("feedback_score", Double),  # the latest feedback's
    Column("decision_json", Text),  # `Decision`
    Column("problem_json", Text),  # `Problem`
    Column("failed_attempts_json", Text),  # list of `FailedAttempt`
    Column("prompt", Text),  # only if `store.prompts` is on
    Index("ix_requests_at_s", "at_s"),
)

outcomes: Final = Table(
    "outcomes",
    metadata,
    Column("id", _COUNTER, primary_key=True, autoincrement=True),
    Column("request_id", String(200), nullable=False),
    Column("writer", String(64), nullable=False),
    Column("at_s", Double, nullable=False),
    Column("model", Text, nullable=False),
    Column("success", Boolean, nullable=False),
    Column("task", Text, nullable=False),
    Column("complexity", String(16)),
    Column("latency_ms", Double),
    Column("first_token_ms", Double),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
    Column("score", Double),
    Column("is_available", Boolean, nullable=False),
    Column("propensity", Double, nullable=False),
    Column("experiment", Text),
    Column("arm", Text),
    Column("sequence", Integer, nullable=False),
    Column("unit", Text),
    Column("route", Text),
    Column("key_id", Text),
    Index("ix_outcomes_at_s", "at_s"),
    Index("ix_outcomes_request_id", "request_id"),
    Index("ix_outcomes_experiment", "experiment", "id"),
    sqlite_autoincrement=True,
)

feedback: Final = Table(
    "feedback",
    metadata,
    Column("id", _COUNTER, primary_key=True, autoincrement=True),
    Column("request_id", String(200), nullable=False),
    Column("at_s", Double, nullable=False),
    Column("score", Double, nullable=False),
    Column("by", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Index("ix_feedback_at_s", "at_s"),
    Index("ix_feedback_request_id", "request_id"),
    sqlite_autoincrement=True,
)

models: Final = Table(
    "models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("body_json", Text, nullable=False),  # `registry.registered_model_to_plain`
    Column("created_s", Double, nullable=False),
    Column("updated_s", Double, nullable=False),
)

api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("hash", String(128), nullable=False),  # never the secret
    Column("prefix", String(32), nullable=False),  # of the secret, by which people know it
    Column("facts_json", Text, nullable=False),  # `KeyFacts`
    Column("created_s", Double, nullable=False),
    Column("expires_s", Double),
    Index("uq_api_keys_hash", "hash", unique=True),
)

experiments: Final = Table(
    "experiments",
    metadata,
    Column("name", Text, primary_key=True),
    Column("state_json", Text, nullable=False),  # `ExperimentState`
    Column("updated_s", Double, nullable=False),
)

owners: Final = Table(
    "owners",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("machine", String(200), nullable=False),  # on which its process id means something
    Column("pid", Integer, nullable=False),
    Column("started", String(200), nullable=False),  # `process_group.start_mark`
    Column("seen_s", Double, nullable=False),  # its last heartbeat
)

accounts: Final = Table(
    "accounts",
    metadata,
    Column("account", Text, primary_key=True),
    Column("limit_nano", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),  # values of `WindowKind`
    Column("period", String(16), nullable=False),
    Column("hard", Boolean, nullable=False),
    Column("warn_at", Double, nullable=False),
    Column("seen_s", Double, nullable=False),  # the day on which it was last charged, or sooner
)

reservations: Final = Table(
    "reservations",
    metadata,
    Column("request_id", String(200), primary_key=True),
    Column("account", Text, primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("at_s", Double, nullable=False),
    Index("ix_reservations_account", "account"),
    Index("ix_reservations_owner", "owner"),
)

spending: Final = Table(
    "spending",
    metadata,
    Column("account", Text, primary_key=True),
    Column("start_s", BigInteger, primary_key=True),  # of the bucket
    Column("amount_nano", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Index("ix_spending_start_s", "start_s"),
)

rate_uses: Final = Table(
    "rate_uses",
    metadata,
    Column("request_id", String(200), primary_key=True),
    Column("key_id", String(64), nullable=False),
    Column("at_s", Double, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Index("ix_rate_uses_key_id", "key_id", "at_s"),
    Index("ix_rate_uses_at_s", "at_s"),
)

revisions: Final = Table(
    "revisions",
    metadata,
    Column("topic", String(32), primary_key=True),  # "models", "keys", "experiments"
    Column("revision", BigInteger, nullable=False),
)
