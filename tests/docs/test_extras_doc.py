"""Extras that are named somewhere exist, and what is said to install them does so in a clone."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXTRAS = set(
    tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
)
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_commands_install_extras_that_there_are_from_the_clone(path):
    for target in re.findall(r"pip install (?:-e )?'?([^\s'`]*\[[^\]]*\])", path.read_text(encoding="utf-8")):
        folder, _, extras = target.removesuffix("]").partition("[")
        assert folder in {".", "FOLDER"}, target
        assert set(extras.split(",")) <= EXTRAS


def test_the_table_of_extras_is_complete():
    section = README.partition("\n## Extras\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == EXTRAS


def test_programs_name_extras_that_there_are():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "adapters").rglob("*.py")]
    named = [name for text in sources for name in re.findall(r"""how_to_install\(["'](\w+)["']\)""", text)]
    assert set(named) == {"engine", "learned", "library", "postgres", "report"}
    assert not [text for text in sources if "install gatewright[" in text or "install 'gatewright[" in text]
