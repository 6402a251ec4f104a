import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.errors import ConfigError
from gatewright_host import bundled
from gatewright_host.lua_config import load_lua, run_lua


@pytest.fixture
def load(tmp_path):
    def run(source: str | bytes) -> dict[str, Any]:
        path = tmp_path / "gatewright.lua"
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
        return load_lua(path)

    return run


@pytest.fixture
def failure(load):
    def run(source: str | bytes) -> str:
        with pytest.raises(ConfigError) as caught:
            load(source)
        (problem,) = caught.value.problems
        assert "\n" not in problem
        return problem

    return run


def server(load, expression: str) -> Any:
    return load(f"server = {expression}\nmodels = {{}}")["server"]


def test_the_globals_of_a_configuration_and_no_others(load):
    names = ("server", "models", "routes", "budgets", "store", "experience", "registry")
    source = "\n".join(f"{name} = {{ name = '{name}' }}" for name in (*names, "other"))
    assert load(source) == {name: {"name": name} for name in names}
    assert load("server = {}\nlocal routes = {}") == {"server": {}}


def test_other_global_tables_are_named(tmp_path):
    path = tmp_path / "gatewright.lua"
    path.write_text(
        """
        setmetatable(_G, { __index = function() error("no such global") end })
        server, budget, Sever = {}, {}, {}
        helper, size = function() end, 1
        rawset(_G, "a table", {})
        rawset(_G, 1, {})
        local own = {}
        """
    )
    assert run_lua(path).other_tables == ("Sever", "budget")
    path.write_text("server = {}")
    assert run_lua(path).other_tables == ()
    path.write_text('for number = 1, 1000 do _G["t" .. number] = {} end')
    assert len(run_lua(path).other_tables) == 100


# --- values ---


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("{}", {}),
        ("{ {}, { {} } }", [{}, [{}]]),
        ("{ 1, -2, 4096.0, 0.1, 1e300 }", [1, -2, 4096.0, 0.1, 1e300]),
        ("{ true, false }", [True, False]),
        ("{ 9007199254740992, -9007199254740991 }", [9007199254740992, -9007199254740991]),
        ("{ math.huge, -math.huge }", [float("inf"), -float("inf")]),
        ("{ 'a\"\\\\\\n\\r\\t\\0\\127b', '' }", ['a"\\\n\r\t\0\x7fb', ""]),
        ("{ 'прывітанне', '日本', '🦙' }", ["прывітанне", "日本", "🦙"]),
        ("{ ['A.B'] = { ['c d'] = 'x' }, ['ключ'] = 1 }", {"A.B": {"c d": "x"}, "ключ": 1}),
        ("{ ['sname'] = 1, ['n1'] = 2, error = 3 }", {"sname": 1, "n1": 2, "error": 3}),
        ("{ 1, nil, 3 }", [1, None, 3]),
        ("{ nil, nil, 3 }", [None, None, 3]),
        ("{ 1, 2, name = 'x' }", {1: 1, 2: 2, "name": "x"}),
        ("{ [100000] = 1 }", {100000: 1}),
        ("{ [0] = 1, [-1] = 2, [1.5] = 3 }", {0: 1, -1: 2, 1.5: 3}),
        ("'text'", "text"),
        ("5", 5),
    ],
)
def test_values_arrive_unchanged(load, expression, value):
    assert server(load, expression) == value


def test_whole_numbers_beyond_floats(load):
    value = server(load, "{ 9223372036854775807 }")[0]
    assert value in (9223372036854775807, 9223372036854775808)  # Lua before 5.3 has floats only


def test_not_a_number(load):
    (value,) = server(load, "{ 0/0 }")
    assert value != value  # noqa: PLR0124  # only NaN differs from itself


def test_the_same_table_twice_is_no_cycle(load):
    assert load("local t = { 'x' }\nserver = { a = t, b = { t } }")["server"] == {"a": ["x"], "b": [["x"]]}


def test_missing_globals_are_left_out(load):
    assert load("models = {}") == {"models": {}}
    assert load("local server = {}") == {}
    assert load("server = false") == {"server": False}


strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | strings,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=4) | st.dictionaries(strings, inner, min_size=1, max_size=4)
    ),
    max_leaves=20,
)


