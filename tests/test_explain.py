"""Word attributions sum to the difference of the logits, offline and served, and come from fp32."""

import json
import logging
import math
import time
import types
import warnings
from pathlib import Path

import pytest
import torch

from handlers.glove import GloveHandler
from handlers.protocol import MAX_EXPLAINED
from model_src.errors import BundleError, ConfigError, RequestError, ServerError
from model_src.explain import GAP, Explainer, Explanation
from model_src.predictor import Predictor
from serving.archive import archive
from serving.client import Client
from serving.server import Server
from tests.conftest import EXPLAINED, ODD_TEXTS, PAIRS, Models, verb
from tests.test_protocol import Context, Fragile, ask, handler, worker_of

TEXT = "the film is great , but it is n't very funny"


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_the_words_sum_to_the_difference_of_the_logits(tiny: Models, pair: tuple[str, str]) -> None:
    explainer = Explainer.load(tiny.models[pair])
    predictor = Predictor.load(tiny.models[pair])
    for text in (TEXT, "great", "film " * 100, "정말 재미있는 great 영화였어요"):
        found = explainer.explain(text)
        (known,) = predictor.predict([text])
        assert found.label == known.label
        assert found.score == pytest.approx(known.score, abs=1e-6)
        assert found.truncated == known.truncated
        added = math.fsum(value for _, value in found.words)
        # near the baseline itself the difference may be smaller than its rounding
        allowed = max(0.05 * abs(found.logit - found.baseline), 1e-4)
        assert abs(added - (found.logit - found.baseline)) <= allowed
        ids = predictor.bundle.tokenizer.encode_batch([text])
        logits = predictor.backend(torch.tensor(ids), torch.ones(1, len(ids[0]), dtype=torch.bool))
        column = predictor.bundle.labels.index(found.label)
        assert found.logit == pytest.approx(float(logits[0, column].detach()), abs=1e-4)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_word_that_is_read_is_named_in_order(tiny: Models, pair: tuple[str, str]) -> None:
    words = [word for word, _ in Explainer.load(tiny.models[pair]).explain(TEXT).words]
    assert "".join(words) == TEXT.replace(" ", "")


@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_odd_text_is_explained(tiny: Models, text: str) -> None:
    for pair in (("glove", "cnn"), ("bert", "cls"), ("bart", "cls")):
        found = Explainer.load(tiny.models[pair]).explain(text)
        json.dumps(found.as_dict(), allow_nan=False)


def test_a_word_that_decides_adds_the_most(tiny: Models) -> None:
    found = Explainer.load(tiny.models["glove", "cnn"]).explain("the movie is superb .", "good")
    added = dict(found.words)
    assert max(added, key=lambda word: added[word]) == "superb"
    other = Explainer.load(tiny.models["glove", "cnn"]).explain("the movie is superb .", "bad")
    assert other.label == "bad"
    assert dict(other.words)["superb"] < 0


def test_labels_of_a_multi_label_model_are_explained_one_by_one(multi: Models) -> None:
    explainer = Explainer.load(multi.models["glove", "cnn"])
    for word, label in (("boring", "bore"), ("funny", "joy")):
        added = dict(explainer.explain("it is boring and funny", label).words)
        assert added[word] == max(added.values())


