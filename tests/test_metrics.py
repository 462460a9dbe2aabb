"""What Prometheus is told equals what a client has counted, and a dashboard shows nothing else."""

import gzip
import json
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest
import requests
import yaml

from handlers import ledger
from handlers.body import MAX_BODY
from handlers.protocol import Answer, Failure
from model_src.bundle import Bundle
from model_src.decode import MultiPrediction, Prediction
from model_src.explain import Explanation
from serving.server import Server
from tests.conftest import ODD_TEXTS, ROOT, SERVED, Models
from tests.test_server import post

_LINE = re.compile(r"(\w+)\{(.*)\} (\S+)")


def scrape(live: Server) -> Counter[str]:
    """Return the counters of one model, the labels kind and size in brackets, hosts added up."""
    found = Counter[str]()
    url = f"http://127.0.0.1:{live.ports['metrics']}/metrics"
    for name, labels, value in _LINE.findall(requests.get(url, timeout=20).text):
        known = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if known.get("model_name") == SERVED[0]:
            more = known.get("kind") or known.get("size")
            found[f"{name}[{more}]" if more else name] += float(value)  # type: ignore[assignment]
    return found


def test_metrics_equal_the_ledger_of_the_client(live: Server, tiny: Models) -> None:
    good = [text for text in ODD_TEXTS if len(text) < 1000] * 4
    many = {"instances": [{"text": text} for text in good[:5]] + [{"text": 1}]}
    bodies = [json.dumps({"text": text}).encode() for text in good]
    bodies += [b"{", b'{"text": "\\ud800"}', json.dumps(many).encode()]
    time.sleep(2 * ledger.SECONDS)  # what tests before this one have sent
    before = scrape(live)
    with ThreadPoolExecutor(8) as pool:
        codes = Counter(pool.map(lambda body: post(live, SERVED[0], body).status_code, bodies))
    assert codes == {200: len(good) + 1, 400: 2}
    bombs = [gzip.compress(bytes(MAX_BODY + 1))] * 3
    packed = [post(live, SERVED[0], body, encoding="gzip") for body in bombs]
    assert [answer.status_code for answer in packed] == [413] * len(bombs)
    bodies += bombs
    deadline = time.monotonic() + 10
    while (scrape(live) - before)[ledger.REQUESTS] < len(bodies):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)  # one report is several lines, read one by one
    found = scrape(live) - before
    tokenizer = Bundle.read(tiny.exports[SERVED[0]]).tokenizer
    assert found[ledger.REQUESTS] == found["ts_inference_requests_total"] == len(bodies)
    assert found[ledger.SENTENCES] == len(good) + 5
    errors = {name: count for name, count in found.items() if name.startswith(ledger.ERRORS)}
    refused = {"bad_request": 3, "request_entity_too_large": len(bombs)}
    assert errors == {f"{ledger.ERRORS}[{kind}]": count for kind, count in refused.items()}
    assert found[ledger.TOKENS] == sum(map(len, tokenizer.encode_batch(good + good[:5])))
    sizes = {name: count for name, count in found.items() if name.startswith(ledger.BATCHES)}
    assert set(sizes) <= {f"{ledger.BATCHES}[{size}]" for size in (1, 2, 4, 8)}
    assert len(bodies) / 8 <= sum(sizes.values()) <= len(bodies)
    assert found[ledger.MICROSECONDS] > 0
    assert found["ts_queue_latency_microseconds"] > 0


def a_ledger() -> ledger.Ledger:
    """Return the ledger of a worker that has read 100 tokens to warm up."""
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        # TorchServe leaves its own file and ours open.
        from ts.context import Context
        from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

        declared = MetricsCacheYamlImpl(str(ROOT / "serving" / "metrics.yaml"))
    declared.initialize_cache()
    manifest = {"model": {"modelName": "m", "modelVersion": "2"}}
    return ledger.Ledger(Context("m", "", manifest, 8, None, "", metrics=declared), 100)


def test_a_ledger_reports_the_difference_once_and_in_torchserves_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted = a_ledger()
    counted.ran(107, 0.5)
    late = Failure(HTTPStatus.SERVICE_UNAVAILABLE, "")
    counted.add(3, [late, late, Failure(HTTPStatus.BAD_REQUEST, "")])
    predictions = [kind.of({"a": 1.0}) for kind in (Prediction, MultiPrediction)]
    counted.add(1, [*predictions, Explanation("a", 1.0, [], 1.0, 0.0, 16)])
    counted.explained(0.25)
    counted.report()
    model = "|#model_name:m,model_version:2"
    for said in (
        f"iclassifier_tokens_total.Count:7{model}|#type:COUNTER",
        f"iclassifier_batches_total.Count:1{model},size:4|#type:COUNTER",
        f"iclassifier_sentences_total.Count:2{model}|#type:COUNTER",
        f"iclassifier_explanations_total.Count:1{model}|#type:COUNTER",
        f"iclassifier_model_microseconds_total.Microseconds:500000{model}|#type:COUNTER",
        f"iclassifier_explanation_microseconds_total.Microseconds:250000{model}|#type:COUNTER",
        f"iclassifier_errors_total.Count:2{model},kind:service_unavailable|#type:COUNTER",
    ):
        assert f"[METRICS]{said}" in caplog.text
    caplog.clear()
    counted.report()
    assert not caplog.text


def test_a_report_while_answers_are_counted_says_nothing_untrue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Watched(list[Answer]):
        def __iter__(self) -> Iterator[Answer]:
            """Report before each answer, as the other thread may."""
            for each in super().__iter__():
                counted.report()
                yield each

    counted = a_ledger()
    counted.add(1, Watched([Failure(HTTPStatus.BAD_REQUEST, "")] * 3))
    counted.report()
    assert f"{ledger.ERRORS}.Count:3|" in caplog.text
    assert ledger.SENTENCES not in caplog.text
    assert ledger.EXPLANATIONS not in caplog.text


def test_without_declared_metrics_nothing_is_counted() -> None:
    silent = ledger.Ledger(None)
    silent.ran(5, 1.0)
    silent.add(1, [])
    assert not silent.on


def test_the_dashboard_shows_declared_metrics_only() -> None:
    declared = yaml.safe_load((ROOT / "serving" / "metrics.yaml").read_text(encoding="utf-8"))
    names = {
        metric["name"]
        for part in ("ts_metrics", "model_metrics")
        for kind in declared[part].values()
        for metric in kind
    }
    board = json.loads((ROOT / "serving" / "grafana.json").read_text(encoding="utf-8"))
    used = set()
    for panel in board["panels"]:
        for target in panel["targets"]:
            used |= set(re.findall(r"\b(?:iclassifier|ts|Requests)\w+", target["expr"]))
    assert used <= names
    assert {name for name in names if name.startswith("iclassifier")} <= used
