#!/bin/sh
# Creates a virtual environment with Gatewright in it, and brings Lua where there is none.
# Usage: tools/setup.sh VENV EXTRAS
set -eu

venv=$1
extras=$2

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    say "$@"
    exit 1
}

# Runs apt-get as root, if that needs no password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

apt_install() {
    command -v apt-get >/dev/null 2>&1 && as_root true || return 1
    say "installing $* with apt-get"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null 2>&1 && return 0
    as_root apt-get update -qq >/dev/null 2>&1 || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}

find_python() {
    for name in python3.13 python3.12 python3.11 python3 python3.14; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$name"
            return 0
        fi
    done
    return 1
}

find_lua() {
    for name in lua lua5.4 lua54 lua5.3 lua53 lua5.2 lua52 lua5.1 lua51; do
        if command -v "$name" >/dev/null 2>&1; then
            return 0
        fi
    done
    return 1
}

# Without root: unpacks Debian's package next to python-lua-helper, which looks for an interpreter there first.
unpack_lua() {
    command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 || return 1
    home="$PWD/$venv/lua"
    mkdir -p "$home/packages"
    (cd "$home/packages" && apt-get download -qq lua5.4 2>/dev/null) || return 1
    for package in "$home"/packages/*.deb; do
        dpkg-deb -x "$package" "$home" || return 1
    done
    "$home/usr/bin/lua5.4" -v >/dev/null 2>&1 || return 1
    helper=$("$venv/bin/python" -c 'import python_lua_helper, os; print(os.path.dirname(python_lua_helper.__file__))')
    ln -sf "$home/usr/bin/lua5.4" "$helper/lua"
    say "unpacked lua5.4 into $venv/lua"
}

python=$(find_python) || fail "needs Python 3.11 or newer (Debian: apt install python3 python3-venv)"

if [ ! -x "$venv/bin/pip" ]; then
    rm -rf "$venv"
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        rm -rf "$venv"
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        apt_install "python$version-venv" ||
            fail "$python cannot create virtual environments: install its venv module (Debian: sudo apt install python$version-venv)"
        "$python" -m venv "$venv"
    fi
fi

say "installing Gatewright [$extras] into $venv"
# The hooks of python-lua-helper's build would download and compile a Lua of its own.
HATCH_BUILD_NO_HOOKS=true "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[$extras]" ||
    fail "installing the Python packages failed; see above (a package index must be reachable)"

if ! find_lua && ! apt_install lua5.4 && ! unpack_lua; then
    fail "needs a Lua interpreter, 5.1 to 5.4 (Debian: sudo apt install lua5.4; Fedora: sudo dnf install lua; macOS: brew install lua)"
fi
