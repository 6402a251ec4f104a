"""`gw-cli ask`: the answer on standard output as it comes, everything else on standard error."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from attrs import evolve

from gatewright.api.counting import prompt_text
from gatewright.commands import Outcome, RecordRequest
from gatewright.config import Config
from gatewright.leases import LeaseNews
from gatewright.route_config import RouteConfig
from gatewright_cli import exits
from gatewright_cli.answer import AnswerReader
from gatewright_cli.asking import Asking, TimedOut
from gatewright_cli.choosing import ChosenTarget, choose_target
from gatewright_cli.decisions import decision_lines
from gatewright_cli.options import Common, common_options
from gatewright_cli.progress import Progress
from gatewright_cli.question import Question, QuestionRequest, join_prompt, make_request, read_schema
from gatewright_cli.refused import refusal_text
from gatewright_cli.terminal import Terminal, close_output, printable
from gatewright_cli.wishing import wish_options
from gatewright_host.blocking.service import Service
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.state_dir import StateDir
from gatewright_host.store.spool import Spool
from gatewright_host.store.vocabulary import Written
from gatewright_host.trace_file import open_trace

DEMO_NOTE: Final = (
    "this is the bundled demo model; ask a real one with --model FILE.gguf, or write a gatewright.lua"
)
_PAST_TIMEOUT_S: Final = 3.0


@click.command()
@click.argument("words", metavar="[PROMPT]...", nargs=-1)
@click.option(
    "-m",
    "--model",
    metavar="MODEL",
    help="A configured model, a route, or a GGUF file.  [default: the configuration's]",
)
@click.option("-s", "--system", metavar="TEXT", help="System prompt.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Longest answer, in tokens.")
@click.option(
    "-t",
    "--temperature",
    type=click.FloatRange(min=0),
    metavar="T",
    help="0 for the likeliest answer, more for variety.  [default: the engine's]",
)
@click.option(
    "--schema",
    "schema_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Answer in JSON of this schema.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the API's whole response instead of the answer's text."
)
@click.option("--no-stream", is_flag=True, help="Print the answer when it is complete.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Give up after so many seconds.  [default: never]",
)
@wish_options
@common_options
def command(
    common: Common,
    /,
    *,
    words: tuple[str, ...],
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    schema_path: Path | None,
    as_json: bool,
    no_stream: bool,
    timeout_s: float | None,
    wishes: dict[str, Any],
) -> int:
    """Ask a model a question, and print its answer as it comes.

    The prompt is what is given as arguments; what is piped in is added to it after a blank line. An engine is started
    if none is ready, and stays for the next question.

    A route, such as auto, chooses the model that suits best; --task and what follows it say what matters.
    """
    question = Question(
        prompt=join_prompt(words),
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
        schema=read_schema(schema_path) if schema_path is not None else None,
        stream=not (no_stream or as_json),
        wishes=wishes,
    )
    found = choose_target(common, model)
    if found.chosen.is_demo:
        click.echo(f"gw-cli: {DEMO_NOTE}", err=True)
    conversation = _Conversation(common, found, as_json=as_json, whole=not question.stream)
    return conversation.ask(make_request(found.name, question, found.chosen.config), timeout_s)


class _Conversation:
    """One question and its answer, between a person or a pipe and the model.

    Args:
        common: Common options.
        found: The model or the route.
        as_json: Print the whole response.
        whole: The answer comes in one piece.
    """

    def __init__(self, common: Common, found: ChosenTarget, *, as_json: bool, whole: bool) -> None:
        self._common = common
        self._found = found
        self._terminal = Terminal()
        self._thinks = False
        self._answer = AnswerReader(self._print, self._think, whole=as_json)
        shown = self._terminal.err_is_terminal and not common.verbose
        self._progress = Progress(found.name, shown=shown, whole=whole)

    def ask(self, request: QuestionRequest, timeout_s: float | None) -> int:
        """Put the question, print the answer, and return the exit code."""
        config = self._found.chosen.config
        state = self._common.state(config)
        # The end of the process closes the trace: a request that is given up may go on writing to it.
        trace = open_trace(os.environ)
        needs_store = isinstance(self._found.target, RouteConfig) or bool(config.budgets)
        service = Service(
            _without_judges(config),
            lambda: BlockingHostClient.connect(state),
            trace=trace,
            on_news=self._hear,
            state=state if needs_store else None,
        )
        if isinstance(self._found.target, RouteConfig) and service.keeper is not None:
            # The choice goes by what was learnt; without it, it is made all the same.
            service.keeper.wait_ready(_PAST_TIMEOUT_S)
        asking = Asking(service, request, self._answer, self._progress)
        try:
            record = asking.run(timeout_s)
        except TimedOut:
            self._terminal.end_line()
            return self._fail(f"no complete answer within {timeout_s:g} s")
        except KeyboardInterrupt:
            if self._terminal.out_is_terminal:
                self._terminal.end_line()
            return exits.INTERRUPTED
        # Not after a failure: whatever hangs would hang here, and the end of the process closes everything as well.
        service.close()
        status = self._conclude(record)
        if not needs_store and config.store.enabled:
            self._leave_record(record, state, request)
        return status

    def _leave_record(self, record: RecordRequest, state: StateDir, request: QuestionRequest) -> None:
        """For whoever has the store open next: to load it would take longer than many a question."""
        now_s = time.time()
        keeps_prompt = self._found.chosen.config.store.prompts
        written = Written(
            record=record,
            at_s=now_s,
            gateway_epoch_s=now_s - time.monotonic(),
            prompt=prompt_text(request.facts, request.body) if keeps_prompt else None,
        )
        try:
            Spool(state.path).add(written)
        except OSError as error:
            if self._common.verbose:
                click.echo(f"gw-cli: not recorded: {error}", err=True)

    def _conclude(self, record: RecordRequest) -> int:
        if self._answer.reader_gone:
            close_output()
            return exits.DONE
        failure = self._answer.failure
        if failure is None and record.outcome is not Outcome.ANSWERED:
            failure = record.problem.message if record.problem is not None else f"request {record.outcome}"
        if failure is not None:
            failure = refusal_text(self._found.chosen.config, record, self._answer.refusal) or failure
        if self._answer.body:
            self._print(_as_text(self._answer.body, indented=self._terminal.out_is_terminal))
        self._terminal.end_line()
        if self._common.verbose:
            for line in decision_lines(record):
                click.echo(f"gw-cli: {printable(line)}", err=True)
            for failed in dict.fromkeys(record.failed_attempts):
                status = f" ({failed.upstream_status})" if failed.upstream_status is not None else ""
                click.echo(f"gw-cli: in vain: {failed.model}{status}: {printable(failed.message)}", err=True)
            click.echo(f"gw-cli: {_statistics(record)}", err=True)
        if failure is not None:
            return self._fail(failure)
        if self._answer.finish_reason == "length":
            self._terminal.note("(cut short: the limit of tokens is reached)")
        elif not self._terminal.is_used:
            self._terminal.note("(the answer is empty)")
        return exits.DONE

    def _fail(self, reason: str) -> int:
        click.echo(f"gw-cli: {printable(' '.join(reason.split()))}", err=True)
        return exits.FAILED

    # --- called by the request's thread

    def _print(self, text: str) -> None:
        self._progress.stop()
        if self._thinks:
            self._thinks = False
            self._terminal.dim_end()
        self._terminal.write(text)

    def _think(self, text: str) -> None:
        self._progress.stop()
        self._thinks = True
        self._terminal.dim(text)

    def _hear(self, news: LeaseNews) -> None:
        self._progress.hear(news)


def _without_judges(config: Config) -> Config:
    """Nobody stays to hear what a judge says of the answer."""
    if all(route.judge is None for route in config.routes):
        return config
    return evolve(config, routes=tuple(evolve(route, judge=None) for route in config.routes))


def _as_text(body: bytes, *, indented: bool) -> str:
    if indented:
        with suppress(msgspec.DecodeError):  # shown as it is, then
            body = msgspec.json.format(body, indent=2)
    return body.decode("utf-8", "replace")


def _statistics(record: RecordRequest) -> str:
    parts = [f"{record.model}@{record.context_tokens}", f"{record.outcome}"]
    if record.usage is not None:
        usage = record.usage
        parts.append(
            f"{usage.prompt_tokens} tokens in ({usage.cached_tokens} cached), {usage.completion_tokens} out"
        )
    if record.first_byte_s is not None:
        parts.append(f"first byte after {record.first_byte_s:.2f} s")
    parts.append(f"{record.total_s:.2f} s in all, {record.wait_s:.2f} s for the engine")
    if record.attempts > 1:
        parts.append(f"{record.attempts} attempts")
    return ", ".join(parts)
