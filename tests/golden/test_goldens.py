"""Each script in this folder, run anew, is what it was; `GATEWRIGHT_REGEN_GOLDENS=1 pytest tests/golden` rewrites them."""

import os
from pathlib import Path

import pytest

from tests.golden.script import run_script

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))
REGENERATE = os.environ.get("GATEWRIGHT_REGEN_GOLDENS") == "1"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_golden(path):
    text = path.read_text()
    told = run_script(text)
    if REGENERATE:
        path.write_text(told)
    assert told == text or REGENERATE


def test_there_are_scripts():
    assert len(SCRIPTS) >= 10


def test_an_unknown_verb_is_named():
    with pytest.raises(ValueError, match="unknown verb 'frobnicate'"):
        run_script("model qwen 4096\n@0 frobnicate\n")
