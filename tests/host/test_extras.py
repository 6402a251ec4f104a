"""What is missing can be had by the command that is shown."""

import json
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from gatewright_host import extras

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (
            {"url": "file:///home/you/gatewright", "dir_info": {"editable": True}},
            "-e '/home/you/gatewright[report]'",
        ),
        ({"url": "file:///home/you/my%20clone", "dir_info": {}}, "'/home/you/my clone[report]'"),
        ({"url": "https://example.com/gatewright.whl", "archive_info": {}}, "'gatewright[report]'"),
        (None, "'gatewright[report]'"),
    ],
)
def test_an_extra_comes_from_where_the_package_came_from(origin, words, monkeypatch):
    text = None if origin is None else json.dumps(origin)
    monkeypatch.setattr(
        "importlib.metadata.distribution", lambda _: SimpleNamespace(read_text=lambda _: text)
    )
    monkeypatch.setattr(sys, "executable", "/venv/bin/python")
    assert extras.how_to_install("report") == f"/venv/bin/python -m pip install {words}"


def test_without_any_installation_the_name_has_to_do(monkeypatch):
    def missing(_: str) -> None:
        raise PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.distribution", missing)
    assert extras.how_to_install("wsgi").endswith(" -m pip install 'gatewright[wsgi]'")


def test_here_it_is_this_folder():
    assert extras.how_to_install("report").endswith(f" -m pip install -e '{ROOT}[report]'")
