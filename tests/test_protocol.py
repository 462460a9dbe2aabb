"""The serving contract without a server: what is a sentence, what is an error, and who gets it."""

import gc
import json
import logging
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from handlers import base
from handlers.base import BaseHandler, chunks
from handlers.glove import GloveHandler
from handlers.headers import LAST
from handlers.protocol import MAX_INSTANCES, Failure, parse
from handlers.transformer import TransformerHandler
from model_src.decode import Prediction, decode
from model_src.errors import BundleError, RequestError
from model_src.predictor import Predictor
from tests.conftest import Models

JSON, TEXT = "application/json", "text/plain; charset=utf-8"
AS_JSON = {"content-type": JSON}


@pytest.mark.parametrize(
    ("fields", "kind", "texts"),
    [
        ({"body": b"a film"}, TEXT, ["a film"]),
        ({"body": b"a film"}, "", ["a film"]),
        ({"body": bytearray(b"a film")}, "application/octet-stream", ["a film"]),
        ({"body": b'{"text": "a film"}'}, JSON, ["a film"]),
        ({"body": b'{"text": "a film"}'}, "Application/JSON; charset=utf-8", ["a film"]),
        ({"body": b' {"text": "a film"}'}, "", ["a film"]),
        ({"body": b'{"text": "a film"}'}, TEXT, ['{"text": "a film"}']),
        ({"body": {"text": "a film"}}, JSON, ["a film"]),  # decoded by a stock TorchServe
        ({"body": "a film"}, TEXT, ["a film"]),
        ({"data": b"a film"}, "", ["a film"]),
        ({"text": b"{a film}"}, "application/x-www-form-urlencoded", ["{a film}"]),
        ({"body": '{"text": "영화"}'.encode()}, JSON, ["영화"]),
        ({"body": b'{"instances": [{"text": "a"}, {"text": "b"}]}'}, JSON, ["a", "b"]),
        ({"body": b'{"instances": ["a", {"text": "b"}, "c"]}'}, JSON, ["a", "b", "c"]),
    ],
)
def test_the_documented_bodies_are_read(
    fields: dict[str, object], kind: str, texts: list[str]
) -> None:
    assert parse(fields, {"content-type": kind}).texts == texts


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"NaN",
        b'"a film"',
        b"{}",
        b'{"txt": "a"}',
        b'{"text": "a", "more": 1}',
        b'{"text": "a", "text": "b"}',
        b'{"text": "a", "instances": []}',
        b'{"instances": []}',
        b'{"instances": {"text": "a"}}',
        b'{"text": "\xff"}',
        b"[" * 100_000,
        b'{"text":' * 100_000,
        b'{"text": ' + b"9" * 10_000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_broken_body_is_refused_as_a_whole(body: bytes) -> None:
    try:
        (only,) = parse({"body": body}, AS_JSON).texts
    except RequestError as error:
        only = Failure.of(error)
    assert isinstance(only, Failure)


@pytest.mark.parametrize("text", ["null", "1", "[]", '""', '" \\t "', '"\\ud800"', "{}", "true"])
def test_a_wrong_text_is_an_error_of_its_own(text: str) -> None:
    body = f'{{"instances": [{{"text": "a"}}, {{"text": {text}}}, {{"text": "b"}}, 3]}}'
    first, wrong, last, number = parse({"body": body.encode()}, AS_JSON).texts
    assert (first, last) == ("a", "b")
    assert isinstance(wrong, Failure)
    assert isinstance(number, Failure)


def test_too_many_instances_are_refused() -> None:
    body = {"instances": [{"text": "a"}] * (MAX_INSTANCES + 1)}
    with pytest.raises(RequestError, match="are more than"):
        parse({"body": body}, AS_JSON)


def test_a_form_without_a_known_field_is_told_what_to_send() -> None:
    with pytest.raises(RequestError, match="add the header Content-Type: text/plain"):
        parse({"a film": b""}, {"content-type": "application/x-www-form-urlencoded"})


