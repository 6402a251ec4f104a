"""`gw-cli registry`: the models that the gateway knows, and those that are registered while it runs."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import click
from attrs import frozen

from gatewright.config import Config
from gatewright.configuration.profiles import profile_to_plain
from gatewright.configuration.reader import Place
from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS
from gatewright.registry import (
    RegisteredModel,
    credential_problem,
    expect_free_names,
    patch_registered_model,
    read_registered_model,
    registered_model_to_plain,
)
from gatewright.selection.profiles import Capability, Feature, ModelProfile, ProfileSource
from gatewright_cli import exits
from gatewright_cli.groups import Group
from gatewright_cli.options import Common, common_options
from gatewright_cli.refusals import refuse
from gatewright_cli.registry_fields import FIELD_OPTIONS, field_options
from gatewright_cli.sheets import (
    TEXT,
    Column,
    Sheet,
    as_count,
    as_ratio,
    as_text,
    format_options,
    print_sheet,
)
from gatewright_cli.storing import Opened, changing, looking
from gatewright_cli.tables import print_json
from gatewright_host.store.vocabulary import Conflict


def _price(value: float | None) -> str:
    return "" if value is None else f"${value:g}"


def _context(value: int) -> str:
    return "" if value in {0, UNBOUNDED_CONTEXT_TOKENS} else as_count(value)


_COLUMNS: Final = (
    Column("name", "NAME", right=False),
    Column("source", "FROM", right=False),
    Column("provider", "PROVIDER", right=False),
    Column("context", "CONTEXT", _context),
    Column("input_per_million", "IN", _price),
    Column("output_per_million", "OUT", _price),
    Column("quality", "QUALITY", as_ratio),
    Column("capabilities", "CAPABILITIES", right=False),
    Column("features", "FEATURES", right=False),
    Column("tags", "TAGS", right=False),
)
_SHOWN: Final = (
    "name", "source", "provider", "context", "input_per_million", "output_per_million", "quality",
    "capabilities", "tags",
)  # fmt: skip


@frozen
class _Known:
    """A model that the gateway knows; `plain` are its fields."""

    profile: ModelProfile
    plain: dict[str, Any]


@click.group(cls=Group)
def command() -> None:
    """List the models with what is known of them, and register models of providers while the gateway runs.

    Models of the configuration file can only be changed there.
    """


@command.command("list")
@click.option(
    "--capability", "capabilities", type=click.Choice([each.value for each in Capability]), multiple=True,
    help="Only models that can do this; several times for several.",
)  # fmt: skip
@click.option(
    "--feature", "features", type=click.Choice([each.value for each in Feature]), multiple=True,
    help="Only models whose API does this; several times for several.",
)  # fmt: skip
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Only models with this tag.")
@format_options
@common_options
def list_models(
    common: Common,
    /,
    *,
    capabilities: tuple[str, ...],
    features: tuple[str, ...],
    tags: tuple[str, ...],
    output: str,
) -> int:
    """List the models. Prices are in US dollars for a million tokens."""
    found = [
        each
        for each in _known(common)
        if each.profile.capabilities.issuperset(capabilities)
        and each.profile.features.issuperset(features)
        and each.profile.tags.issuperset(tags)
    ]
    print_sheet(_sheet(found), output, "no model is known that fits" if output == TEXT else "")
    return exits.DONE


@command.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def show_model(common: Common, /, *, name: str, as_json: bool) -> int:
    """Show all that is known of a model."""
    known = {each.profile.name: each for each in _known(common)}
    if name not in known:
        raise exits.Misuse(_no_such(name, known))
    plain = known[name].plain
    if as_json:
        print_json(plain)
        return exits.DONE
    width = max(len(field) for field in plain) + 2
    for field, value in plain.items():
        text = as_text(
            value if not isinstance(value, dict) else [f"{task}={x:g}" for task, x in value.items()]
        )
        click.echo(f"{click.style(field.ljust(width), dim=True)}{text or '-'}")
    return exits.DONE


@command.command("add")
@click.argument("name")
@field_options
@common_options
def add_model(common: Common, /, *, name: str, wanted: dict[str, object]) -> int:
    """Register a model of a provider. Servers know it within seconds.

    What is not said comes from what is known of the provider (openai, anthropic, together, huggingface, huggingface-tgi,
    ollama, vllm, llama.cpp), and of the model where it is a well-known one.
    """
    problems: list[str] = []
    model = read_registered_model({"name": name, **wanted}, Place("", problems))
    if model is None:
        raise refuse(problems, FIELD_OPTIONS)
    with changing(common) as opened:
        _expect_free(opened.config, name)
        _expect_allowed(opened, model)
        try:
            opened.store.create_model(model)
        except Conflict:
            raise exits.Misuse(f"'{name}' is registered already; gw-cli registry set changes it") from None
    click.echo(f"registered {name} ({model.connect})")
    return exits.DONE


@command.command("set")
@click.argument("name")
@field_options
@common_options
def set_model(common: Common, /, *, name: str, wanted: dict[str, object]) -> int:
    """Change a registered model; what is not said stays, and none puts a field back to what it usually is."""
    if not wanted:
        raise exits.Misuse("nothing to change: say what, such as --quality 0.8")
    with changing(common) as opened:
        present = {model.name: model for model in opened.store.models()}
        if name not in present:
            _expect_free(opened.config, name)
            raise exits.Misuse(_no_such(name, present))
        problems: list[str] = []
        model = patch_registered_model(present[name], wanted, Place("", problems))
        if model is None:
            raise refuse(problems, FIELD_OPTIONS)
        _expect_allowed(opened, model)
        opened.store.update_model(model)
    click.echo(f"changed {name}")
    return exits.DONE


@command.command("remove")
@click.argument("name")
@common_options
def remove_model(common: Common, /, *, name: str) -> int:
    """Forget a registered model. What came of its requests stays."""
    with changing(common) as opened:
        present = {model.name: model for model in opened.store.models()}
        if name not in present:
            _expect_free(opened.config, name)
            raise exits.Misuse(_no_such(name, present))
        opened.store.delete_model(name)
    click.echo(f"removed {name}")
    return exits.DONE


def _known(common: Common) -> list[_Known]:
    """The models of the file, then those of the store that the file does not name."""
    with looking(common, quiet=True) as opened:
        chosen = common.choose()
        models = chosen.config.models if chosen is not None else ()
        found = [
            _Known(
                model.profile,
                {
                    "name": model.name,
                    "source": ProfileSource.CONFIG.value,
                    "aliases": list(model.aliases),
                    "context": model.profile.context_tokens,
                    **profile_to_plain(model.profile),
                },
            )
            for model in models
        ]
        names = {each.profile.name for each in found}
        stored = opened.store.models() if opened is not None else ()
    return found + [
        _Known(model.profile, {"source": ProfileSource.STORE.value, **registered_model_to_plain(model)})
        for model in stored
        if model.name not in names
    ]


def _sheet(found: Sequence[_Known]) -> Sheet:
    rows = []
    for each in found:
        profile, pricing = each.profile, each.profile.pricing
        rows.append(
            (
                profile.name,
                each.plain["source"],
                profile.provider,
                profile.context_tokens,
                pricing.input_per_million,
                pricing.output_per_million,
                profile.quality,
                sorted(profile.capabilities),
                sorted(profile.features),
                sorted(profile.tags),
            )
        )
    return Sheet(name="models", title="Models", columns=_COLUMNS, rows=tuple(rows), shown=_SHOWN)


def _expect_free(config: Config | None, name: str) -> None:
    """Models of the file go before those of the store, which nobody would ever see."""
    if config is None:
        return
    taken = {alias for model in config.models for alias in (model.name, *model.aliases)}
    if name in taken:
        raise exits.Misuse(f"'{name}' is a model of the configuration file; change it there")
    if config.find_route(name) is not None:
        raise exits.Misuse(f"'{name}' is a route of the configuration file; choose another name")


def _expect_allowed(opened: Opened, model: RegisteredModel) -> None:
    """See that everybody means the same by a name, and that its credential is for its address.

    That the model itself is there already is for the store to say.
    """
    problems: list[str] = []
    config = opened.config or Config(models=())
    credential = credential_problem(model, config)
    if credential is not None:
        problems.append(f"api_key_env: {credential}")
    expect_free_names(model, config, opened.store.models(), Place("", problems))
    if problems:
        raise refuse(problems, FIELD_OPTIONS)


def _no_such(name: str, known: Iterable[str]) -> str:
    listed = ", ".join(known)
    return f"there is no model '{name}'" + (f"; models: {listed}" if listed else "")
