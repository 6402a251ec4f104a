"""Where this installation has what comes with it: the embedded engine and the demo model."""

import os
import sys
from pathlib import Path
from typing import Final

_SUFFIX: Final = ".exe" if os.name == "nt" else ""


def engine_script() -> Path:
    """The program `gatewright-engine`, which stands beside the Python that runs; that it is there is not checked."""
    return Path(sys.executable).with_name("gatewright-engine" + _SUFFIX)


def demo_model() -> Path:
    """The GGUF file of the demo model."""
    from importlib.resources import files  # noqa: PLC0415  # costs more than what else most commands import

    return Path(str(files("gatewright_host") / "data" / "demo.gguf"))
