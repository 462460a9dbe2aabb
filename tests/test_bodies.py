"""What a request may say beside its sentences, gzip, and the bodies of other protocols."""

import gzip
import json
import random
import time
import tracemalloc
import zlib
from typing import Any

import pytest
import torch

from handlers.base import BaseHandler
from handlers.body import MAX_BODY
from handlers.glove import GloveHandler
from model_src.bundle import Bundle
from model_src.decode import Choice, Prediction, decode
from model_src.errors import RequestError
from model_src.predictor import Predictor
from model_src.tokenizer import PAD, UNK, WordTokenizer
from tests.conftest import PAIRS, ROOT, Models
from tests.test_protocol import TEXT, Context, Fragile, ask, handler, worker_of

V2 = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a great film", "boring"]}


@pytest.fixture(scope="module")
def worker(tiny: Models, tmp_path_factory: pytest.TempPathFactory) -> GloveHandler:
    """A handler with a real model, as a worker has it."""
    return worker_of(tiny.exports["glove-cnn-torchscript"], tmp_path_factory.mktemp("extracted"))


def one(made: BaseHandler, body: object, **headers: str) -> dict[str, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    (answer,), context = ask(made, [raw], **headers)
    found: dict[str, Any] = answer
    assert context.statuses.get(0, 200) == found.get("code", 200)
    return found


def test_top_k_shortens_the_scores_alone(worker: BaseHandler) -> None:
    whole = one(worker, {"text": "a great film"})
    short = one(worker, {"text": "a great film", "top_k": 1})
    assert short == whole | {"scores": {whole["label"]: whole["score"]}}
    assert one(worker, {"text": "a great film", "top_k": 1000}) == whole


def test_below_the_threshold_the_label_is_null_with_the_scores(worker: BaseHandler) -> None:
    whole = one(worker, {"text": "a great film"})
    assert one(worker, {"text": "a great film", "threshold": whole["score"]}) == whole
    above = one(worker, {"text": "a great film", "threshold": 1})
    assert above == whole | {"label": None}


def test_the_threshold_of_a_multi_label_model_chooses_the_labels() -> None:
    (found,) = decode(torch.tensor([[2.0, 0.0, -2.0]]), ["a", "b", "c"], multi_label=True)
    given = {t: found.as_dict(Choice.of(threshold=t))["labels"] for t in (0, 0.5, 0.6, 1)}
    assert given == {0: ["a", "b", "c"], 0.5: ["a", "b"], 0.6: ["a"], 1: []}
    assert list(found.as_dict(Choice.of(2))["scores"]) == ["a", "b"]


@pytest.mark.parametrize("value", ['"1"', "0", "-1", "1.0", "true", "[]", "NaN", "1e999"])
def test_a_wrong_top_k_is_told_what_it_must_be(worker: BaseHandler, value: str) -> None:
    answer = one(worker, b'{"text": "a", "top_k": ' + value.encode() + b"}")
    assert answer == {"code": 400, "message": "top_k must be a whole number of 1 or more"}


@pytest.mark.parametrize("value", ['"0.5"', "-0.1", "1.01", "true", "{}", "NaN", "Infinity"])
def test_a_wrong_threshold_is_told_what_it_must_be(worker: BaseHandler, value: str) -> None:
    answer = one(worker, b'{"instances": ["a"], "threshold": ' + value.encode() + b"}")
    assert answer == {"code": 400, "message": "threshold must be a number from 0 to 1"}


def test_each_request_of_a_batch_has_its_own_choice(worker: BaseHandler) -> None:
    bodies = [{"text": "great", "top_k": 1}, {"text": "great"}, {"text": "great", "threshold": 1}]
    answers, _ = ask(worker, [json.dumps(body).encode() for body in bodies])
    assert [len(answer["scores"]) for answer in answers] == [1, 2, 2]
    assert [answer["label"] is None for answer in answers] == [False, False, True]


@pytest.mark.parametrize("wrap", [bytes, bytearray])
def test_a_form_may_hold_them_too(worker: BaseHandler, wrap: type) -> None:
    fields = {"text": wrap(b"a great film"), "top_k": wrap(b"1"), "threshold": wrap(b"1")}
    (raw,) = worker.handle([fields], Context([{}]))
    answer = json.loads(raw)
    assert (answer["label"], len(answer["scores"])) == (None, 1)
    for wrong in (b"one", b"", b"\xff", b"[" * 5000, b"9" * 5000):
        (raw,) = worker.handle([fields | {"top_k": wrong}], Context([{}]))
        assert json.loads(raw)["code"] == 400


def test_a_form_may_hold_them_beside_a_json_field() -> None:
    made = handler(Fragile())
    fields: dict[str, object] = {
        "data": b'{"instances": ["great", "dull"]}',
        "top_k": b"1",
        "threshold": b"1",
    }
    (raw,) = made.handle([fields], Context([{}]))
    answers = json.loads(raw)["predictions"]
    assert [answer["scores"] for answer in answers] == [{"great": 1.0}, {"dull": 1.0}]
    for name in ("top_k", "threshold"):
        for body in ({"text": "great"}, {"instances": ["great"]}, {"text": "great", name: 1}):
            data = json.dumps(body).encode()
            (raw,) = made.handle([{"data": data, name: b"wrong"}], Context([{}]))
            assert json.loads(raw)["code"] == 400
    twice: dict[str, object] = {"data": b'{"text": "a", "top_k": 1}', "top_k": b"2"}
    (raw,) = made.handle([twice], Context([{}]))
    assert json.loads(raw)["message"] == "top_k stands both in the JSON and beside it"


def test_truncation_is_reported_only_where_it_happened(worker: BaseHandler) -> None:
    limit = worker.predictor.bundle.config.n_ctx
    exact, over = "film " * limit, "film " * (limit + 1)
    answers = one(worker, {"instances": [exact, over, "film"]})["predictions"]
    assert [answer.get("truncated") for answer in answers] == [None, True, None]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_text_of_just_so_many_tokens_is_not_cut(tiny: Models, pair: tuple[str, str]) -> None:
    tokenizer, limit = Bundle.read(tiny.models[pair]).tokenizer, 40
    base = len(tokenizer.encode("film"))
    each = len(tokenizer.encode("film film")) - base
    most = (limit - base) // each + 1
    found = tokenizer.read_batch([" ".join(["film"] * count) for count in (1, most, most + 1)])
    assert [entry.truncated for entry in found] == [False, False, True]
    assert [len(entry.ids) for entry in found] == [base, base + each * (most - 1), limit]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_of_a_huge_text_only_a_part_is_looked_at(tiny: Models, pair: tuple[str, str]) -> None:
    """A worker that is busy for seconds with each request of a batch would be killed."""
    tokenizer = Bundle.read(tiny.models[pair]).tokenizer
    huge = ["a " * 500_000, "x" * 1_000_000, " " * 999_999 + "x", "great " + "\u0301" * 999_999]
    began = time.perf_counter()
    found = tokenizer.read_batch(huge)
    assert time.perf_counter() - began < 5  # 20 and more without the limit
    assert all(entry.truncated for entry in found)
    assert found[0].ids == tokenizer.encode("a " * 100)
    assert [entry.ids for entry in found] == [tokenizer.encode(text) for text in huge]
    assert all(word for text in huge[:2] for word, _ in tokenizer.read_words(text))


def test_text_without_a_word_is_one_token_and_not_cut() -> None:
    (found,) = WordTokenizer([PAD, UNK], lowercase=True, n_ctx=5).read_batch(["\u200d"])
    assert found == ([1], False)


# --- gzip


def test_a_gzip_body_is_read(worker: BaseHandler) -> None:
    plain = json.dumps({"text": "a great film"}).encode()
    for name in ("gzip", "GZIP", " x-gzip "):
        packed = one(worker, gzip.compress(plain), **{"Content-Encoding": name})
        assert packed == one(worker, plain)
    assert one(worker, plain, **{"content-encoding": "identity"}) == one(worker, plain)


def test_what_is_no_whole_gzip_is_refused(worker: BaseHandler) -> None:
    whole = gzip.compress(b'{"text": "a great film"}')
    for cut in range(len(whole)):
        assert one(worker, whole[:cut], **{"Content-Encoding": "gzip"})["code"] == 400
    wrong = [b"plain", whole + b"x", whole + whole, zlib.compress(b"a"), whole[:-8] + b"\0" * 8]
    for body in wrong:
        assert one(worker, body, **{"Content-Encoding": "gzip"})["code"] == 400
    for name in ("br", "deflate", "gzip, gzip"):
        answer = one(worker, whole, **{"Content-Encoding": name})
        assert answer["message"] == "the Content-Encoding must be gzip or none"


def test_a_gzip_bomb_costs_no_more_memory_than_a_body(worker: BaseHandler) -> None:
    bomb = gzip.compress(b'{"text": "' + b"a " * 100_000_000 + b'"}', 1)
    assert len(bomb) < MAX_BODY
    tracemalloc.start()
    answer = one(worker, bomb, **{"Content-Encoding": "gzip"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answer == {"code": 413, "message": f"the body unpacks to more than {MAX_BODY} bytes"}
    assert peak < 10 * MAX_BODY


def test_a_gzip_body_may_have_the_size_of_a_plain_one_to_the_byte() -> None:
    for size, code in ((MAX_BODY, 200), (MAX_BODY + 1, 413)):
        body = gzip.compress(b'{"text": "' + b"a" * (size - 12) + b'"}')
        answer = one(handler(Fragile()), body, **{"Content-Encoding": "gzip"})
        assert answer.get("code", 200) == code
    settings = (ROOT / "config.properties").read_text(encoding="utf-8")
    assert f"max_request_size={MAX_BODY}\n" in settings


# --- the Open Inference Protocol


def test_open_inference_bodies_get_tensors_in_the_order_of_the_labels(worker: BaseHandler) -> None:
    labels = worker.predictor.bundle.labels
    offline = worker.predictor.predict(["a great film", "boring"])
    answer = one(worker, {"id": "x-1", "inputs": [V2]})
    assert list(answer) == ["model_name", "model_version", "id", "outputs"]
    assert (answer["model_name"], answer["id"]) == ("tiny", "x-1")
    label, scores = answer["outputs"]
    assert label == {
        "name": "label",
        "shape": [2],
        "datatype": "BYTES",
        "data": [each.label for each in offline],
    }
    assert (scores["shape"], scores["datatype"]) == ([2, len(labels)], "FP32")
    assert scores["parameters"] == {"labels": labels}
    assert scores["data"] == [each.scores[name] for each in offline for name in labels]


def test_open_inference_names_of_outputs_and_a_threshold(worker: BaseHandler) -> None:
    body = {"inputs": [V2 | {"shape": [2, 1]}], "outputs": [{"name": "label"}]}
    answer = one(worker, body | {"parameters": {"threshold": 1}})
    assert [output["data"] for output in answer["outputs"]] == [["", ""]]
    assert "id" not in answer


def test_open_inference_tells_what_was_cut(worker: BaseHandler) -> None:
    data = V2 | {"data": ["film", "film " * 500]}
    assert one(worker, {"inputs": [data]})["parameters"] == {"truncated": [False, True]}


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": []},
        {"inputs": {}},
        {"inputs": None},
        {"inputs": [V2, V2]},
        {"inputs": ["a"]},
        {"inputs": [V2], "text": "a"},
        {"inputs": [V2], "id": 1},
        {"inputs": [V2], "id": ""},
        {"inputs": [V2], "id": "\ud800"},
        {"inputs": [V2], "id": "x" * 1000},
        {"inputs": [V2], "parameters": []},
        {"inputs": [V2], "parameters": {"top_k": 1}},
        {"inputs": [V2], "parameters": {"threshold": "1"}},
        {"inputs": [V2], "outputs": []},
        {"inputs": [V2], "outputs": [{}]},
        {"inputs": [V2], "outputs": "label"},
        {"inputs": [V2], "outputs": [{"name": "label"}] * 2},
        {"inputs": [V2], "outputs": [{"name": ["label"]}]},
        {"inputs": [V2 | {"shape": [1]}]},
        {"inputs": [V2 | {"shape": [True, 2]}]},
        {"inputs": [V2 | {"shape": [-1, -2]}]},
        {"inputs": [V2 | {"shape": []}]},
        {"inputs": [V2 | {"shape": "2"}]},
        {"inputs": [V2 | {"datatype": "FP32"}]},
        {"inputs": [V2 | {"data": "ab"}]},
        {"inputs": [V2 | {"data": [], "shape": [0]}]},
        {"inputs": [V2 | {"data": ["a", ""]}]},
        {"inputs": [V2 | {"data": ["a", 1]}]},
        {"inputs": [V2 | {"data": ["a"] * 129, "shape": [129]}]},
    ],
    ids=lambda body: json.dumps(body)[:60],
)
def test_a_wrong_open_inference_body_is_one_error_in_both_forms(
    worker: BaseHandler, body: object
) -> None:
    answer = one(worker, body)
    assert answer["code"] == 400
    assert answer["error"] == answer["message"]


def test_all_protocols_share_a_batch(worker: BaseHandler) -> None:
    bodies: list[object] = [{"text": "boring"}, {"inputs": [V2]}, {"instances": ["boring"]}, {}]
    answers, context = ask(worker, [json.dumps(body).encode() for body in bodies])
    first = answers[0]
    assert answers[1]["outputs"][0]["data"][1] == first["label"]
    assert answers[2] == {"predictions": [first]}
    assert context.statuses == {3: 400}


# --- describe


def test_a_description_tells_what_the_archive_knows(worker: BaseHandler, tiny: Models) -> None:
    plain = {"Content-Type": TEXT}
    context = Context([plain | {"describe": "True"}, plain])
    described, mate = map(json.loads, worker.handle([{}, {"body": b"great"}], context))
    bundle = worker.predictor.bundle
    assert described["labels"] == bundle.labels
    assert described["limits"] == {
        "tokens": bundle.config.n_ctx,
        "instances": 128,
        "body_bytes": MAX_BODY,
        "seconds": 40.0,
    }
    assert (described["name"], described["format"]) == ("tiny", "torchscript")
    measured = Bundle.read(tiny.exports["glove-cnn-torchscript"]).metrics["export"]
    assert described["measured"]["agreement"] == measured["agreement"]
    assert described["measured"]["sentences"] == 32
    assert described["source"] == Bundle.read(tiny.models["glove", "cnn"]).fingerprint
    assert mate["label"] == "good"


# --- anything at all


def test_no_body_brings_down_a_batch(worker: BaseHandler) -> None:
    """Mutations of good bodies: each has an answer or its own error, and its mate is untouched."""
    generator = random.Random(0)
    seeds = [
        b'{"text": "a great film", "top_k": 1, "threshold": 0.5}',
        b'{"instances": ["a", {"text": "b"}]}',
        json.dumps({"id": "1", "inputs": [V2], "outputs": [{"name": "scores"}]}).encode(),
        gzip.compress(b'{"text": "a great film"}'),
    ]
    good = one(worker, {"text": "great"})
    for _ in range(400):
        body = bytearray(generator.choice(seeds))
        for _ in range(generator.randint(1, 4)):
            at = generator.randrange(len(body))
            body[at : at + generator.randint(0, 3)] = generator.randbytes(generator.randint(0, 3))
            body = body or bytearray(b" ")
        more = generator.choice([{}, {"Content-Encoding": "gzip"}])
        kind = generator.choice(["application/json", TEXT, ""])
        context = Context([{"Content-Type": kind} | more, {}])
        fuzzed, mate = worker.handle([{"body": body}, {"body": b'{"text": "great"}'}], context)
        assert isinstance(json.loads(fuzzed), dict)
        assert context.statuses.get(0, 200) in {200, 400}
        assert json.loads(mate) == good


def test_the_offline_choice_is_the_served_one(worker: BaseHandler, tiny: Models) -> None:
    (offline,) = Predictor.load(tiny.exports["glove-cnn-torchscript"]).predict(["film " * 100])
    served = one(worker, {"text": "film " * 100, "top_k": 1, "threshold": 0.99})
    assert offline.as_dict(Choice.of(1, 0.99)) == served
    assert served["truncated"] is True


def test_a_choice_repeats_nothing_that_was_sent() -> None:
    for arguments in (("secret", None), (None, "secret")):
        with pytest.raises(RequestError) as caught:
            Choice.of(*arguments)
        assert "secret" not in str(caught.value)


def test_an_answer_has_its_fields_in_the_documented_order() -> None:
    assert list(Prediction("a", 1.0, {"a": 1.0}, truncated=True).as_dict()) == [
        "label",
        "score",
        "scores",
        "truncated",
    ]