class Context:
    """What a handler uses of TorchServe's context."""

    manifest = None
    metrics = None
    model_name = "tiny"

    def __init__(self, headers: list[dict[str, str]]) -> None:
        """Give each request its headers."""
        self.headers = headers
        self.statuses: dict[int, int] = {}
        self.model_yaml_config: dict[str, object] = {}
        self.system_properties: dict[str, str] = {}

    def get_all_request_header(self, i: int) -> dict[str, str]:
        """Return the headers of request ``i``."""
        return self.headers[i]

    def set_response_status(self, code: int, phrase: str, i: int) -> None:
        """Remember a status."""
        assert phrase.isascii()
        self.statuses[i] = code

    def set_response_header(self, i: int, name: str, value: str) -> None:
        """Every answer is JSON; only gRPC, which sends no headers, is told that no more follows."""
        expected = {"content-type": JSON} | ({} if self.headers[i] else dict([LAST]))
        assert expected[name] == value


class Fragile:
    """A predictor that breaks when it sees a certain word, and quotes it in its error."""

    tokens = 0

    def predict(self, texts: list[str]) -> list[Prediction]:
        """Answer, or raise with the text in the message."""
        for text in texts:
            if "boom" in text:
                raise ValueError(text)
        return [Prediction(text, 1.0, {text: 1.0}) for text in texts]


def handler(predictor: object) -> BaseHandler:
    made = BaseHandler()
    made.predictor = predictor  # type: ignore[assignment]
    return made


def worker_of(export: Path, folder: Path) -> GloveHandler:
    """Return a handler that has loaded ``export`` as a worker does, from an extracted archive."""
    (folder / "model").symlink_to(export)
    context = Context([])
    context.system_properties["model_dir"] = str(folder)
    made, root = GloveHandler(), logging.getLogger()
    level = root.level
    try:
        made.initialize(context)
    finally:
        root.setLevel(level)
    return made


def ask(
    made: BaseHandler, bodies: list[bytes], kind: str = JSON, **more: str
) -> tuple[list[Any], Context]:
    context = Context([{"Content-Type": kind} | more] * len(bodies))
    out = made.handle([{"body": body} for body in bodies], context)
    assert all(isinstance(answer, bytes) for answer in out)
    return [json.loads(answer) for answer in out], context


def test_a_bad_request_gets_its_own_400_and_its_mates_their_answers() -> None:
    answers, context = ask(handler(Fragile()), [b'{"text": "a"}', b"{", b'{"text": "b"}'])
    assert [answer.get("label") for answer in answers] == ["a", None, "b"]
    assert set(answers[1]) == {"code", "message"}
    assert context.statuses == {1: 400}


def test_a_bug_of_ours_costs_a_batch_its_answers_and_no_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("a secret")

    monkeypatch.setattr(base, "reply", broken)
    answers, context = ask(handler(Fragile()), [b'{"text": "a secret"}', b"{"])
    assert [answer["code"] for answer in answers] == [500, 500]
    assert context.statuses == {0: 500, 1: 500}
    assert "AssertionError in broken" in caplog.text
    assert "a secret" not in caplog.text


def test_a_failing_text_harms_neither_its_mates_nor_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bodies = [
        b'{"text": "a"}',
        b'{"text": "boom secret"}',
        b'{"instances": [{"text": "boom"}, {"text": "c"}]}',
    ]
    with caplog.at_level(logging.DEBUG):
        answers, context = ask(handler(Fragile()), bodies)
    assert answers[0]["label"] == "a"
    assert answers[1]["code"] == 500
    assert [item.get("label", item.get("code")) for item in answers[2]["predictions"]] == [500, "c"]
    assert context.statuses == {1: 500}
    assert "ValueError in predict" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("body", "more"),
    [
        (b'{"text": "a"}', {}),
        (b"{", {}),
        (b"[" * 100_000, {}),
        (b'{"text": "\xff"}', {}),
        (b'{"text": "a", "more": 1}', {}),
        (b'{"instances": ["a", 1, ""]}', {}),
        (b'{"inputs": [], "id": 1}', {}),
        (b"no gzip", {"Content-Encoding": "gzip"}),
        (b'{"text": "a", "threshold": 2}', {}),
        (b'{"text": "boom"}', {}),
    ],
    ids=lambda each: repr(each)[:20],
)
def test_what_was_sent_is_gone_once_it_is_answered(body: bytes, more: dict[str, str]) -> None:
    """An exception that is kept makes a circle through its traceback: bodies stayed for minutes."""

    class Body(bytearray):
        """A body that can be watched."""

    bodies = [Body(body), Body(b'{"text": "a"}')]
    watched = [weakref.ref(each) for each in bodies]
    context = Context([{"Content-Type": JSON} | more, {"Content-Type": JSON}])
    gc.disable()
    try:
        handler(Fragile()).handle([{"body": bodies.pop(0)}, {"body": bodies.pop(0)}], context)
        assert [each() for each in watched] == [None, None]
    finally:
        gc.enable()


