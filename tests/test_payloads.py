"""The malformed requests of the chaos verb: that they are many, of every kind, and judged."""

import json

import pytest

from chaos.naughty import HALVES, STRINGS
from chaos.payload import Payload
from chaos.payloads import PAYLOADS
from model_src.tokenizer import text_problem


@pytest.fixture(scope="module")
def payloads() -> dict[str, list[Payload]]:
    """All of them by kind."""
    return {name: [*make()] for name, make in PAYLOADS.items()}


def test_there_are_more_than_300_different_malformed_requests(
    payloads: dict[str, list[Payload]],
) -> None:
    refused = [each for made in payloads.values() for each in made if not each.texts]
    different = {
        (each.body, each.kind, each.path, each.method, each.key, *each.headers) for each in refused
    }
    assert len(different) > 500
    assert all(each.statuses for each in refused)


def test_every_kind_refuses_something_and_is_the_same_each_time(
    payloads: dict[str, list[Payload]],
) -> None:
    for name, made in payloads.items():
        assert any(not each.texts for each in made), name
        assert made == [*PAYLOADS[name]()], name


def test_no_5xx_is_expected_but_of_forms_that_no_handler_sees(
    payloads: dict[str, list[Payload]],
) -> None:
    for name, made in payloads.items():
        server_errors = [each.name for each in made if max(each.statuses) >= 500]
        assert bool(server_errors) == (name == "broken forms"), name


def test_naughty_sentences_hold_what_they_promise() -> None:
    whole = "".join(STRINGS)
    for sign in ("\x00", "\ufeff", "\u202e", "\u200d", "\x1b", "👩", "🇳", "שלום", "\u2028"):
        assert sign in whole
    assert "x" * 1_000_000 in STRINGS
    assert len({*STRINGS}) == len(STRINGS)
    assert sum(text_problem(text) is None for text in STRINGS) > 60
    assert all(text_problem(json.loads(json.dumps(text))) for text in HALVES)
