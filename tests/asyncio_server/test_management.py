"""What the store holds, on a server that reads its configuration again."""

import json
import signal
from pathlib import Path

from tests.support.gateway import Gateway, wait_until

FAR = '{ name = "far", engine = presets.engines.openai, connect = "http://127.0.0.1:1" }'
NEW = '{ name = "new", engine = presets.engines.openai, connect = "http://127.0.0.1:1" }'


def names(gateway: Gateway) -> list[str]:
    _, _, body = gateway.request("GET", "/v1/models")
    return [model["id"] for model in json.loads(body)["data"]]


def test_registered_models_outlive_a_reload_and_a_restart():
    with Gateway(FAR) as gateway:
        registered = {"name": "mine", "connect": "http://127.0.0.1:1"}
        assert gateway.request("POST", "/api/models", registered)[0] == 201
        assert names(gateway) == ["far", "mine"]
        gateway.write_config(FAR, NEW)
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "configuration replaced" in gateway.log, "it has read its configuration again")
        assert names(gateway) == ["far", "new", "mine"]
        assert gateway.request("DELETE", "/api/models/mine")[0] == 204
        assert names(gateway) == ["far", "new"]
        assert gateway.request("POST", "/api/models", registered)[0] == 201
        gateway.stop()
        gateway.start()
        wait_until(lambda: names(gateway) == ["far", "new", "mine"], "it knows what it knew")


def test_the_file_wins_over_the_store():
    with Gateway(FAR) as gateway:
        registered = {"name": "new", "connect": "http://127.0.0.1:2", "quality": 0.125}
        assert gateway.request("POST", "/api/models", registered)[0] == 201
        gateway.write_config(FAR, NEW)
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "configuration replaced" in gateway.log, "it has read its configuration again")
        assert names(gateway) == ["far", "new"]
        _, _, body = gateway.request("GET", "/api/models/new")
        assert json.loads(body)["source"] == "config"
        assert gateway.request("DELETE", "/api/models/new")[0] == 409


def test_a_server_without_a_store_serves_and_says_so():
    with Gateway(FAR, more="store = { enabled = false }") as gateway:
        assert names(gateway) == ["far"]
        assert gateway.request("GET", "/api/keys")[0] == 503
        assert gateway.request("GET", "/metrics")[0] == 200


def test_a_store_that_is_away_from_the_start_lets_nobody_in_who_might_need_a_key():
    away = 'store = { url = "postgresql+psycopg://nobody@127.0.0.1:1/none" }'
    with Gateway(FAR, more=away) as gateway:
        status, headers, body = gateway.request("GET", "/v1/models")
        assert (status, json.loads(body)["error"]["code"]) == (503, "keys_unknown")
        assert headers["retry-after"] == "1"
        assert gateway.request("GET", "/health")[0] == 200
        assert "until it can be read, requests are refused with 503 keys_unknown" in gateway.log
        assert "Requests go on" not in gateway.log
    with Gateway(FAR, server='api_keys = { "key" }', more=away) as gateway:
        assert gateway.request("GET", "/v1/models", headers={"x-api-key": "key"})[0] == 200


def test_a_first_start_without_a_usable_store_recovers_by_itself(tmp_path: Path):
    directory = tmp_path / "not-there-yet"
    with Gateway(FAR, more=f'store = {{ url = "sqlite:///{directory}/store.db" }}') as gateway:
        status, _, body = gateway.request("GET", "/v1/models")
        error = json.loads(body)["error"]
        assert (status, error["code"]) == (503, "keys_unknown")
        assert "`store.url`" in error["message"]
        assert str(directory) not in error["message"], "whoever has no key need not know"
        (line,) = [line for line in gateway.log.splitlines() if " error " in line]
        for said in (f"{directory}/store.db", "No such file or directory", "`store.url`", "keys_unknown"):
            assert said in line
        directory.mkdir()
        wait_until(lambda: gateway.request("GET", "/v1/models")[0] == 200, "it has opened the store")
        assert "the store can be used again" in gateway.log


def test_names_that_clients_make_up_are_no_labels():
    with Gateway(FAR) as gateway:
        for number in range(3):
            body = {"model": f"made-up-{number}", "messages": [{"role": "user", "content": "Hi"}]}
            assert gateway.request("POST", "/v1/chat/completions", body)[0] == 404
        shown = gateway.request("GET", "/metrics")[2].decode()
        assert "made-up" not in shown
        counted = 'gatewright_errors_total{kind="ModelNotFound",model=""} 3.0'
        assert counted in shown
        usage = json.loads(gateway.request("GET", "/api/usage?by=model")[2])["data"]
        assert [(row["model"], row["requests"]) for row in usage] == [("", 3)]