def in_lua(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float() if value in (float("inf"), -float("inf")):
            return "math.huge" if value > 0 else "-math.huge"
        case float():
            return repr(value)
        case str():
            return '"' + "".join(f"\\{byte:03}" for byte in value.encode()) + '"'
        case list():
            return "{" + ",".join(in_lua(item) for item in value) + "}"
        case _:
            return "{" + ",".join(f"[{in_lua(key)}]={in_lua(item)}" for key, item in value.items()) + "}"


@settings(max_examples=25, deadline=None)
@given(st.lists(values, min_size=1, max_size=8))
def test_any_value_arrives_unchanged(tmp_path_factory, given_values):
    path = tmp_path_factory.getbasetemp() / "any.lua"
    path.write_text("server = " + in_lua(given_values))
    assert load_lua(path) == {"server": given_values}


# --- what cannot be a value ---


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("server = {}\nserver.a = { server }", "server.a[1]: a table that contains itself"),
        ("server = { f = print }", "server.f: a function cannot be a value"),
        ("models = { { io.stdout } }", "models[1][1]: a userdata cannot be a value"),
        ("server = { [{}] = 1 }", "server: a table is used as the name of a field"),
        ("server = { [true] = 1 }", "server: a boolean is used as the name of a field"),
        ('server = { ["a.b"] = print }', 'server["a.b"]: a function cannot be a value'),
        ('server = { a = "\\255" }', "server.a: a string that is not UTF-8"),
        ('server = { ["\\255"] = 1 }', "a name in server: a string that is not UTF-8"),
        ("server = {} for i = 1, 250000 do server[i] = i end", "server[200000]: more than 200000 values"),
    ],
)
def test_what_cannot_be_a_value(failure, source, problem):
    assert failure(source) == f"gatewright.lua: {problem}"


def test_all_of_them_are_named_at_once(load):
    with pytest.raises(ConfigError) as caught:
        load("server = { a = print, b = print }")
    assert len(caught.value.problems) == 2


def test_nesting_ends_somewhere(failure):
    assert failure("local t = {} for i = 1, 100 do t = { t } end server = t").endswith(
        "nested more than 50 deep"
    )
    assert failure("local t = {} for i = 1, 40 do t = { t, t } end server = t").endswith(
        "more than 200000 values"
    )


# --- errors of the file itself ---


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("server = {\n  a = \n}", "gatewright.lua:3: unexpected symbol near '}'"),
        ('#!/usr/bin/env lua\n\nerror("no")', "gatewright.lua:3: no"),
        ('\ufeffserver = {}\nerror("no")', "gatewright.lua:2: no"),
        ('error("no\\nway", 0)', "gatewright.lua:1: no way"),
        ("error({ code = 2 })", "gatewright.lua:1: an error without a text"),
        ("error()", "gatewright.lua:1: an error without a text"),
        ('error(setmetatable({}, { __tostring = function() return "mine" end }))', "gatewright.lua:1: mine"),
        ('assert(os.getenv("GATEWRIGHT_NO_SUCH"), "set it")', "gatewright.lua:1: set it"),
        ("os.exit(0)", "gatewright.lua:1: os.exit is not for configuration files; call error with a text"),
        (
            "x = concat_arrays({}, nil)",
            "gatewright.lua:1: concat_arrays: argument 2 is nil, expected a table",
        ),
        (
            "\nx = merge_tables('a', {})",
            "gatewright.lua:2: merge_tables: argument 1 is a string, expected a table",
        ),
        (
            "x = presets.engines.llama",
            "gatewright.lua:1: presets.engines.llama does not exist; known are llamacpp, llamacpp_secondary, openai",
        ),
        (
            "x = presets.embedded.model",
            "gatewright.lua:1: presets.embedded.model does not exist; known are binary, demo_model",
        ),
        (b"\x1bLua", "gatewright.lua: compiled Lua; expected its source"),
        ('print("\\255")', "gatewright.lua: prints text that is not UTF-8"),
    ],
)
def test_errors_name_file_and_line(failure, source, problem):
    assert failure(source) == problem


def test_errors_at_run_time(failure):
    problem = failure("local a\nlocal b = 1\nserver = a.b")
    assert problem.startswith("gatewright.lua:3: attempt to index")
    assert failure("local function f() return f() + 1 end\nf()").startswith(
        "gatewright.lua:1: stack overflow"
    )


def test_errors_in_required_files_name_them(tmp_path, failure):
    (tmp_path / "more.lua").write_text('error("in more")')
    assert failure('require("more")').endswith("more.lua:1: in more")


def test_a_file_that_ends_lua(failure):
    assert failure('os.execute("kill -9 $PPID")').startswith("gatewright.lua: Lua ended with exit code -9")


