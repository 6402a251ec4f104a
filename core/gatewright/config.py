"""The configuration as frozen values: what `configuration.schema.read_config` makes of a Lua file.

Every duration is in seconds (`_s`), every size in tokens or bytes as its name says.
"""

from enum import StrEnum
from typing import Final

from attrs import field, frozen

from gatewright.accounting.spending import BudgetConfig
from gatewright.api.facts import Continuation
from gatewright.api.transforms import Transform
from gatewright.engines.spec import EngineSpec, EngineTimeouts
from gatewright.errors import ModelNotFound
from gatewright.near_names import near_name
from gatewright.route_config import ExperienceConfig, RegistryConfig, RouteConfig, StoreConfig
from gatewright.selection.profiles import Feature, ModelProfile


class EngineKind(StrEnum):
    """Engine types; the values are those of the prototype's `presets.engines`."""

    LLAMACPP = "llama.cpp"
    LLAMACPP_SECONDARY = "llama.cpp.secondary"
    OPENAI = "openai"


class LogFormat(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """Least severity that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@frozen(kw_only=True)
class TcpListener:
    """A TCP address to listen on.

    Attributes:
        host: Numeric IPv4 or IPv6 address.
        port: 1 to 65535, or 0 for a port that the system chooses.
    """

    host: str
    port: int


@frozen(kw_only=True)
class UnixListener:
    """A Unix socket to listen on; `path` is absolute."""

    path: str


Listener = TcpListener | UnixListener


@frozen(kw_only=True)
class Margin:
    """Safety on top of an *estimated* prompt: the larger of a share of the prompt and a fixed number of tokens."""

    ratio: float = 0.10
    tokens: int = 512


@frozen(kw_only=True)
class Tokenization:
    """A standalone tokenizer program, in the manner of `llama-tokenize --stdin --ids --log-disable -m MODEL`.

    Attributes:
        binary: Program to run.
        args: Its arguments (`base_args` and `extra_args` of the file, in this order).
        extra_tokens_per_message: Template tokens added for each message.
        extra_tokens: Template tokens added once for a request.
    """

    binary: str
    args: tuple[str, ...] = ()
    extra_tokens_per_message: int = 0
    extra_tokens: int = 0


@frozen(kw_only=True)
class CallTimeouts:
    """How long one model's upstream may take, in seconds; None for as long as it lives.

    Attributes:
        connect_s: Until a connection stands.
        head_s: From sending the request until the head of an answer in one piece.
        first_token_s: From sending the request until the first token of a stream, head included.
        between_chunks_s: Longest silence once the answer has begun; None leaves it to `ServerConfig.stall_timeout_s`.
        total_s: From the request's arrival until its end, over all attempts.
    """

    connect_s: float = 10.0
    head_s: float | None = None
    first_token_s: float | None = None
    between_chunks_s: float | None = None
    total_s: float | None = None


@frozen(kw_only=True)
class ModelConfig:
    """One model.

    Attributes:
        name: Name that clients use.
        aliases: Other names that mean the same model.
        engine: Engine type.
        variants: Engines that can serve it, by ascending context, never empty.
        answer_tokens: Reserve for the answer where a request names no limit.
        margin: Safety on top of an estimated prompt.
        max_oversize: A larger variant that is already loaded serves a request if its context is at most
            this many times the smallest that fits; 1 always swaps down.
        tokenization: Standalone tokenizer; None for none.
        fallbacks: Models that are asked in turn if this one fails.
        retries: Repetitions of a failed call before the next model is asked; at most 2.
        max_attempts: Calls of one request over all models; None leaves it to `retries` and `fallbacks`.
        timeouts: Of its upstream.
        prefill: How it is asked to continue an answer that broke off; None if it cannot.
        transform: Changes that requests to it undergo.
        profile: What is known of it for choices between models.
    """

    name: str
    aliases: tuple[str, ...] = ()
    engine: EngineKind = EngineKind.LLAMACPP
    variants: tuple[EngineSpec, ...]
    answer_tokens: int = 1024
    margin: Margin = field(factory=Margin)
    max_oversize: float = 16.0
    tokenization: Tokenization | None = None
    fallbacks: tuple[str, ...] = ()
    retries: int = 1
    max_attempts: int | None = None
    timeouts: CallTimeouts = field(factory=CallTimeouts)
    prefill: Continuation | None = Continuation.LLAMACPP
    transform: Transform | None = None
    profile: ModelProfile = field()

    @profile.default
    def _plain_profile(self) -> ModelProfile:
        return plain_profile(self.name, self.engine, self.variants)

    @property
    def is_remote(self) -> bool:
        """Whether a provider answers for it."""
        return self.engine is EngineKind.OPENAI

    @property
    def largest_context_tokens(self) -> int:
        """Context of the largest variant."""
        return self.variants[-1].context_tokens


def plain_profile(name: str, engine: EngineKind, variants: tuple[EngineSpec, ...]) -> ModelProfile:
    """What is known of a model of which its table says nothing else."""
    return ModelProfile(
        name=name,
        provider=engine.value,
        context_tokens=variants[-1].context_tokens if variants else 0,
        features=frozenset(Feature),
        is_local=engine is not EngineKind.OPENAI,
    )


DEFAULT_PORT: Final = 8080


@frozen(kw_only=True)
class ServerConfig:
    """Everything that is not about one model.

    Attributes:
        listen: Addresses and Unix sockets to listen on.
        timeouts: Engine timeouts for models and variants that set none.
        api_keys: Keys that clients may present, with all rights; empty lets everyone in where the store has none either.
        open: Permit listening beyond loopback without `api_keys`.
        allowed_hosts: Host names accepted in `Host` besides loopback and the listen addresses; "*" accepts all.
        max_head_bytes: Largest request line and headers.
        max_body_bytes: Largest request body.
        max_waiting: Requests that may wait for engines at a time.
        max_connections: Client connections at a time.
        max_wait_s: After this wait for a swap no new lease is granted ahead of the waiter.
        queue_timeout_s: Longest wait for an engine altogether.
        head_timeout_s: Time a client has to send a request's head.
        body_timeout_s: Longest silence while a client sends a body.
        keep_alive_timeout_s: Idle time after which a kept-alive connection is closed.
        stall_timeout_s: Longest silence of an upstream once an answer has begun.
        shutdown_timeout_s: Time that running requests get at shutdown.
        state_dir: Directory of the engine host's lock, log and records; None for the user's default.
        log_level: Least severity logged.
        log_format: Shape of a log line.
        default_model: Model for requests that name none; None means the only one configured.
        dumps_dir: Directory into which requests and answers are written for debugging; None writes none.
        clear_dumps_on_start: Empty `dumps_dir` at start.
    """

    listen: tuple[Listener, ...] = (TcpListener(host="127.0.0.1", port=DEFAULT_PORT),)
    timeouts: EngineTimeouts = field(factory=EngineTimeouts)
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    open: bool = False
    allowed_hosts: tuple[str, ...] = ()
    max_head_bytes: int = 65_536
    max_body_bytes: int = 67_108_864
    max_waiting: int = 256
    max_connections: int = 1024
    max_wait_s: float = 30.0
    queue_timeout_s: float = 900.0
    head_timeout_s: float = 15.0
    body_timeout_s: float = 60.0
    keep_alive_timeout_s: float = 75.0
    stall_timeout_s: float = 120.0
    shutdown_timeout_s: float = 30.0
    state_dir: str | None = None
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.TEXT
    default_model: str | None = None
    dumps_dir: str | None = None
    clear_dumps_on_start: bool = False


@frozen(kw_only=True)
class Config:
    """The whole configuration.

    Attributes:
        server: Server settings.
        models: Models in the file's order; names and aliases are unique.
        routes: Names for whichever model suits best.
        budgets: Limits on what is spent.
        store: Where records are kept.
        experience: How choices learn from outcomes.
        registry: What registered models may do.
    """

    server: ServerConfig = field(factory=ServerConfig)
    models: tuple[ModelConfig, ...]
    routes: tuple[RouteConfig, ...] = ()
    budgets: tuple[BudgetConfig, ...] = ()
    store: StoreConfig = field(factory=StoreConfig)
    experience: ExperienceConfig = field(factory=ExperienceConfig)
    registry: RegistryConfig = field(factory=RegistryConfig)
    _by_name: dict[str, ModelConfig] = field(init=False, repr=False, eq=False)
    _route_by_name: dict[str, RouteConfig] = field(init=False, repr=False, eq=False)

    @_by_name.default
    def _index(self) -> dict[str, ModelConfig]:
        index = {alias: model for model in self.models for alias in model.aliases}
        index.update({model.name: model for model in self.models})
        return index

    @_route_by_name.default
    def _index_routes(self) -> dict[str, RouteConfig]:
        return {route.name: route for route in self.routes}

    def find_route(self, name: str | None) -> RouteConfig | None:
        """The route of that name."""
        return None if name is None else self._route_by_name.get(name)

    def candidates_of(self, route: RouteConfig, names: tuple[str, ...] = ()) -> tuple[ModelConfig, ...]:
        """The models among which a route chooses, in the file's order.

        Args:
            route: The route.
            names: Models that an arm of its experiment names instead.
        """
        named = names or route.candidates
        if not named and not route.tags:
            return self.models
        found = {self._by_name[name].name for name in named if name in self._by_name}
        tags = frozenset(() if names else route.tags)
        return tuple(
            [model for model in self.models if model.name in found or not tags.isdisjoint(model.profile.tags)]
        )

    def find_model(self, name: str) -> ModelConfig:
        """The model of that name or alias.

        Raises:
            ModelNotFound: No model has this name or alias.
        """
        model = self._by_name.get(name)
        if model is None:
            raise ModelNotFound(name)
        return model

    def not_found(self, name: str) -> ModelNotFound:
        """What to say of a name that no model, alias or route has: that, and which one may have been meant."""
        return ModelNotFound(name, near=near_name(name, {**self._by_name, **self._route_by_name}))

    def chain_of(
        self, model: ModelConfig, fallbacks: tuple[str, ...] | None = None
    ) -> tuple[ModelConfig, ...]:
        """The model and its fallbacks, in the order in which they are asked, each once.

        Args:
            model: The first.
            fallbacks: Models to ask instead of its own fallbacks; unknown names are left out.
        """
        names = model.fallbacks if fallbacks is None else fallbacks
        if not names:
            return (model,)
        chain = {model.name: model}
        for name in names:
            fallback = self._by_name.get(name)
            if fallback is not None:
                chain.setdefault(fallback.name, fallback)
        return tuple(chain.values())

    @property
    def default_model(self) -> ModelConfig | None:
        """The model of requests that name none, if there is such a model."""
        if self.server.default_model is not None:
            return self._by_name.get(self.server.default_model)
        return self.models[0] if len(self.models) == 1 else None
