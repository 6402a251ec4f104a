"""The engines behind a model: what to run, where to reach it, how long it may take."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from attrs import evolve, field, frozen

from gatewright.configuration.args import PORT_PLACEHOLDER, flag_value, slots, unknown_placeholders
from gatewright.configuration.calls import CALL_FIELDS
from gatewright.configuration.profiles import PROFILE_FIELDS
from gatewright.configuration.reader import (
    COUNT,
    SECONDS,
    TEXT,
    ListOf,
    Place,
    Scalar,
    Secret,
    Table,
    TableOf,
    as_list,
    real_number,
    usable_text,
    whole_number,
)
from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS, EngineSpec, EngineTimeouts, ProcessSpec

TIMEOUT_FIELDS: Final[Mapping[str, str]] = {
    "health_check_timeout": "health_check_s",
    "engine_startup_timeout": "startup_s",
    "engine_idle_timeout": "idle_s",
    "engine_stop_timeout": "stop_s",
}
"""Timeouts that cascade from server over model to variant, and their names in `EngineTimeouts`."""

RUN_FIELDS: Final = ("binary", "args", "connect", "parallel", "env", "work_dir", *TIMEOUT_FIELDS)
"""Fields of a variant for which the model may give a default."""

VARIANT_FIELDS: Final = ("context", *RUN_FIELDS)

REMOTE_FIELDS: Final = ("connect", "context", "upstream_model", "api_key_env", "parallel", *TIMEOUT_FIELDS)
"""Fields of a model behind a remote provider that concern its engine."""

MODEL_FIELDS: Final = (
    "name",
    "aliases",
    "engine",
    "tokenization",
    "answer_tokens",
    "margin",
    "max_oversize",
    "transform",
    *CALL_FIELDS,
    *PROFILE_FIELDS,
)
"""Fields of a model of any engine type that do not concern its engine."""
_LOCAL_CONNECT: Final = f"http://127.0.0.1:{PORT_PLACEHOLDER}"
_PLACEHOLDER_PORT: Final = 65_535
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_timeouts(table: Table, base: EngineTimeouts) -> EngineTimeouts:
    """The table's own timeouts over those of the level above."""
    found = {attribute: table.find(name, SECONDS) for name, attribute in TIMEOUT_FIELDS.items()}
    return evolve(base, **{attribute: value for attribute, value in found.items() if value is not None})


def _argument(value: object) -> str | None:
    """One argument; numbers are written without the `.0` that Lua's arithmetic leaves."""
    if value == "":
        return ""
    whole, real = whole_number(value), real_number(value)
    if whole is not None:
        return str(whole)
    return usable_text(value) if real is None else str(real)


_ARGUMENT: Final = Scalar("a string or a number", _argument)


@frozen
class _Arguments:
    """A list of arguments, in which `${PORT}` is the only placeholder."""

    expected: str = 'a list of strings such as { "-m", "model.gguf", "-c", "4096" }'

    def read(self, value: object, place: Place) -> tuple[str, ...] | None:
        if as_list(value) is None:
            place.refuse(value, self.expected)
            return None
        args = ListOf(_ARGUMENT).read(value, place)
        for unknown in [name for arg in args or () for name in unknown_placeholders(arg)]:
            place.report(f"{unknown} is not replaced by anything; only {PORT_PLACEHOLDER} is")
        return args


ARGUMENTS: Final = _Arguments()


@frozen
class _Environment:
    """A map of environment variables, whose values no message shows."""

    expected: str = 'a table such as { CUDA_VISIBLE_DEVICES = "0" }'

    def read(self, value: object, place: Place) -> dict[str, str] | None:
        table = TableOf(self.expected).read(value, evolve(place, secret=True))
        if table is None:
            return None
        env = {}
        for name, setting in table.values.items():
            if usable_text(name) is None or "=" in str(name):
                table.place.field(name).report(
                    'not a name for an environment variable; expected NAME = "value"'
                )
                continue
            text = _ARGUMENT.read(setting, table.place.field(name))
            if text is not None:
                env[str(name)] = text
        return env


@frozen
class _Url:
    """A base URL without the API path; `/v1` and slashes at its end are dropped."""

    example: str

    @property
    def expected(self) -> str:
        return f'an http or https URL such as "{self.example}"'

    def read(self, value: object, place: Place) -> str | None:
        text = usable_text(value)
        if text is not None and any(mark in text for mark in "@?#"):  # may hold a password or key
            place.report(f'expected a URL without user name, query and fragment, such as "{self.example}"')
            return None
        parts = None if text is None else _split_url(text)
        if text is None or parts is None:
            place.refuse(value, self.expected)
            return None
        if parts.path.endswith("/completions"):
            place.refuse(value, f"{self.expected}; the API's path is added to it")
            return None
        return text.rstrip("/").removesuffix("/v1").rstrip("/")


def _split_url(text: str) -> SplitResult | None:
    """The parts of the URL; None if a client could not use it."""
    if any(c.isspace() or not c.isprintable() for c in text) or unknown_placeholders(text):
        return None
    try:
        parts = urlsplit(text.replace(PORT_PLACEHOLDER, str(_PLACEHOLDER_PORT)))
        port = parts.port
    except ValueError:
        return None
    if PORT_PLACEHOLDER in text and port != _PLACEHOLDER_PORT:
        return None  # it stands somewhere else
    return parts if parts.scheme in ("http", "https") and parts.hostname else None


_LOCAL_URL: Final = _Url("http://127.0.0.1:8081")
REMOTE_URL: Final = _Url("https://api.example.com/v1")
_CONTEXT: Final = Scalar(
    "a whole number of tokens above 0",
    lambda value: number if (number := whole_number(value)) is not None and number > 0 else None,
)


