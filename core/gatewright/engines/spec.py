"""What an engine is: everything needed to run it or reach it, and nothing about its present state."""

from typing import Final

from attrs import field, frozen

PRIMARY_PLACE: Final = "primary"

UNBOUNDED_CONTEXT_TOKENS: Final = 1_048_576
"""Context of a remote model that states none: larger than any request body that we accept."""


@frozen(kw_only=True, cache_hash=True)
class EngineTimeouts:
    """How long an engine may take, in seconds.

    Attributes:
        health_check_s: One health probe, from connect to answer.
        startup_s: From spawning the process until it is ready.
        idle_s: Without a lease, until the engine is stopped.
        stop_s: From SIGTERM until SIGKILL.
    """

    health_check_s: float = 5.0
    startup_s: float = 300.0
    idle_s: float = 600.0
    stop_s: float = 10.0


@frozen(kw_only=True, cache_hash=True)
class ProcessSpec:
    """The process behind a local engine.

    Attributes:
        binary: Program to run, a path or a name to be found on PATH.
        args: Its arguments; `${PORT}` stands for the port that is chosen at start.
        env: Environment variables set on top of the inherited ones.
        work_dir: Working directory; None inherits the engine host's.
    """

    binary: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    work_dir: str | None = None


@frozen(kw_only=True, cache_hash=True)
class EngineSpec:
    """One variant of one model: the same weights at one context size.

    Two equal specifications are the same engine, whoever asks for it.

    Attributes:
        model: Name of the model in the configuration.
        context_tokens: Context that one slot (one request) gets, prompt and answer together.
        connect: Base URL without the API path; may contain `${PORT}`.
        place: Engines of one place exclude each other: "primary", "secondary:NAME" or "remote:NAME".
        process: What to run; None for a remote provider.
        parallel: Requests at a time; None asks a local engine for its slots, and leaves a remote one unlimited.
        timeouts: Limits in seconds.
        upstream_model: Name to put into requests instead of the client's; None leaves the body untouched.
        api_key_env: Environment variable that holds the upstream's API key; None sends no credential.
    """

    model: str
    context_tokens: int
    connect: str
    place: str = PRIMARY_PLACE
    process: ProcessSpec | None = None
    parallel: int | None = None
    timeouts: EngineTimeouts = field(factory=EngineTimeouts)
    upstream_model: str | None = None
    api_key_env: str | None = None

    @property
    def is_remote(self) -> bool:
        """Whether nothing has to be started for it."""
        return self.process is None

    @property
    def label(self) -> str:
        """Short name for logs, progress and `ps`, such as `qwen3@8192`."""
        return f"{self.model}@{self.context_tokens}"