def test_the_directory_s_length_does_not_matter(tmp_path):
    deep = tmp_path.joinpath(*["a" * 50] * 4)
    deep.mkdir(parents=True)
    (deep / "gatewright.lua").write_text("error('no')")
    with pytest.raises(ConfigError, match=r"^gatewright\.lua:1: no$"):
        load_lua(deep / "gatewright.lua")


def test_missing_files(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_lua(tmp_path / "gatewright.lua")
    with pytest.raises(ConfigError, match="no such file"):
        load_lua(tmp_path)


def test_no_interpreter(load, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.path.dirname", _elsewhere(tmp_path))
    with pytest.raises(ConfigError, match=r"^gatewright\.lua: no Lua interpreter .* `apt install lua5\.4`"):
        load("server = {}")


def _elsewhere(directory: Path):
    """An interpreter that the helper may have brought along does not count."""
    import os.path  # noqa: PLC0415  # the original, before it is replaced

    original = os.path.dirname
    return lambda path: str(directory) if str(path).endswith("py_lua_helper.py") else original(path)


# --- what a file may use ---


def test_concat_arrays_and_merge_tables(load):
    source = """
    local a, b = { 1, 2, x = "a", y = "a" }, { 3, x = "b" }
    server = { concat = concat_arrays(a, b), merged = merge_tables(a, b), a = a, b = b,
               empty = concat_arrays({}, {}), nested = merge_tables({ t = { 1 } }, { t = { 2 } }) }
    """
    assert load(source)["server"] == {
        "concat": [1, 2, 3],
        "merged": {1: 1, 2: 2, 3: 3, "x": "b", "y": "a"},
        "a": {1: 1, 2: 2, "x": "a", "y": "a"},
        "b": {1: 3, "x": "b"},
        "empty": {},
        "nested": {"t": [2]},
    }


def test_the_embedded_engine_and_its_model_are_where_they_are(load):
    paths = load("server = {} for name, path in pairs(presets.embedded) do server[name] = path end")["server"]
    assert paths == {
        "binary": str(Path(sys.executable).with_name("gatewright-engine")),
        "demo_model": str(bundled.demo_model()),
    }
    assert all(Path(path).is_file() for path in paths.values())


def test_presets(load):
    source = "server = {} for name, value in pairs(presets.engines) do server[name] = value end"
    assert load(source)["server"] == {
        "llamacpp": "llama.cpp",
        "llamacpp_secondary": "llama.cpp.secondary",
        "openai": "openai",
    }


def test_files_beside_it_and_its_directory(load, tmp_path):
    (tmp_path / "more.lua").write_text("return { 'from more' }")
    assert load('server = { more = require("more"), dir = loader.workdir }')["server"] == {
        "more": ["from more"],
        "dir": f"{tmp_path}/",
    }
    assert load('server = dofile(loader.workdir .. "more.lua")')["server"] == ["from more"]


def test_the_environment(load, monkeypatch):
    monkeypatch.setenv("GATEWRIGHT_TEST_KEY", "ключ")
    assert load('server = { key = os.getenv("GATEWRIGHT_TEST_KEY") }')["server"] == {"key": "ключ"}


def test_a_file_may_redefine_everything(load):
    names = "type tostring pairs ipairs next select error pcall xpcall string table io loader dofile print presets"
    source = "server = { 1 } models = {}\n" + "\n".join(f"{name} = 'mine'" for name in names.split())
    assert load(source + "\nsetmetatable(_G, { __newindex = function() x() end })") == {
        "server": [1],
        "models": {},
    }


def test_output_goes_to_stderr(load, capsys):
    load('print("printed") io.write("written\\n") io.stderr:write("complained\\n") server = {}')
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["printed", "written", "complained"]
    with pytest.raises(ConfigError):
        load('print("before") error("no")')
    assert capsys.readouterr() == ("", "before\n")


def test_nothing_is_left_behind(load, tmp_path, monkeypatch):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    load("server = {}")
    with pytest.raises(ConfigError):
        load("error()")
    assert not list(temporary.iterdir())


def test_several_threads_at_a_time(tmp_path):
    results: dict[int, object] = {}

    def run(number: int) -> None:
        path = tmp_path / f"{number}.lua"
        path.write_text(f'print("{number}") server = {{ {number} }}')
        results[number] = load_lua(path)["server"]

    before = sys.stdout
    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [number] for number in range(8)}
    assert sys.stdout is before


def test_importing_it_costs_nothing_that_is_not_needed():
    code = (
        "import sys; import gatewright_host.config_files, gatewright_host.gguf_config; "
        "print({'python_lua_helper', 'gguf', 'numpy', 'platformdirs', 'subprocess'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
