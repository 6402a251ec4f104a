"""`gw-cli`: the command. Each subcommand is a module of its own, loaded only when it is called."""

import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import click

from gatewright_cli import exits
from gatewright_cli.terminal import close_output, printable

COMMANDS: Final = {
    "ask": "Ask a model a question.",
    "models": "List the models.",
    "explain": "Say which model and variant a question would go to, and why.",
    "check": "Check the configuration.",
    "ps": "Show the engines.",
    "stop": "Stop engines.",
    "logs": "Show what the engines print.",
    "registry": "List and register models, with what they can do and cost.",
    "keys": "Make API keys, and say what they may do.",
    "feedback": "Say how good an answer was.",
    "experiments": "Show experiments, and stop or promote their arms.",
    "usage": "Show requests, tokens, money and time.",
    "ranking": "Show which model does which task best.",
    "report": "Report all figures, also as a page with plots.",
    "replay": "Replay a recorded trace, and show where it differs.",
    "verify": "Check a running gateway.",
    "version": "Print the version.",
}
"""Subcommands in the order of the help; module `gatewright_cli.NAME` holds each, as `command`."""


class Terminated(BaseException):
    """SIGTERM: everything is put in order on the way out, the terminal's cursor for one."""


class Interrupted(Exception):
    """Ctrl-C. Click writes an empty line for a `KeyboardInterrupt`, also where nobody looks."""


class Commands(click.Group):
    """Knows its subcommands by name and loads the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        """Load a subcommand; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"gatewright_cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's signature
        """List the subcommands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    no_args_is_help=False,
)
@click.version_option(package_name="gatewright", prog_name="gw-cli", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> int:
    """Ask language models on your own hardware, and look after the engines that run them.

    Try it without any configuration: gw-cli ask "What is Gatewright?"
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        return exits.USAGE
    return exits.DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `gw-cli`.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        One of `exits`.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(args)
    except Terminated:
        return exits.TERMINATED
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: object) -> None:  # noqa: ARG001  # a handler's
    raise Terminated


def _run(args: list[str]) -> int:
    try:
        status = cli.main(args=args, prog_name="gw-cli", standalone_mode=False)
    except click.UsageError as error:
        _complain(_usage_text(error))
        return exits.USAGE
    except click.ClickException as error:
        _complain(error.format_message())
        return error.exit_code
    except (Interrupted, KeyboardInterrupt, click.Abort):
        return exits.INTERRUPTED
    except BrokenPipeError:
        close_output()  # whoever read it has had enough
        return exits.DONE
    except Exception as error:  # noqa: BLE001  # what is not explained is raised again, or named a defect
        if isinstance(error.__context__, KeyboardInterrupt):
            return exits.INTERRUPTED  # it came in the midst of a wait for a lock, which fails for it
        return _explain_failure(error, verbose="-v" in args or "--verbose" in args)
    return int(status or 0)


def _complain(text: str) -> None:
    for line in text.splitlines():
        click.echo(f"gw-cli: {printable(line)}", err=True)


def _usage_text(error: click.UsageError) -> str:
    """One line, where click writes four."""
    path = error.ctx.command_path if error.ctx is not None else "gw-cli"
    return f"{error.format_message().rstrip('.')} (see {path} --help)"


def _explain_failure(error: Exception, *, verbose: bool) -> int:
    """A failure that no command saw coming, or saw and left to us."""
    from gatewright_cli.failures import explain  # noqa: PLC0415  # `gw-cli --help` needs none of what it knows

    explained = explain(error)
    if explained is None:
        if verbose:
            raise error
        _complain(f"a defect of this program: {type(error).__name__}: {error} (-v shows where)")
        return exits.FAILED
    _complain(explained.text)
    return explained.status
