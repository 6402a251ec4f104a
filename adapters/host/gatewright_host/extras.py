"""What to type where an optional package is missing, for the installation that this is."""

import json
import shlex
import sys
from urllib.parse import unquote, urlsplit


def how_to_install(extra: str) -> str:
    """The command that adds one of the package's extras to the running Python.

    Args:
        extra: Its name in `pyproject.toml`.
    """
    folder, is_editable = _folder()
    # A folder is named by its path: which folder the reader is in, nobody knows.
    source = "gatewright" if folder is None else folder
    words = [sys.executable or "python3", "-m", "pip", "install", *["-e"] * is_editable, f"{source}[{extra}]"]
    return shlex.join(words)


def _folder() -> tuple[str | None, bool]:
    """The folder that Gatewright was installed from, if it was from one, and whether it still runs there."""
    from importlib import metadata  # noqa: PLC0415  # takes the parser of mails with it, and few need this

    try:
        origin = json.loads(metadata.distribution("gatewright").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return None, False
    address = urlsplit(origin.get("url", ""))
    if address.scheme != "file" or "dir_info" not in origin:
        return None, False
    return unquote(address.path), bool(origin["dir_info"].get("editable"))
