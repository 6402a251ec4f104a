"""Golden scripts: what happens, as lines that a person writes, and what the machines say to it, indented.

A script begins with prose (`#`) and the configuration, and then tells a story in time::

    model qwen 4096 16384 parallel=2      a local model with its variants; also: secondary, remote
    model gpt remote retries=0 fallbacks=qwen,llama total=60 prefill=assistant
    server max_wait_s=30
    route auto estimator=model            a route over all models; also: candidates=a,b explore
    budget monthly limit=5 scope=model
    (models may have price=10, US dollars per million tokens, and quality=0.9)

    @0 request r1 qwen given=900 stream   at second 0 a client asks; also: continuable patience=10
    @2 ready qwen@4096                    two seconds later a health probe finds the engine ready
    @3 answered r1 503 retry-after=2      the upstream refuses; also: code=...
    @4 relayed r1 broken continue         the answer breaks off, and can be continued

Before each line the clock runs to its time and wakes the machines when they want it. Messages between the
machines are carried at once. Everything indented is written by the runner.
"""

from collections.abc import Callable
from typing import Any, Final

from attrs import evolve

from gatewright.accounting.outcomes import ModelOutcome
from gatewright.accounting.spending import BudgetConfig, BudgetScope
from gatewright.api.facts import FIRST_ERROR_STATUS, Continuation, Resumable, UpstreamError, Usage
from gatewright.commands import CountTokens, TellHolder
from gatewright.config import CallTimeouts, Config, ModelConfig, Tokenization
from gatewright.errors import BudgetExceeded, RateLimited
from gatewright.events import (
    CallFailure,
    ComplexityEstimated,
    ConfigReplaced,
    EngineProbed,
    EstimationFailed,
    Health,
    OutcomesLearnt,
    RelayEnded,
    RelayFailure,
    ShutdownRequested,
    SpecsReplaced,
    SpendRefused,
    SpendReserved,
    SpendUnknown,
    StopAsked,
    TokenCountFailed,
    TokensCounted,
    UpstreamAnswered,
    UpstreamFailed,
    Woke,
)
from gatewright.ids import CommandId, EngineId
from gatewright.leases import AskLoads, LeaseEngine, ReleaseLease, ReportCall
from gatewright.route_config import EstimatorConfig, EstimatorKind, RouteConfig
from gatewright.selection.complexity import ComplexityEstimate, TaskComplexity
from gatewright.selection.decision import Exploration
from gatewright.selection.profiles import Pricing
from gatewright.selection.signals import PromptSignals
from gatewright.tracing.rendering import render
from tests.core.machines import build
from tests.core.machines.world import World

Options = dict[str, str]

REASONS: Final = {
    CallFailure.TIMEOUT: "silent for too long",
    CallFailure.DIFFERENT: "it begins otherwise",
    RelayFailure.INCOMPLETE: "it has no end",
    RelayFailure.STALLED: "silent for too long",
    RelayFailure.MALFORMED: "no JSON",
}


def run_script(text: str) -> str:
    """The script with what the machines say to it now.

    Raises:
        ValueError: A line cannot be understood.
    """
    script = Script()
    for line in text.splitlines():
        if line.startswith("    "):
            continue
        if line.strip() and not line.startswith("#"):
            script.run_line(line)
        else:
            script.out.append(line)
    return "\n".join(script.out).rstrip() + "\n"