def test_what_the_time_does_not_suffice_for_gets_a_503() -> None:
    """TorchServe would kill the worker, and with it every request of the batch."""
    made = handler(Fragile())
    made.seconds = -1.0
    answers, context = ask(made, [b'{"text": "a"}', b"{"])
    assert [answer["code"] for answer in answers] == [503, 400]
    assert context.statuses == {0: 503, 1: 400}


@pytest.mark.parametrize(
    ("lengths", "limit", "sizes"),
    [
        ([20] * 70, 512, [32, 32, 6]),
        ([10_000] * 3, 512, [1, 1, 1]),  # of 512 tokens each
        ([10_000] * 40, 40, [12, 12, 12, 4]),
        ([20] * 10 + [10_000] * 2, 512, [10, 1, 1]),
        ([20] * 10 + [600], 512, [11]),  # a long one makes none of the others longer
        ([10_000], 5000, [1]),
        ([], 512, []),
    ],
)
def test_the_clock_is_looked_at_before_a_long_transformer_would_outlast_it(
    lengths: list[int], limit: int, sizes: list[int]
) -> None:
    texts = [f"{i:03}".ljust(length, "x") for i, length in enumerate(lengths)]
    found = [*chunks(texts, limit)]
    assert [len(chunk) for chunk in found] == sizes
    assert [text for chunk in found for text in chunk] == texts


@pytest.mark.parametrize("character", ["x", ".", "é", "영", "한", "🎬"])
@pytest.mark.parametrize("length", [1, 7, 40, 199, 600])
def test_no_script_hides_its_tokens_from_the_clock(character: str, length: int) -> None:
    """A tokenizer makes a token of each full stop and of each syllable: 6,432 took 28 s at once."""
    found = [*chunks([character * length] * 40, 512)]
    assert sum(map(len, found)) == 40
    assert max(len(chunk) * min(length, 512) for chunk in found) <= 2 * 512


def test_sentences_asked_one_by_one_look_at_the_clock_too() -> None:
    class Slow(Fragile):
        def predict(self, texts: list[str]) -> list[Prediction]:
            """Fail together, and take longer alone than there is time."""
            time.sleep(0.2)
            return super().predict(["boom"] if len(texts) > 1 else texts)

    made = handler(Slow())
    made.seconds = 0.5
    answers, _ = ask(made, [b'{"instances": ["a", "b", "c", "d"]}'])
    found = [each.get("label", each.get("code")) for each in answers[0]["predictions"]]
    assert found[0] == "a"
    assert found[-1] == 503


def test_scores_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(BundleError, match="no numbers"):
        decode(torch.tensor([[float("nan"), 0.0]]), ["a", "b"])


def test_an_error_never_repeats_what_was_sent() -> None:
    answers, _ = ask(handler(Fragile()), [b'{"text": "a", "secret": 1}', b"secret \xff", b"secret"])
    assert "secret" not in json.dumps(answers)
    assert [answer["code"] for answer in answers] == [400, 400, 400]


def test_nothing_good_in_a_batch_needs_no_model() -> None:
    answers, _ = ask(handler(None), [b"{", b"}"])
    assert [answer["code"] for answer in answers] == [400, 400]


def test_labels_of_any_language_arrive_as_they_are() -> None:
    answers, _ = ask(handler(Fragile()), ["영화".encode()], TEXT)
    assert answers == [{"label": "영화", "score": 1.0, "scores": {"영화": 1.0}}]


def test_a_handler_refuses_an_archive_of_another_family(
    tiny: Models,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    export = tiny.exports["glove-cnn-torchscript"]
    (tmp_path / "model").symlink_to(export)
    context = Context([])
    context.system_properties["model_dir"] = str(tmp_path)
    root = logging.getLogger()
    level = root.level
    try:
        with pytest.raises(Exception, match="TransformerHandler does not serve glove"):
            TransformerHandler().initialize(context)
    finally:
        root.setLevel(level)
    assert Predictor.load(export).bundle.config.emb_class == "glove"
