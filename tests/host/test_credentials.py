import logging

import pytest

from gatewright_host import credentials
from gatewright_host.config_files import load_config
from gatewright_host.credentials import credential, missing_credentials
from tests.support.configs import local_model, read, remote_model


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    monkeypatch.setattr(credentials, "_told", set())


def test_the_key_of_a_call_comes_from_the_environment(caplog):
    assert credential("A_KEY", {"A_KEY": "sk-1"}) == "sk-1"
    assert credential(None, {"A_KEY": "sk-1"}) is None
    assert caplog.records == []


@pytest.mark.parametrize("env", [{}, {"A_KEY": ""}, {"A_KEY": " \n"}])
def test_a_call_without_its_key_is_logged_once(env, caplog):
    for _ in range(3):
        assert credential("A_KEY", env) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "the environment variable A_KEY (api_key_env) is not set: calls go out without a key"
    )
    credential("B_KEY", env)
    assert len(caplog.records) == 2


def test_models_whose_variable_is_not_set_are_named():
    config = read(
        local_model(),
        remote_model(name="a", api_key_env="A_KEY"),
        remote_model(name="b", api_key_env="B_KEY"),
        remote_model(name="free"),
        {"name": "gpt-4o", "provider": "openai"},
        {"name": "own", "provider": "ollama"},
        {"name": "guarded", "provider": "vllm", "api_key_env": "A_KEY"},
    )
    assert list(missing_credentials(config, {"B_KEY": "sk-2"})) == [
        "a, guarded: api_key_env: the environment variable A_KEY is not set in this environment: they are called without a key",
        "gpt-4o: api_key_env: the environment variable OPENAI_API_KEY is not set in this environment: it is called without a key",
    ]
    assert list(missing_credentials(config, dict.fromkeys(("A_KEY", "B_KEY", "OPENAI_API_KEY"), "k"))) == []


def test_a_thousand_models_make_one_line():
    config = read(*[remote_model(name=f"m{number}", api_key_env="A_KEY") for number in range(1000)])
    (line,) = missing_credentials(config, {})
    assert line.startswith("m0, m1, m2, m3, m4 and 995 more: api_key_env: ")


def test_what_may_be_the_key_itself_is_not_shown(caplog):
    key = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"
    (line,) = missing_credentials(read(remote_model(api_key_env=key)), {})
    credential(key, {})
    assert "variable hf_A… is" in line
    assert "variable hf_A… (" in caplog.text
    assert key[5:] not in line + caplog.text


def test_loading_a_configuration_tells(tmp_path, monkeypatch):
    path = tmp_path / "gatewright.lua"
    path.write_text('server = {}\nmodels = { { name = "gpt-4o", provider = "openai" } }\n')
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (warning,) = load_config(path).warnings
    assert warning.startswith("gpt-4o: api_key_env: the environment variable OPENAI_API_KEY is not set")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    assert load_config(path).warnings == ()
