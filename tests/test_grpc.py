"""The client over gRPC: the answers of REST to the last bit, and the same care for errors."""

import contextlib
import json
import os
import re
import signal
import sysconfig
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from chaos import strangers
from model_src.errors import ServerError
from serving import grpc_client
from serving.client import Client, read_key
from serving.process import free_ports
from serving.server import Server
from tests.conftest import MULTI, ODD_TEXTS, SERVED, verb

NAME = SERVED[0]
MARKER = "quokkaquokka"  # must reach no log
GOOD = {"label": "good", "score": 1.0, "scores": {"good": 1.0}}


class Fake:
    """A gRPC server that answers in turn with errors and objects, then well."""

    def __init__(self, folder: Path) -> None:
        """Listen on a free port."""
        self.turns: list[object] = []  # codes and objects
        self.asked: list[tuple[str, str, object]] = []
        self.keys: list[str] = []
        self.key_file = folder / "key_file.json"
        self.give("first")
        asked, said = grpc_client.messages()

        def answer(request: object, context: grpc.ServicerContext) -> object:
            body = json.loads(request.input["data"])  # type: ignore[attr-defined]
            names = (request.model_name, request.model_version)  # type: ignore[attr-defined]
            self.asked.append((*names, body))
            self.keys.append(dict(context.invocation_metadata())["authorization"])
            turn = self.turns.pop(0) if self.turns else GOOD
            if isinstance(turn, grpc.StatusCode):
                context.abort(turn, "as the test wants")
            return said(prediction=json.dumps(turn).encode())

        handler = grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=asked.FromString,
            response_serializer=said.SerializeToString,
        )
        service, method = grpc_client.METHOD.strip("/").split("/")
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        self.url = f"grpc://127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}/tiny"
        self.server.start()

    def give(self, key: str) -> None:
        """Write a key file."""
        self.key_file.write_text(json.dumps({"inference": {"key": key}}), encoding="utf-8")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """One server; clients do not wait."""
    monkeypatch.setattr("serving.client.time.sleep", lambda seconds: None)
    made = Fake(tmp_path)
    yield made
    made.server.stop(None).wait()


def test_the_messages_are_those_that_torchserve_ships() -> None:
    (jar,) = Path(sysconfig.get_paths()["purelib"]).glob("ts/frontend/*.jar")
    with zipfile.ZipFile(jar) as packed:
        text = packed.read("proto/inference.proto").decode()
    assert f"package {grpc_client._PACKAGE};" in text
    assert "rpc Predictions(PredictionsRequest) returns (PredictionResponse)" in text
    for message in grpc_client.messages():
        name = message.DESCRIPTOR.name
        (body,) = re.findall(rf"message {name} \{{(.*?)\n\}}", text, re.DOTALL)
        shipped = {(field, int(i)) for field, i in re.findall(r"(\w+) = (\d+);", body)}
        ours = {(field.name, field.number) for field in message.DESCRIPTOR.fields}
        assert ours <= shipped
    assert "map<string, bytes> input = 3;" in text


def test_a_request_says_model_version_and_key(fake: Fake) -> None:
    with Client(fake.url + "/2.0", fake.key_file, top_k=1) as client:
        assert client.predict("ü \ud800") == GOOD
    assert fake.asked == [("tiny", "2.0", {"text": "ü \ud800", "top_k": 1})]
    assert fake.keys == ["Bearer first"]


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ],
)
def test_what_passes_by_itself_is_asked_again(fake: Fake, code: grpc.StatusCode) -> None:
    fake.turns = [code, code, {"code": 503, "message": "not answered in time"}]
    assert Client(fake.url, fake.key_file).predict("a") == GOOD
    assert len(fake.asked) == 4
    fake.turns = [code] * 9
    with pytest.raises(ServerError):
        Client(fake.url, fake.key_file, attempts=3).predict("a")
    assert len(fake.turns) == 6


def test_what_stays_wrong_is_asked_once(fake: Fake) -> None:
    fake.turns = [grpc.StatusCode.INVALID_ARGUMENT]
    with pytest.raises(ServerError, match="tiny answered 400: as the test wants"):
        Client(fake.url, fake.key_file).predict("a")
    fake.turns = [{"code": 400, "message": "the text is empty"}]
    with pytest.raises(ServerError, match="tiny answered 400: the text is empty"):
        Client(fake.url, fake.key_file).predict("")
    assert len(fake.asked) == 2


def test_a_rotated_key_is_read_again(fake: Fake) -> None:
    client = Client(fake.url, fake.key_file)
    fake.give("second")
    fake.turns = [grpc.StatusCode.PERMISSION_DENIED]
    assert client.predict("a") == GOOD
    assert fake.keys == ["Bearer first", "Bearer second"]