@pytest.mark.parametrize("pair", [("glove", "cnn"), ("bert", "cls"), ("mpnet", "cnn")])
def test_captum_finds_the_same(tiny: Models, pair: tuple[str, str]) -> None:
    pytest.importorskip("captum", reason="captum is not installed", exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from captum.attr import LayerIntegratedGradients

        explainer = Explainer.load(tiny.models[pair])
        found = explainer.explain(TEXT)
        model, tokenizer = explainer.model, explainer.bundle.tokenizer
        ids = torch.tensor([tokenizer.encode(TEXT)])
        inner = [i for _, positions in tokenizer.read_words(TEXT) for i in positions]
        base = ids.clone()
        base[:, inner] = tokenizer.pad_id
        ((lookup, _),) = model.embedding.lookups()
        mask = torch.ones_like(ids, dtype=torch.bool)

        def run(ids: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = model(ids, mask.expand(len(ids), -1))
            return logits

        lookup.weight.requires_grad_()
        added = LayerIntegratedGradients(run, lookup).attribute(
            ids,
            base,
            target=explainer.bundle.labels.index(found.label),
            n_steps=found.steps,
        )
    theirs = added.sum(dim=2)[0, inner].tolist()
    ours = [value for _, value in found.words]
    merged = iter(theirs)
    by_word = [sum(next(merged) for _ in positions) for _, positions in tokenizer.read_words(TEXT)]
    assert ours == pytest.approx(by_word, abs=1e-4)


def test_an_export_cannot_be_explained_and_says_what_can(tiny: Models) -> None:
    with pytest.raises(BundleError, match="name the model directory that it was made from"):
        Explainer.load(tiny.exports["glove-cnn-int8"])


def test_a_target_that_is_no_label_and_a_deadline_end_it(tiny: Models) -> None:
    explainer = Explainer.load(tiny.models["glove", "cnn"])
    with pytest.raises(RequestError, match="the target is none of the model's labels"):
        explainer.explain(TEXT, "secret")
    with pytest.raises(TimeoutError):
        explainer.explain(TEXT, deadline=time.monotonic() - 1)
    assert explainer.explain(TEXT).gap <= GAP  # nothing is left behind on the model


# --- in the handler


EXPLAIN = {"explain": "True"}


@pytest.fixture
def worker(tiny: Models, tmp_path: Path) -> GloveHandler:
    """A handler of an archive that can explain."""
    (tmp_path / "explain").symlink_to(tiny.models["glove", "cnn"])
    return worker_of(tiny.exports["glove-cnn-int8"], tmp_path)


def test_a_handler_explains_as_offline(
    worker: GloveHandler, tiny: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    took: list[float] = []
    monkeypatch.setattr(worker.ledger, "explained", took.append)
    offline = Explainer.load(tiny.models["glove", "cnn"])
    bodies = [
        {"text": TEXT},
        {"text": TEXT, "target": "bad"},
        {"instances": [TEXT, "", {"text": "great"}]},
    ]
    answers, context = ask(worker, [json.dumps(body).encode() for body in bodies], **EXPLAIN)
    assert answers[0] == offline.explain(TEXT).as_dict()
    assert answers[1] == offline.explain(TEXT, "bad").as_dict()
    first, empty, last = answers[2]["explanations"]
    assert (first, empty["code"], last["words"][0]["word"]) == (answers[0], 400, "great")
    assert context.statuses == {}
    assert worker.about["explanations"] is True
    assert len(took) == 4  # of five sentences one was refused unseen


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"text": TEXT, "target": "secret"}, "none of the model's labels"),
        ({"text": TEXT, "target": 1}, "the target must be a label"),
        ({"text": TEXT, "top_k": 1}, "target only"),
        ({"inputs": []}, "target only"),
        ({"instances": ["a"] * (MAX_EXPLAINED + 1)}, "are more than 16"),
    ],
)
def test_a_wrong_question_is_refused_beside_a_good_one(
    worker: GloveHandler, body: object, said: str
) -> None:
    context = Context([EXPLAIN, {}])
    bodies = [json.dumps(body).encode(), b'{"text": "great"}']
    wrong, good = map(json.loads, worker.handle([{"body": body} for body in bodies], context))
    assert said in wrong["message"]
    assert "secret" not in wrong["message"]
    assert good["label"] == "good"
    assert context.statuses == {0: 400}


def test_without_the_model_a_handler_says_how_to_get_it(tiny: Models, tmp_path: Path) -> None:
    made = worker_of(tiny.exports["glove-cnn-int8"], tmp_path)
    (answer,), context = ask(made, [b'{"text": "great"}'], **EXPLAIN)
    assert answer["message"].endswith("make it with archive --explain MODEL_DIR")
    assert context.statuses == {0: 400}
    assert made.about["explanations"] is False


def test_what_fails_or_is_late_is_an_error_of_its_own(
    worker: GloveHandler, caplog: pytest.LogCaptureFixture
) -> None:
    worker.seconds = -1.0
    (answer,), _ = ask(worker, [b'{"text": "great"}'], **EXPLAIN)
    assert answer["code"] == 503

    def breaks(text: str, *rest: object, **more: object) -> None:
        raise ValueError(text)

    made = handler(Fragile())
    made.__dict__["_explainer"] = types.SimpleNamespace(explain=breaks)
    with caplog.at_level(logging.DEBUG):
        (answer,), _ = ask(made, [b'{"text": "boom secret"}'], **EXPLAIN)
    assert answer["code"] == 500
    assert "secret" not in caplog.text