@frozen
class _Run:
    """What a variant, or the model for all its variants, says about the process."""

    binary: str | None = None
    args: tuple[str, ...] = ()
    connect: str | None = None
    parallel: int | None = None
    env: Mapping[str, str] = field(factory=dict)
    work_dir: str | None = None
    timeouts: EngineTimeouts = field(factory=EngineTimeouts)


def _read_run(table: Table, base: _Run) -> _Run:
    return _Run(
        binary=table.find("binary", TEXT) or base.binary,
        args=table.get("args", ARGUMENTS, base.args),
        connect=table.find("connect", _LOCAL_URL) or base.connect,
        parallel=table.find("parallel", COUNT) or base.parallel,
        env={**base.env, **table.get("env", _Environment(), {})},
        work_dir=table.find("work_dir", TEXT) or base.work_dir,
        timeouts=read_timeouts(table, base.timeouts),
    )


def local_variants(
    model: Table, name: str, place_name: str, timeouts: EngineTimeouts
) -> tuple[EngineSpec, ...]:
    """The variants of a model that runs here, by ascending context.

    Args:
        model: The model's table.
        name: The model's name.
        place_name: `EngineSpec.place` of every variant.
        timeouts: The server's.
    """
    base = _read_run(model, _Run(timeouts=timeouts))
    variant = TableOf("a variant { binary = ..., args = { ... }, context = ... }")
    tables = model.require("variants", ListOf(variant))
    if tables == () and as_list(model.values["variants"]) == []:
        model.place.field("variants").report("empty; expected at least one variant")
    found: dict[int, tuple[EngineSpec, Place]] = {}
    for table in tables or ():
        spec = _read_variant(
            table, EngineSpec(model=name, context_tokens=0, connect="", place=place_name), base
        )
        if spec is None:
            continue
        if spec.context_tokens in found:
            other = found[spec.context_tokens][1].path
            table.place.field("context").report(f"{spec.context_tokens} is already the context of {other}")
        found.setdefault(spec.context_tokens, (spec, table.place))
    return tuple(spec for _, (spec, _) in sorted(found.items()))


def _read_variant(table: Table, blank: EngineSpec, base: _Run) -> EngineSpec | None:
    problems_before = len(table.place.problems)
    run = _read_run(table, base)
    context = table.require("context", _CONTEXT)
    if run.binary is None and "binary" not in table:
        table.require("binary", TEXT)
    table.expect_only(
        VARIANT_FIELDS, dict.fromkeys(MODEL_FIELDS, "belongs into the model, not into a variant")
    )
    if len(table.place.problems) > problems_before or run.binary is None or context is None:
        return None  # what follows would only repeat it
    connect = _reachable_at(run, table.place)
    if connect is None:
        return None
    process = ProcessSpec(
        binary=run.binary, args=run.args, env=tuple(sorted(run.env.items())), work_dir=run.work_dir
    )
    return evolve(
        blank,
        context_tokens=context,
        connect=connect,
        process=process,
        parallel=run.parallel or slots(run.args),
        timeouts=run.timeouts,
    )


def _reachable_at(run: _Run, place: Place) -> str | None:
    """The URL of the engine that listens where its arguments say."""
    args_choose = any(PORT_PLACEHOLDER in text for text in (*run.args, *run.env.values()))
    where = place.field("connect")
    if run.connect is None:
        if args_choose:
            return _LOCAL_CONNECT
        port = flag_value(run.args, "--port")
        url = f"http://127.0.0.1:{port}" if port else _LOCAL_URL.example
        where.report(
            f'missing; expected the URL at which the engine listens, such as connect = "{url}", '
            f'or "--port", "{PORT_PLACEHOLDER}" in args to have a free port chosen'
        )
        return None
    if args_choose and PORT_PLACEHOLDER not in run.connect:
        where.report(
            f'"{run.connect}" has a fixed port, but args contain {PORT_PLACEHOLDER}, so the port is chosen at start; '
            f'write connect = "{_LOCAL_CONNECT}", or the fixed port in both'
        )
        return None
    if not args_choose and PORT_PLACEHOLDER in run.connect:
        where.report(
            f'"{run.connect}" contains {PORT_PLACEHOLDER}, but args do not, so the engine would not learn its port; '
            f'add "--port", "{PORT_PLACEHOLDER}" to args, or write the fixed port in both'
        )
        return None
    return run.connect


def _variable_name(value: object) -> str | None:
    return value if isinstance(value, str) and _VARIABLE_NAME.fullmatch(value) else None


VARIABLE: Final = Secret(
    Scalar('the name of an environment variable, such as "OPENAI_API_KEY"', _variable_name)
)
"""Somebody may have put the key itself there, which no message shows."""


def remote_variant(model: Table, name: str, timeouts: EngineTimeouts) -> tuple[EngineSpec, ...]:
    """The single engine of a model behind an OpenAI-compatible provider."""
    connect = model.require("connect", REMOTE_URL)
    spec = EngineSpec(
        model=name,
        context_tokens=model.get("context", _CONTEXT, UNBOUNDED_CONTEXT_TOKENS),
        connect=connect or "",
        place=f"remote:{name}",
        parallel=model.find("parallel", COUNT),
        timeouts=read_timeouts(model, timeouts),
        upstream_model=model.find("upstream_model", TEXT),
        api_key_env=model.find("api_key_env", VARIABLE),
    )
    if connect is not None and PORT_PLACEHOLDER in connect:
        model.place.field("connect").report(f"{PORT_PLACEHOLDER} is for engines that are started here")
    return (spec,)