def test_a_server_that_is_away_is_named(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('{"inference": {"key": "k"}}', encoding="utf-8")
    (port,) = free_ports(1)
    url = f"grpc://127.0.0.1:{port}/tiny"
    with pytest.raises(ServerError, match=r"tiny does not answer \(ConnectionError\)"):
        Client(url, keys, attempts=2).predict("a")
    with pytest.raises(ServerError, match="explains nothing over gRPC"):
        Client(url, keys).explain("a")
    with pytest.raises(ServerError, match="grpc:// is not encrypted"):
        Client(url, keys, ca_file=keys)
    for wrong in ("grpc://127.0.0.1/tiny", "grpc://127.0.0.1:7070", "grpc://127.0.0.1:7070/"):
        with pytest.raises(ServerError, match="no grpc://host:port/NAME"):
            Client(wrong, keys)


@pytest.fixture
def both(live: Server) -> Callable[..., tuple[Client, Client]]:
    """Clients of one model over gRPC and REST."""
    return lambda name, **wanted: (
        Client(live.grpc_url(name), live.key_file, **wanted),
        Client(live.url(name), live.key_file, **wanted),
    )


def test_answers_are_those_of_rest(both: Callable[..., tuple[Client, Client]]) -> None:
    texts = [*ODD_TEXTS, "", "half \ud800"] * 10
    for name, wanted in ((NAME, {}), (NAME, {"top_k": 1, "threshold": 0.9}), (MULTI, {})):
        over_grpc, over_rest = both(name, **wanted)
        assert [*over_grpc.stream(texts)] == [*over_rest.stream(texts)]
    assert both(f"{NAME}/1.0")[0].predict("great") == both(NAME)[1].predict("great")


def test_errors_are_those_of_rest(both: Callable[..., tuple[Client, Client]]) -> None:
    for name, text in ((NAME, ""), ("none", "a"), (f"{NAME}/9", "a")):
        said = []
        for client in both(name):
            with pytest.raises(ServerError) as caught:
                client.predict(text)
            said.append(re.findall(r"answered (\d+): (.{15})", str(caught.value)))
        assert said[0] == said[1]
        assert said[0]
    over_grpc = both(NAME)[0]
    large, good = over_grpc.stream(["x" * 1_100_000, "great"])
    assert (large["code"], good["label"]) == (413, "good")


def test_a_call_for_a_stream_gets_its_answer_and_costs_no_worker(live: Server) -> None:
    """TorchServe's own error at an answer that is no stream ends the worker."""
    asked, said = grpc_client.messages()
    pids = {each["pid"] for each in live.workers(NAME)}
    key = ("authorization", f"Bearer {read_key(live.key_file, 'inference')}")
    with grpc.insecure_channel(f"127.0.0.1:{live.ports['grpc_inference']}") as channel:
        stream = channel.unary_stream(
            grpc_client.METHOD.replace("/Predictions", "/StreamPredictions"),
            request_serializer=asked.SerializeToString,
            response_deserializer=said.FromString,
        )
        for body in (b'{"text": "great"}', b"raw text"):
            request = asked(model_name=NAME, input={"data": body})
            found = [json.loads(each.prediction) for each in stream(request, 30, (key,))]
            assert len(found) == 1
            assert found[0]["label"]
    time.sleep(1)  # a worker that is lost would be missed by then
    assert {each["pid"] for each in live.workers(NAME)} == pids


@contextlib.contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Let no worker answer: a fast one answers within any time-out that a client can have."""
    pids = [each["pid"] for each in server.workers(NAME)]
    assert pids
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_without_its_own_key_neither_port_answers(live: Server) -> None:
    assert not [*strangers.over_grpc(live, NAME)]


def test_the_verb_takes_the_address_and_no_log_holds_a_sentence_or_a_token(
    live: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--url={live.grpc_url(NAME)}", f"--key_file={live.key_file}"]
    assert verb(capsys, "predict", *options, "great").startswith("great\tgood\t")
    client = Client(live.grpc_url(NAME), live.key_file)
    list(client.stream([MARKER, MARKER + "\x00", MARKER * 100_000]))
    late = Client(live.grpc_url(NAME), live.key_file, seconds=0.5, attempts=1)
    with stopped(live), pytest.raises(ServerError, match="ReadTimeout"):
        late.predict(MARKER)
    assert client.predict("great")["label"] == "good"
    key = read_key(live.key_file, "inference")
    for path in (live.run_dir / "logs").iterdir():
        content = path.read_text(encoding="utf-8")
        assert MARKER not in content, path
        assert key not in content, path
