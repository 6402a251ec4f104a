from pathlib import Path

import pytest

from gatewright.api.transforms import Transform
from gatewright.config import EngineKind, TcpListener, Tokenization, UnixListener
from gatewright.engines.spec import EngineTimeouts
from gatewright.errors import ConfigError
from gatewright.route_config import StoreConfig
from gatewright.selection.criteria import WEIGHTS, Prefer
from gatewright_host.config_files import LoadedConfig, find_config, load_config
from gatewright_host.extras import how_to_install

PROTOTYPE = Path(__file__).parents[1] / "data" / "prototype.lua"


@pytest.fixture
def home(tmp_path, monkeypatch):
    directory = tmp_path / "home"
    (directory / "config").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(directory / "config"))
    return directory


@pytest.fixture
def load(tmp_path, home):
    def run(source: str) -> LoadedConfig:
        path = tmp_path / "gatewright.lua"
        path.write_text(source)
        return load_config(path)

    return run


def engine(fields: str, rest: str = "") -> str:
    return f"""
    server = {{}}
    models = {{ {{ name = "m", {rest} variants = {{
      {{ args = {{ "--port", "${{PORT}}" }}, context = 8192, {fields} }} }} }} }}
    """


# --- finding ---


@pytest.fixture
def places(tmp_path, home, monkeypatch):
    monkeypatch.setattr("platformdirs.user_config_path", lambda name: home / "config" / name)
    cwd = tmp_path / "cwd"
    (home / "config" / "gatewright").mkdir()
    cwd.mkdir()
    return {
        "explicit": tmp_path / "explicit.lua",
        "env": tmp_path / "env.lua",
        "cwd": cwd / "gatewright.lua",
        "user": home / "config" / "gatewright" / "gatewright.lua",
    }


def test_the_order_of_places(places):
    cwd = places["cwd"].parent
    env = {"GATEWRIGHT_CONFIG": str(places["env"])}
    assert find_config(None, {}, cwd) is None
    places["user"].touch()
    assert find_config(None, {}, cwd) == places["user"]
    places["cwd"].touch()
    assert find_config(None, {}, cwd) == places["cwd"]
    places["env"].touch()
    assert find_config(None, env, cwd) == places["env"]
    places["explicit"].touch()
    assert find_config(places["explicit"], env, cwd) == places["explicit"]


def test_what_is_named_has_to_be_there(places):
    cwd = places["cwd"].parent
    places["cwd"].touch()
    with pytest.raises(ConfigError, match=r"^other\.lua: no such file$"):
        find_config(Path("other.lua"), {}, cwd)
    with pytest.raises(ConfigError, match=r"^GATEWRIGHT_CONFIG=other\.lua: no such file$"):
        find_config(None, {"GATEWRIGHT_CONFIG": "other.lua"}, cwd)
    with pytest.raises(ConfigError, match=r"^\.: is a directory$"):
        find_config(Path(), {}, cwd)
    assert find_config(None, {"GATEWRIGHT_CONFIG": ""}, cwd) == places["cwd"]


def test_names_are_relative_to_the_directory_and_the_home(places, home):
    cwd = places["cwd"].parent
    places["cwd"].touch()
    assert find_config(Path("gatewright.lua"), {}, cwd) == places["cwd"]
    assert find_config(None, {"GATEWRIGHT_CONFIG": "gatewright.lua"}, cwd) == places["cwd"]
    (home / "mine.lua").touch()
    assert find_config(Path("~/mine.lua"), {}, cwd) == home / "mine.lua"
    with pytest.raises(ConfigError, match="no such file"):
        find_config(Path("~no-such-user/mine.lua"), {}, cwd)


# --- loading ---


def test_problems_name_the_file(load):
    with pytest.raises(ConfigError) as caught:
        load("server = { opem = true }")
    assert caught.value.problems[0] == 'gatewright.lua: server.opem: unknown field; did you mean "open"?'
    assert caught.value.problems[1].startswith("gatewright.lua: models: missing")
    with pytest.raises(ConfigError, match=r"^gatewright\.lua:1: "):
        load("server = ")


