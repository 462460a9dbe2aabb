"""A body that holds nothing but a plain text is read by a short way: to the same object."""

import json

import pytest

from handlers import body
from model_src.errors import RequestError
from tests.conftest import ODD_TEXTS

TEXTS = [
    "",
    "a",
    " a  b ",
    "정말",
    "\x7f\u2028\ufeff\U0001f600",
    "/'{}[],:",
    "x" * 100_000,
    *ODD_TEXTS,
]
FORMS = [
    '{"text":"%s"}',
    '{"text": "%s"}',
    '{ "text" : "%s" }',
    '{"text":\t"%s"\n}',
    ' {"text": "%s"}',
    '{"text": "%s", "top_k": 1}',
    '{"text": "a", "text": "%s"}',
    '{"Text": "%s"}',
    '{"text": "%s"',
    '{"text": "%s""}',
    '{"text": "%s\\u0041"}',
    '{"text": "%s\n"}',
    '{"text": %s}',
    '{"text": "%s"}}',
    '\ufeff{"text": "%s"}',
]


@pytest.mark.parametrize("form", FORMS)
def test_the_short_way_reads_what_the_long_one_reads(form: str) -> None:
    for text in TEXTS:
        for inner in (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
            sent = form % inner
            try:
                expected: object = body._decoder.decode(sent)
            except (ValueError, RequestError):
                with pytest.raises(RequestError):
                    body._json(sent)
            else:
                assert body._json(sent) == expected


def test_the_short_way_is_taken() -> None:
    assert body._PLAIN.fullmatch('{"text": "a plain text, 정말"}')
