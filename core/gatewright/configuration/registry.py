"""The table `registry`: what models that are registered while the gateway runs may do."""

from typing import Final

from attrs import frozen

from gatewright.configuration.engines import REMOTE_URL, VARIABLE
from gatewright.configuration.reader import ListOf, Place, TableOf, as_list
from gatewright.route_config import RegistryConfig

REGISTRY_FIELDS: Final = ("api_key_env",)


@frozen
class _CredentialsKind:
    """Environment variables, each with the URLs to which its value may be sent."""

    expected: str = 'a table of URLs by variable, such as { EXAMPLE_API_KEY = "https://api.example.com/v1" }'

    def read(self, value: object, place: Place) -> tuple[tuple[str, str], ...] | None:
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        allowed = []
        for name, urls in sorted(table.values.items(), key=lambda item: str(item[0])):
            if VARIABLE.read(name, Place("")) is None:  # what stands there may be a key
                place.report(f"one of the names is not {VARIABLE.expected}")
                continue
            found = ListOf(REMOTE_URL).read(urls if as_list(urls) else [urls], place.field(name))
            allowed += [(str(name), url) for url in found or ()]
        return tuple(dict.fromkeys(allowed))


def read_registry(value: object, place: Place) -> RegistryConfig:
    """The global `registry`; absent, it takes every default."""
    table = None if value is None else TableOf("a table with named fields").read(value, place)
    if table is None:
        return RegistryConfig()
    table.expect_only(REGISTRY_FIELDS, {})
    return RegistryConfig(api_key_env=table.get("api_key_env", _CredentialsKind(), ()))
