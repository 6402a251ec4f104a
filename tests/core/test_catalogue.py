from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS
from gatewright.selection.catalogue import BRANCH, LEAF, Catalogue
from gatewright.selection.profiles import Capability, Feature, Modality
from tests.support.profiles import profile, random_profiles

CODER = profile("coder", capabilities=frozenset({Capability.CODE}), features=frozenset({Feature.TOOLS}))
VIEWER = profile("viewer", modalities=frozenset({Modality.TEXT, Modality.IMAGE}), tags=frozenset({"ours"}))


def names(catalogue, bits):
    return sorted(row.name for row in catalogue.rows_of(bits))


def test_names_stay_in_order_and_find_their_models():
    catalogue = Catalogue([VIEWER, CODER])
    assert catalogue.names == ("viewer", "coder")
    assert catalogue.find("coder") is CODER
    assert catalogue.find("nobody") is None
    assert catalogue.row("nobody") is None
    assert (len(catalogue), list(catalogue)) == (2, [VIEWER, CODER])


def test_two_models_of_one_name_are_a_mistake():
    with pytest.raises(ValueError, match="same name"):
        Catalogue([CODER, CODER])


def test_matching_by_everything_that_a_model_has_or_has_not():
    catalogue = Catalogue([CODER, VIEWER])
    assert names(catalogue, catalogue.matching()) == ["coder", "viewer"]
    assert names(catalogue, catalogue.matching(capabilities=["code"])) == ["coder"]
    assert names(catalogue, catalogue.matching(features=["tools"])) == ["coder"]
    assert names(catalogue, catalogue.matching(modalities=["image"])) == ["viewer"]
    assert names(catalogue, catalogue.matching(tags=["ours"])) == ["viewer"]
    assert names(catalogue, catalogue.matching(capabilities=["code"], tags=["ours"])) == []
    assert catalogue.matching(capabilities=["no such word"]) == 0


def test_a_context_that_nobody_knows_holds_everything():
    assert Catalogue([profile(context_tokens=0)]).row("a").context_tokens == UNBOUNDED_CONTEXT_TOKENS


def test_times_of_longer_and_shorter_answers():
    quick = Catalogue([profile(latency_ms=2000.0, output_tokens_per_s=100.0)]).row("a")
    assert quick.start_ms + 200 * quick.token_ms == pytest.approx(2000.0)
    assert quick.start_ms + 1200 * quick.token_ms == pytest.approx(12_000.0)
    assert quick.least_ms == pytest.approx(200.0)
    unknown = Catalogue([profile(latency_ms=2000.0)]).row("a")
    assert unknown.start_ms + 200 * unknown.token_ms == pytest.approx(2000.0)
    assert unknown.start_ms + 400 * unknown.token_ms == pytest.approx(3000.0)


def test_an_empty_catalogue():
    catalogue = Catalogue([], few=0)
    assert (len(catalogue), catalogue.matching(), list(catalogue.rows_of(0))) == (0, 0, [])


@given(st.integers(0, 2**32), st.integers(1, 700), st.sets(st.integers(0, 700)))
@settings(max_examples=20, deadline=None)
def test_however_arranged_every_model_is_there_once_and_no_node_promises_too_little(seed, count, chosen):
    models = random_profiles(Random(seed), count)
    catalogue = Catalogue(models, few=0)
    assert sorted(row.name for row in catalogue.rows) == sorted(model.name for model in models)
    wanted = [f"m{number:04}" for number in chosen]
    assert names(catalogue, catalogue.bits_of(wanted)) == sorted(
        name for name in wanted if catalogue.find(name)
    )
    for level, nodes in enumerate(catalogue.levels):
        width = LEAF * BRANCH**level
        for index, best in enumerate(nodes):
            for row in catalogue.rows[index * width : (index + 1) * width]:
                assert best.quality >= max([row.quality, *row.by_task.values()])
                assert best.context_tokens >= row.context_tokens
                for name in (
                    "input_usd",
                    "output_usd",
                    "hour_usd",
                    "start_ms",
                    "token_ms",
                    "least_ms",
                    "mean_usd",
                ):
                    assert getattr(best, name) <= getattr(row, name)
