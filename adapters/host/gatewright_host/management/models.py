"""`/api/models`: the models among which routes choose; those of the store can be changed while the gateway runs."""

from typing import Final

from gatewright.config import Config, ModelConfig
from gatewright.configuration.profiles import profile_to_plain
from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS
from gatewright.errors import NameTaken, NotFound
from gatewright.registry import (
    RegisteredModel,
    credential_problem,
    expect_free_names,
    patch_registered_model,
    read_registered_model,
    registered_model_to_plain,
)
from gatewright.selection.profiles import ModelProfile, ProfileSource
from gatewright_host.management.answering import (
    Document,
    Query,
    Reply,
    as_list,
    place,
    read_object,
    refuse_fields,
)
from gatewright_host.management.asking import Asking
from gatewright_host.store.vocabulary import Conflict

_FILTERS: Final = ("capability", "feature", "tag", "provider", "source")


def answer_collection(asked: Asking) -> Reply:
    """All models that the query does not leave out, or a new one."""
    if asked.method == "GET":
        query = Query.of(asked.target, _FILTERS)
        file = [(model.profile, _of_file(model)) for model in _file_models(asked.config)]
        stored = [(model.profile, _of_store(model)) for model in asked.store.models()]
        return as_list([shown for profile, shown in (*file, *stored) if _is_wanted(profile, query)])
    where = place()
    model = read_registered_model(read_object(asked.body), where)
    if model is None:
        raise refuse_fields(where.problems)
    _check_credential(asked, model)
    _check_names(asked, model)
    try:
        asked.store.create_model(model)
    except Conflict as error:
        raise NameTaken(f"name: {error}", param="name") from error
    _see(asked, model)
    return Reply(document=_of_store(model), status=201)


def answer_one(asked: Asking) -> Reply:
    """One model by name or alias: show, change or delete it."""
    for entry in _file_models(asked.config):
        if asked.item in {entry.name, *entry.aliases}:
            if asked.method == "GET":
                return Reply(document=_of_file(entry))
            raise NameTaken(
                f"{entry.name} stands in the configuration file and can only be changed there; models of the store can "
                "be changed here"
            )
    stored = asked.store.models()
    model = next((each for each in stored if asked.item in {each.name, *each.aliases}), None)
    if model is None:
        raise NotFound(f"There is no model {asked.item[:100]!r}; GET /api/models lists them")
    if asked.method == "GET":
        return Reply(document=_of_store(model))
    if asked.method == "DELETE":
        asked.store.delete_model(model.name)
        asked.see(lambda: all(each.name != model.name for each in asked.config.models))
        return Reply(document=None, status=204)
    where = place()
    changed = patch_registered_model(model, read_object(asked.body), where)
    if changed is None:
        raise refuse_fields(where.problems)
    _check_credential(asked, changed)
    _check_names(asked, changed)
    asked.store.update_model(changed)
    _see(asked, changed)
    return Reply(document=_of_store(changed))


def _see(asked: Asking, model: RegisteredModel) -> None:
    asked.see(lambda: any(each.profile == model.profile for each in asked.config.models))


def _file_models(config: Config) -> list[ModelConfig]:
    return [model for model in config.models if model.profile.source is not ProfileSource.STORE]


def _check_credential(asked: Asking, model: RegisteredModel) -> None:
    """See that no variable of this server is sent where its operator has not said that it goes."""
    problem = credential_problem(model, asked.config)
    if problem is not None:
        raise refuse_fields([f"api_key_env: {problem}"])


def _check_names(asked: Asking, model: RegisteredModel) -> None:
    """See that everybody means the same by a name."""
    where = place()
    expect_free_names(model, asked.config, asked.store.models(), where)
    if where.problems:
        raise NameTaken("; ".join(where.problems), param=where.problems[0].partition(":")[0])


def _is_wanted(profile: ModelProfile, query: Query) -> bool:
    """Whether it has everything that the query names."""
    provider, source = query.find("provider"), query.find("source")
    return (
        profile.capabilities.issuperset(query.all("capability"))
        and profile.features.issuperset(query.all("feature"))
        and profile.tags.issuperset(query.all("tag"))
        and provider in {None, profile.provider}
        and source in {None, profile.source.value}
    )


def _of_file(model: ModelConfig) -> Document:
    context = model.largest_context_tokens
    return {
        "object": "model_profile",
        "source": model.profile.source.value,
        "is_local": model.profile.is_local,
        "name": model.name,
        "aliases": list(model.aliases),
        "context": None if context == UNBOUNDED_CONTEXT_TOKENS else context,
        **profile_to_plain(model.profile),
    }


def _of_store(model: RegisteredModel) -> Document:
    return {
        "object": "model_profile",
        "source": ProfileSource.STORE.value,
        "is_local": model.profile.is_local,
        **registered_model_to_plain(model),
    }