def test_paths_start_at_the_file_and_at_home(load, tmp_path, home):
    loaded = load(
        """
        server = { state_dir = "state", dumps_dir = "~/dumps", listen_unix = { "gw.sock", "/run/gw.sock" } }
        models = {
          { name = "m", tokenization = { binary = "./tok" }, variants = {
            { binary = "bin/llama", work_dir = "work", args = { "--port", "${PORT}" }, context = 1 },
            { binary = "~/llama", args = { "--port", "${PORT}" }, context = 2 },
            { binary = "/abs/llama", args = { "--port", "${PORT}" }, context = 3 },
            { binary = "llama", args = { "--port", "${PORT}" }, context = 4 },
          } },
          { name = "r", engine = presets.engines.openai, connect = "https://example.com" },
        }
        """
    )
    server, (model, _) = loaded.config.server, loaded.config.models
    assert loaded.path == tmp_path / "gatewright.lua"
    assert server.state_dir == str(tmp_path / "state")
    assert server.dumps_dir == str(home / "dumps")
    assert server.listen == (UnixListener(path=str(tmp_path / "gw.sock")), UnixListener(path="/run/gw.sock"))
    assert model.tokenization is not None
    assert model.tokenization.binary == str(tmp_path / "tok")
    processes = [spec.process for spec in model.variants]
    assert [process.binary for process in processes if process] == [
        str(tmp_path / "bin/llama"),
        str(home / "llama"),
        "/abs/llama",
        "llama",
    ]
    assert processes[0] is not None
    assert processes[0].work_dir == str(tmp_path / "work")
    assert loaded.config.find_model("m") is model


def test_a_relative_path_to_the_file(load, tmp_path, monkeypatch):
    load(engine('binary = "sh"'))
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("gatewright.lua")).path == tmp_path / "gatewright.lua"


def test_what_is_missing_here_is_a_warning(load, tmp_path):
    (tmp_path / "plain").write_text("")
    assert load(engine('binary = "sh"')).warnings == ()
    assert load(engine('binary = "no-such-program"')).warnings == (
        "m: binary no-such-program is not on PATH",
    )
    assert load(engine('binary = "./nothing"')).warnings == (f"m: binary {tmp_path}/nothing does not exist",)
    assert load(engine('binary = "./plain"')).warnings == (f"m: binary {tmp_path}/plain is not executable",)
    assert load(engine('binary = "sh", work_dir = "nowhere"')).warnings == (
        f"m: work_dir {tmp_path}/nowhere is not a directory",
    )
    assert load(engine('binary = "sh"', 'tokenization = { binary = "./tok" },')).warnings == (
        f"m: tokenization: binary {tmp_path}/tok does not exist",
    )
    assert load(engine('binary = "sh", env = { PATH = "/nowhere" }')).warnings == (
        "m: binary sh is not on PATH",
    )


def test_model_files(load, tmp_path):
    (tmp_path / "there.gguf").touch()

    def warnings(args: str, more: str = "") -> tuple[str, ...]:
        return load(engine(f'binary = "sh", args = {{ {args}, "--port", "${{PORT}}" }}, {more}')).warnings

    assert warnings('"-m", loader.workdir .. "there.gguf"') == ()
    assert warnings('"-m", "there.gguf"', 'work_dir = "."') == ()
    assert warnings('"-m", "/nowhere/x.gguf"') == ("m: -m /nowhere/x.gguf: no such file",)
    assert warnings('"-m", "gone.gguf"', 'work_dir = "."') == ("m: -m gone.gguf: no such file",)
    assert warnings('"-m", "there.gguf"') == (
        "m: -m there.gguf is relative to wherever the engines are started from; write the whole path",
    )
    assert warnings('"-m", "http.server"') == ()


def test_suspicions_are_among_the_warnings_and_none_comes_twice(load):
    loaded = load(
        """
        server = { clear_dumps_on_start = true, listen_unix = "/" .. string.rep("x", 200) }
        local function v(c) return { binary = "no-such-program", args = { "--port", "${PORT}" }, context = c } end
        models = { { name = "m", variants = { v(4096), v(8192) } } }
        """
    )
    assert [warning[:30] for warning in loaded.warnings] == [
        "server.clear_dumps_on_start: h",
        "server.listen_unix: /xxxxxxxxx",
        "m: binary no-such-program is n",
    ]


def test_misspelt_globals_are_suspicious_and_helpers_are_not(load):
    models = 'server = {} models = { { name = "m", engine = "openai", connect = "http://127.0.0.1:1" } } '
    assert load(models + "budget = { { limit = 1 } } route = {}").warnings == (
        'budget: nothing reads this global table; did you mean "budgets"?',
        'route: nothing reads this global table; did you mean "routes"?',
    )
    assert load(models + "model, common, root, defaults, function_of = {}, {}, {}, {}, {}").warnings == ()
    assert load(models + "route = {} routes = { auto = route }").warnings == ()
    assert load(models + "function budget() end").warnings == ()


def test_a_misspelt_global_explains_what_is_missing(load):
    with pytest.raises(ConfigError) as caught:
        load('sever = {} models = { { name = "m", engine = "openai", connect = "http://127.0.0.1:1" } }')
    assert caught.value.problems[-1] == (
        'gatewright.lua: sever: nothing reads this global table; did you mean "server"?'
    )


