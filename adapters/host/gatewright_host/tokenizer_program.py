"""Counting tokens with a standalone program, in the manner of `llama-tokenize --stdin --ids --log-disable`."""

import os
import re
import signal
import subprocess
from typing import Final

from gatewright.config import Tokenization
from gatewright_host.engine_log import clean
from gatewright_host.process_group import kill_group

_IDS: Final = re.compile(rb"\[([\d\s,]*)\]")
_ID: Final = re.compile(rb"\d+")
_LONGEST_SAYING: Final = 200


class TokenizerFailed(Exception):  # what happened, as in `gatewright.errors`
    """The program did not count; the message is one line for people."""


def count_with_program(tokenization: Tokenization, text: str, messages: int, timeout_s: float = 30.0) -> int:
    """Tokens of a prompt: those of its text as the program counts them, and the template's as configured.

    Blocks while the program runs.

    Args:
        tokenization: The program.
        text: Goes to its standard input.
        messages: Number of messages of the request.
        timeout_s: After so long the program is killed.

    Raises:
        TokenizerFailed: It cannot be run, fails, takes too long, or prints no list of token ids.
    """
    output = _run(tokenization, text.encode("utf-8", "replace"), timeout_s)
    lists = _IDS.findall(output)
    if not lists:
        raise TokenizerFailed(f"{_name(tokenization)} printed no list of token ids such as [1, 2, 3]")
    # What comes before the last list may be a log line that was not disabled.
    tokens = sum(1 for _ in _ID.finditer(lists[-1]))
    return tokens + tokenization.extra_tokens + messages * tokenization.extra_tokens_per_message


def _run(tokenization: Tokenization, text: bytes, timeout_s: float) -> bytes:
    name = _name(tokenization)
    try:
        program = subprocess.Popen(  # noqa: S603  # running what the user configured is what we are for
            [tokenization.binary, *tokenization.args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise TokenizerFailed(f"{tokenization.binary}: {reason}") from error
    with program:
        try:
            output, errors = program.communicate(text, timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TokenizerFailed(f"{name} did not count within {timeout_s:g} s") from error
        finally:
            # Whatever happened: it and its children go, and with them whoever holds the pipes open.
            kill_group(program.pid, signal.SIGKILL)
    if program.returncode != 0:
        raise TokenizerFailed(f"{name} ended with exit code {program.returncode}{_last_words(errors)}")
    return output


def _name(tokenization: Tokenization) -> str:
    return os.path.basename(tokenization.binary)  # noqa: PTH119  # of a text that need not be a path


def _last_words(errors: bytes) -> str:
    lines = [line for line in map(clean, errors.splitlines()) if line]
    return f": {lines[-1][:_LONGEST_SAYING]}" if lines else ""