def test_an_explanation_of_no_numbers_costs_its_mates_nothing() -> None:
    """JSON has no NaN: null in its place would pass for an answer."""

    def explain(text: str, *rest: object, **more: object) -> Explanation:
        logit = math.nan if text == "odd" else 1.0
        return Explanation("good", 0.5, [(text, logit)], logit, 0.0, 1)

    made = handler(Fragile())
    made.__dict__["_explainer"] = types.SimpleNamespace(explain=explain)
    (odd, even), context = ask(made, [b'{"text": "odd"}', b'{"text": "even"}'], **EXPLAIN)
    assert odd["code"] == 500
    assert even["words"] == [{"word": "even", "attribution": 1.0}]
    assert context.statuses == {0: 500}


def test_explanations_that_are_late_compute_nothing() -> None:
    """TorchServe kills a worker that is silent for too long, and each costs a forward pass."""
    asked: list[str] = []

    def late(text: str, *rest: object, **more: object) -> None:
        asked.append(text)
        raise TimeoutError

    made = handler(Fragile())
    made.seconds = -1.0
    made.__dict__["_explainer"] = types.SimpleNamespace(explain=late)
    body = json.dumps({"instances": ["great"] * MAX_EXPLAINED}).encode()
    (first, second), _ = ask(made, [body, body], **EXPLAIN)
    for answer in (first, second):
        assert [each["code"] for each in answer["explanations"]] == [503] * MAX_EXPLAINED
    assert not asked


def test_a_damaged_model_keeps_a_worker_from_starting(tiny: Models, tmp_path: Path) -> None:
    (tmp_path / "explain").mkdir()
    with pytest.raises(BundleError, match="is no whole bundle"):
        worker_of(tiny.exports["glove-cnn-int8"], tmp_path)


# --- archived, served and on the command line


def test_only_the_model_of_the_export_is_packed(tiny: Models, tmp_path: Path) -> None:
    export = tiny.exports["glove-cnn-int8"]
    for other in (tiny.models["bert", "cls"], export):
        with pytest.raises(BundleError, match=r"is not the model that .* was made from"):
            archive(export, "x", tmp_path, explain=other)
    assert not list(tmp_path.iterdir())


def test_served_explanations_are_the_offline_ones(
    live: Server, tiny: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.models["bert", "cls"]
    served = Client(live.url(EXPLAINED), live.key_file).explain(TEXT)
    offline = Explainer.load(folder).explain(TEXT).as_dict()
    assert [each["word"] for each in served["words"]] == [each["word"] for each in offline["words"]]
    for a, b in zip(served["words"], offline["words"], strict=True):
        assert a["attribution"] == pytest.approx(b["attribution"], abs=1e-5)
    assert served["gap"] <= 0.05
    address = ["--url", live.url(EXPLAINED), "--key_file", live.key_file]
    shown = verb(capsys, "predict", "--explain", *address, TEXT, "great")
    assert shown == verb(capsys, "predict", "--explain", "--model_path", folder, TEXT, "great")
    assert len(shown.splitlines()[0].split("\t")) == 4


def test_a_server_without_the_model_says_how_to_get_it(live: Server) -> None:
    name = next(name for name in live.models if name != EXPLAINED)
    with pytest.raises(ServerError, match="make it with archive --explain MODEL_DIR"):
        Client(live.url(name), live.key_file).explain(TEXT)


def test_predict_refuses_options_that_do_not_go_together(
    capsys: pytest.CaptureFixture[str], tiny: Models
) -> None:
    model = ["--model_path", tiny.models["glove", "cnn"], "great"]
    with pytest.raises(ConfigError, match="takes no --top_k"):
        verb(capsys, "predict", "--explain", "--top_k", "1", *model)
    with pytest.raises(ConfigError, match="--target is for --explain"):
        verb(capsys, "predict", "--target", "good", *model)