class Script:
    """One run of one script."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self._wake = ""  # told only if something follows
        self._models: list[ModelConfig] = []
        self._server: dict[str, float] = {}
        self._routes: list[RouteConfig] = []
        self._budgets: list[BudgetConfig] = []
        self._world: World | None = None

    @property
    def world(self) -> World:
        if self._world is None:
            self._world = World(self._config(), observe=self._observe)
        return self._world

    def _config(self) -> Config:
        config = build.config(*self._models, **self._server)
        return evolve(config, routes=tuple(self._routes), budgets=tuple(self._budgets))

    def _observe(self, machine: str, kind: str, message: Any) -> None:
        match message:
            case Woke():
                self._wake = f"    at {self.world.now:g} s the {machine} wakes"
            case _ if kind == "event":
                self._wake = ""
            case LeaseEngine() | ReportCall() | ReleaseLease() | AskLoads():
                self._tell(f"gateway > fleet: {render(message)}")
            case TellHolder(news=news):
                self._tell(f"gateway < fleet: {render(news)}")
            case _:
                self._tell(f"{machine}: {render(message)}")

    def _tell(self, text: str) -> None:
        if self._wake:
            self.out.append(self._wake)
            self._wake = ""
        self.out.append(f"    {text}")

    def run_line(self, line: str) -> None:
        words = line.split()
        if words[0].startswith("@"):
            self.world.pass_time(float(words.pop(0)[1:]))
        self.out.append(line)
        if not words:
            return
        verb, *rest = words
        options = dict(word.partition("=")[::2] for word in rest if "=" in word)
        arguments = [word for word in rest if "=" not in word]
        carry_out = VERBS.get(verb)
        if carry_out is None:
            raise ValueError(f"unknown verb {verb!r} in {line!r}")
        carry_out(self, arguments, options)

    # --- finding what a line is about

    def process(self, label: str) -> EngineId:
        (found,) = [p.engine_id for p in self.world.processes.values() if p.spec.label == label]
        return found

    def work(self, request_id: str) -> CommandId:
        (found,) = [i for i, work in self.world.work.items() if work.request_id == request_id]
        return found


def _numbers(options: Options) -> dict[str, Any]:
    return {name: float(value) if "." in value else int(value) for name, value in options.items()}


def _model(script: Script, arguments: list[str], options: Options) -> None:
    name, *rest = arguments
    script._models = [model for model in script._models if model.name != name]
    if "gone" in rest:
        return
    extra: dict[str, Any] = {"binary": options.pop("binary")} if "binary" in options else {}
    price = float(options.pop("price", 0))
    described = {"pricing": Pricing(input_per_million=price, output_per_million=price)}
    if "quality" in options:
        described["quality"] = float(options.pop("quality"))
    limits = {
        f"{name}_s": float(options.pop(name))
        for name in ("head", "first_token", "between_chunks", "total")
        if name in options
    }
    if "fallbacks" in options:
        extra["fallbacks"] = tuple(options.pop("fallbacks").split(","))
    if "prefill" in options:
        extra["prefill"] = Continuation(options.pop("prefill"))
    if "remote" in rest:
        model = build.remote_model(name, **extra, **_numbers(options))
        timeouts = evolve(model.timeouts, **limits)
        script._models.append(evolve(model, timeouts=timeouts, profile=evolve(model.profile, **described)))
        return
    if limits:
        extra["call_timeouts"] = CallTimeouts(**limits)
    tokenization = Tokenization(binary=options.pop("tokenizer")) if "tokenizer" in options else None
    contexts = [int(word) for word in rest if word != "secondary"]
    model = build.model(
        name,
        *contexts,
        secondary="secondary" in rest,
        tokenization=tokenization,
        **extra,
        **_numbers(options),
    )
    script._models.append(evolve(model, profile=evolve(model.profile, **described)))


def _route(script: Script, arguments: list[str], options: Options) -> None:
    name, *flags = arguments
    candidates = tuple(options["candidates"].split(",")) if "candidates" in options else ()
    kind = EstimatorKind(options.get("estimator", "heuristic"))
    estimator = EstimatorConfig(kind=kind, model="estimator" if kind is EstimatorKind.MODEL else None)
    exploration = Exploration.THOMPSON if "explore" in flags else Exploration.GREEDY
    route = RouteConfig(name=name, candidates=candidates, estimator=estimator, exploration=exploration)
    script._routes.append(route)


def _budget(script: Script, arguments: list[str], options: Options) -> None:
    scope = BudgetScope(options.get("scope", "everyone"))
    script._budgets.append(BudgetConfig(name=arguments[0], limit_usd=float(options["limit"]), scope=scope))


def _estimated(script: Script, arguments: list[str], options: Options) -> None:
    request_id, complexity = arguments
    command_id = script.work(request_id)
    if complexity == "failed":
        script.world.complete(EstimationFailed(command_id=command_id, reason="no answer"))
        return
    level = TaskComplexity(complexity)
    estimate = ComplexityEstimate(complexity=level, score=level.level / 4, estimator="model")
    script.world.complete(ComplexityEstimated(command_id=command_id, estimate=estimate))


def _reserved(script: Script, arguments: list[str], options: Options) -> None:
    request_id, *rest = arguments
    command_id = script.work(request_id)
    match rest:
        case []:
            script.world.complete(SpendReserved(command_id=command_id))
        case ["refused"]:
            problem = BudgetExceeded(
                "the budget is used up", budget="monthly", resets_at=1_800_000_000
            ).problem
            script.world.complete(SpendRefused(command_id=command_id, problem=problem))
        case ["limited"]:
            problem = RateLimited("3 requests per minute", retry_after_s=20.0).problem
            script.world.complete(SpendRefused(command_id=command_id, problem=problem, is_rate=True))
        case _:
            script.world.complete(SpendUnknown(command_id=command_id, reason="disk full"))


def _learnt(script: Script, arguments: list[str], options: Options) -> None:
    model, verdict = arguments
    outcomes = [
        ModelOutcome(request_id=f"{model}{number}", model=model, success=verdict == "well", at=0.0)
        for number in range(int(options["times"]))
    ]
    script.world.gateway_event(OutcomesLearnt(outcomes=tuple(outcomes)))


def _server(script: Script, arguments: list[str], options: Options) -> None:
    script._server.update(_numbers(options))


def _reload(script: Script, arguments: list[str], options: Options) -> None:
    old, new = script.world.config, script._config()
    script.world.config = new
    script.world.gateway_event(ConfigReplaced(config=new))
    script.world.fleet_event(SpecsReplaced(old=_specs(old), new=_specs(new)))


def _specs(config: Config) -> tuple[Any, ...]:
    return tuple(spec for model in config.models for spec in model.variants)


def _request(script: Script, arguments: list[str], options: Options) -> None:
    request_id, name, *flags = arguments
    numbers = _numbers(options)
    facts = build.chat(
        name,
        numbers.get("bytes", 0),
        given=numbers.get("given", 0),
        stream="stream" in flags,
        answer=numbers.get("answer"),
        continuable="continuable" in flags,
        client_timeout_s=numbers.get("patience"),
    )
    signals = PromptSignals(text_characters=numbers.get("bytes", 0)) if script.world.config.routes else None
    script.world.receive(request_id, evolve(facts, signals=signals))


def _gone(script: Script, arguments: list[str], options: Options) -> None:
    script.world.lose_client(arguments[0])


def _counted(script: Script, arguments: list[str], options: Options) -> None:
    command_id = script.work(arguments[0])
    assert isinstance(script.world.work[command_id], CountTokens)
    if "failed" in arguments:
        script.world.complete(TokenCountFailed(command_id=command_id, reason="no answer"))
    else:
        script.world.complete(TokensCounted(command_id=command_id, prompt_tokens=int(options["tokens"])))


def _answered(script: Script, arguments: list[str], options: Options) -> None:
    request_id, status = arguments
    retry_after_s = float(options["retry-after"]) if "retry-after" in options else None
    error = UpstreamError(
        message="the upstream's words", code=options.get("code"), retry_after_s=retry_after_s
    )
    script.world.complete(
        UpstreamAnswered(
            command_id=script.work(request_id),
            status=int(status),
            error=error if int(status) >= FIRST_ERROR_STATUS else None,
        )
    )


def _overflow(script: Script, arguments: list[str], options: Options) -> None:
    error = build.overflow(int(options["tokens"]))
    script.world.complete(UpstreamAnswered(command_id=script.work(arguments[0]), status=400, error=error))


def _failed(script: Script, arguments: list[str], options: Options) -> None:
    request_id, failure = arguments
    reason = REASONS.get(CallFailure(failure), "connection reset")
    event = UpstreamFailed(command_id=script.work(request_id), failure=CallFailure(failure), reason=reason)
    script.world.complete(event)


def _relayed(script: Script, arguments: list[str], options: Options) -> None:
    request_id, *failure = arguments
    command_id = script.work(request_id)
    if failure:
        kind, *resumable = failure
        event = RelayEnded(
            command_id=command_id,
            failure=RelayFailure(kind),
            reason=REASONS.get(RelayFailure(kind), "connection reset"),
            resumable=Resumable(resumable[0]) if resumable else Resumable.NO,
        )
    else:
        numbers = _numbers(options)
        usage = (
            Usage(prompt_tokens=numbers["prompt"], completion_tokens=numbers["answer"]) if numbers else None
        )
        event = RelayEnded(command_id=command_id, usage=usage, finish_reason="stop")
    script.world.complete(event)


def _spawned(script: Script, arguments: list[str], options: Options) -> None:
    (spawn,) = [spawn for spawn in script.world.spawns.values() if spawn.spec.label == arguments[0]]
    script.world.spawned(spawn)


def _spawn_failed(script: Script, arguments: list[str], options: Options) -> None:
    (spawn,) = [spawn for spawn in script.world.spawns.values() if spawn.spec.label == arguments[0]]
    script.world.spawn_failed(spawn, "no such file")


def _probed(health: Health) -> "Verb":
    def verb(script: Script, arguments: list[str], options: Options) -> None:
        engine_id = script.process(arguments[0])
        probe = [probe for probe in script.world.probes.values() if probe.engine_id == engine_id][-1]
        script.world.probed(EngineProbed(command_id=probe.command_id, health=health, **_numbers(options)))

    return verb


def _exited(script: Script, arguments: list[str], options: Options) -> None:
    label, *reason = arguments
    script.world.exited(script.process(label), " ".join(reason) or "exit code 0")


def _stop(script: Script, arguments: list[str], options: Options) -> None:
    names = [word for word in arguments if word != "force"]
    script.world.fleet_event(StopAsked(model=names[0] if names else None, force="force" in arguments))


def _shut_down(script: Script, arguments: list[str], options: Options) -> None:
    machine, *force = arguments
    event = ShutdownRequested(force=bool(force))
    if machine == "gateway":
        script.world.gateway_event(event)
    else:
        script.world.fleet_event(event)


def _reconnect(script: Script, arguments: list[str], options: Options) -> None:
    script.world.reconnect()


Verb = Callable[[Script, list[str], Options], None]

VERBS: Final[dict[str, Verb]] = {
    "model": _model,
    "server": _server,
    "route": _route,
    "budget": _budget,
    "estimated": _estimated,
    "reserved": _reserved,
    "learnt": _learnt,
    "reload": _reload,
    "request": _request,
    "gone": _gone,
    "counted": _counted,
    "answered": _answered,
    "overflow": _overflow,
    "failed": _failed,
    "relayed": _relayed,
    "spawned": _spawned,
    "spawn-failed": _spawn_failed,
    "loading": _probed(Health.LOADING),
    "ready": _probed(Health.READY),
    "unreachable": _probed(Health.UNREACHABLE),
    "exited": _exited,
    "stop": _stop,
    "shutdown": _shut_down,
    "reconnect": _reconnect,
}