# --- the prototype ---


def test_a_prototype_file_loads_unchanged():
    loaded = load_config(PROTOTYPE)
    config = loaded.config
    assert config.server.listen == (TcpListener(host="127.0.0.1", port=7777),)
    assert config.server.timeouts == EngineTimeouts(health_check_s=5.0, startup_s=60.0, idle_s=120.0)
    instruct, coder, embed = config.models
    assert [model.engine for model in config.models] == [
        EngineKind.LLAMACPP,
        EngineKind.LLAMACPP,
        EngineKind.LLAMACPP_SECONDARY,
    ]
    assert [spec.context_tokens for spec in instruct.variants] == [10240, 40960, 102400]
    assert {spec.connect for spec in instruct.variants + coder.variants} == {"http://127.0.0.1:7778"}
    assert {spec.parallel for spec in instruct.variants} == {1}
    assert [spec.timeouts.startup_s for spec in instruct.variants] == [180.0] * 3
    assert [(spec.timeouts.idle_s, spec.timeouts.health_check_s) for spec in coder.variants] == [
        (30.0, 5.0),
        (120.0, 2.5),
    ]
    assert instruct.variants[2].process is not None
    assert instruct.variants[2].process.args == (
        *("--host", "127.0.0.1", "--port", "7778", "--no-warmup", "-np", "1", "--mmap"),
        *(
            "-c",
            "102400",
            "-ub",
            "512",
            "-ctk",
            "q8_0",
            "-ctv",
            "q8_0",
            "-m",
            "/models/Instruct-30B-Q4_K_M.gguf",
        ),
    )
    assert instruct.tokenization == Tokenization(
        binary="/opt/llama.cpp/llama-tokenize",
        args=("--log-disable", "--stdin", "--ids", "-m", "/models/Instruct-30B-Q4_K_M.gguf"),
        extra_tokens_per_message=8,
    )
    assert coder.tokenization is not None
    assert coder.tokenization.args[3:] == ("--no-bos", "-m", "/models/Coder-30B-Q5_K_M.gguf")
    assert embed.variants[0].place == "secondary:embed"
    # Only that these programs and models are not on this machine.
    assert all("does not exist" in line or "no such file" in line for line in loaded.warnings)


# --- routes, budgets and the store ---


def test_routes_budgets_and_store_come_through(load):
    loaded = load(
        """
        server = {}
        models = { { name = "a", provider = "openai" }, { name = "b", provider = "openai" } }
        routes = { auto = { candidates = { "a", "b" }, prefer = "cost", transform = { overrides = { top_k = 4.0 } } } }
        budgets = { { name = "monthly", limit = 50 } }
        store = { url = "postgresql://db/gatewright", retention_days = false }
        """
    )
    config = loaded.config
    (route,) = config.routes
    assert (route.name, route.candidates, route.weights) == ("auto", ("a", "b"), WEIGHTS[Prefer.COST])
    assert route.transform == Transform(overrides={"top_k": 4})
    assert [budget.name for budget in config.budgets] == ["monthly"]
    assert config.store == StoreConfig(url="postgresql://db/gatewright", retention_days=None)


@pytest.mark.parametrize(
    ("url", "resolved"),
    [
        ("sqlite:///gw.db", "sqlite:///{here}/gw.db"),
        ("sqlite:///~/gw.db", "sqlite:///{home}/gw.db"),
        ("sqlite:////var/gw.db", "sqlite:////var/gw.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite:///file:gw.db?uri=true", "sqlite:///file:gw.db?uri=true"),
        ("sqlite://", "sqlite://"),
        ("postgresql+psycopg:///gw", "postgresql+psycopg:///gw"),
    ],
)
def test_a_store_in_a_file_is_a_path_like_any_other(load, tmp_path, home, url, resolved):
    loaded = load(
        f'server = {{}}; models = {{ {{ name = "a", provider = "openai" }} }}; store = {{ url = "{url}" }}'
    )
    assert loaded.config.store.url == resolved.format(here=tmp_path, home=home)


def test_an_estimator_that_this_python_cannot_run(load, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    some = 'server = {} models = { { name = "a", provider = "openai" } } '
    custom = (
        'routes = { auto = { estimator = { kind = "custom", python = "no_such_package.module:guess" } } }'
    )
    learned = 'routes = { auto = { estimator = "learned" } }'
    assert load(some + custom).warnings == (
        "auto: estimator no_such_package.module:guess: there is no Python module no_such_package",
    )
    assert load(some + learned).warnings == ()
    monkeypatch.setattr("gatewright_host.config_files.find_spec", lambda _: None)
    assert load(some + learned).warnings == (
        f"auto: the learned estimator needs scikit-learn: {how_to_install('learned')}",
    )
