"""What stands for TorchServe's Python in a worker reads and writes as that does, byte for byte."""

import contextlib
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import time
import types
import warnings
import zipfile
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
import yaml

from handlers import wire
from handlers.headers import headers_of
from serving.archive import archive
from tests.conftest import ROOT, exported, tiny_config
from train import data, loop

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # ts leaves a file open
    from ts.context import Context, RequestProcessor
    from ts.protocol import otf_message_handler as own
    from ts.service import Service

END = struct.pack("!i", -1)


def field(value: str | bytes) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return struct.pack("!i", len(content)) + content


Pairs = list[tuple[str | bytes, str | bytes]]
JSON: Pairs = [("Host", "localhost"), ("X-Empty", ""), ("Content-Type", "application/json")]


def request(number: int, headers: Pairs, *fields: tuple[str, str | bytes]) -> bytes:
    """A request as TorchServe's Java writes it."""
    out = field(f"request-{number}") + b"".join(field(a) + field(b) for a, b in headers) + END
    return out + b"".join(field(a) + field("any/type") + field(b) for a, b in fields) + END


def message(bodies: list[bytes]) -> bytes:
    """A batch of requests with a body each."""
    every = [request(i, JSON, ("body", body)) for i, body in enumerate(bodies)]
    return b"".join((b"I", *every, END))


# What a client, a form or gRPC can make of a request.
ODD = [
    request(0, [], ("data", b"over gRPC"), ("top_k", b"1")),
    request(1, JSON),
    request(2, [("a", "1"), ("A", "2"), ("é", "정말"), ("body", "x")], ("body", b"{"), ("é", b"")),
    request(3, JSON, ("body", b"first"), ("body", b"second")),
    # null values
    field("request-4") + field("X") + END + END + field("body") + END + END + END,
]


class Pieces:
    """A connection on which bytes arrive in pieces of any size."""

    def __init__(self, content: bytes, seed: int) -> None:
        self.content, self.generator, self.calls = content, random.Random(seed), 0

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Return some of what is left."""
        self.calls += 1
        count = min(size, self.generator.choice([1, 3, 4, 50, 1000, 100_000]))
        found, self.content = self.content[:count], self.content[count:]
        return found


BATCHES = [
    [b'{"text": "good"}'],
    [b"", b"\x00\xff", "정말".encode(), b"x" * 200_000],
    [b"a" * size for size in range(30)],
]


@pytest.mark.parametrize("seed", range(5))
def test_it_reads_what_torchserve_reads(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", "false")  # as our config.properties has it
    batches = [message(bodies) for bodies in BATCHES]
    batches += [b"".join((b"I", *ODD, END)), b"I" + END]
    sent = b"".join(batches)
    mine, theirs = Pieces(sent, seed), Pieces(sent, seed)
    reader = wire.Reader()
    for _ in batches:
        command, calls = reader(mine)
        headers, fields, ids = Service.retrieve_data_for_inference(own.retrieve_msg(theirs)[1])
        assert command == b"I"
        assert [call.fields for call in calls] == fields
        assert [call.id for call in calls] == [field(each) for each in ids.values()]
        context = Context("tiny", "", {}, 1, None, "0.12.0")
        context.request_processor = headers
        assert [call.headers for call in calls] == [
            headers_of(context, i) for i in range(len(calls))
        ]
    with pytest.raises(SystemExit):  # the server has gone
        reader(mine)


class Whole(Pieces):
    """A connection on which all has arrived."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Return as much as is asked for."""
        self.calls += 1
        found, self.content = self.content[:size], self.content[size:]
        return found


def block(headers: Pairs) -> bytes:
    """Headers as they come before their mark."""
    return b"".join(field(a) + field(b) for a, b in headers)


def test_short_headers_are_read_once_and_nobody_can_change_them() -> None:
    wire._read.cache_clear()
    fits: Pairs = [("x", "y" * (wire._BLOCK - len(block([("x", "")]))))]
    assert len(block(fits)) == wire._BLOCK
    more: Pairs = [("x", str(fits[0][1]) + "y")]
    for headers, kept, hits in ((JSON, 1, 0), (JSON, 1, 1), (fits, 2, 1), (more, 2, 1), ([], 3, 1)):
        _, (call,) = wire.Reader()(Whole(b"I" + request(0, headers) + END, 0))
        assert call.headers == {str(name).lower(): value for name, value in headers}
        assert (wire._read.cache_info().currsize, wire._read.cache_info().hits) == (kept, hits)
        with pytest.raises(TypeError):
            call.headers["x"] = "z"  # type: ignore[index]


@pytest.mark.parametrize("wrong", [field("a"), block(JSON)[:-1], b"\0\0", b"\xff\xff\xff\xfe"])
def test_headers_that_do_not_end_where_the_mark_seems_to_be_are_read_the_long_way(
    wrong: bytes,
) -> None:
    assert wire._read(wrong) is None


def test_a_form_of_many_fields_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read again from its beginning with each piece it would take a worker more than its time."""
    count, reads = 20_000, 0
    number = wire._number

    def counted(data: bytes, at: int) -> tuple[int]:
        nonlocal reads
        reads += 1
        return number(data, at)

    class Slow:
        """A connection on which a thousand bytes arrive at a time."""

        def __init__(self, content: bytes) -> None:
            self.content = content

        def recv(self, size: int, flags: int = 0, /) -> bytes:
            found, self.content = self.content[:1000], self.content[1000:]
            return found

    monkeypatch.setattr(wire, "_number", counted)
    fields = [(f"a{i}", b"") for i in range(count)]
    _, (call,) = wire.Reader()(Slow(b"I" + request(0, JSON, *fields) + END))
    assert call.fields == dict(fields)
    assert reads < 4 * count


def test_it_writes_what_torchserve_writes() -> None:
    kinds = (("content-type", "application/json"),)
    replies = [
        wire.Reply(HTTPStatus.OK, kinds, b'{"label":"\xec\xa0\x95"}'),
        wire.Reply(HTTPStatus.BAD_REQUEST, kinds, b""),
        wire.Reply(HTTPStatus.SERVICE_UNAVAILABLE, (*kinds, ("x-worker", "7")), b"\x00" * 9),
        wire.Reply(HTTPStatus.OK, (*kinds, ("ts_stream_next", "false")), b"{}"),
    ]
    for count in range(len(replies) + 1):
        ids = {i: f"request-{i}" for i in range(count)}
        calls = [wire.Call(field(each), {}, {}) for each in ids.values()]
        context = Context("tiny", "", {}, 1, None, "0.12.0")
        context.request_processor = [RequestProcessor({}) for _ in ids]
        for i, (status, headers, _) in enumerate(replies[:count]):
            if status != HTTPStatus.OK:
                context.set_response_status(status.value, status.phrase, i)
            for name, value in headers:
                context.set_response_header(i, name, value)
        bodies = [reply.body for reply in replies[:count]]
        expected = own.create_predict_response(
            bodies, ids, "Prediction success", 200, context=context
        )
        assert wire.message(calls, replies[:count]) == bytes(expected)


def test_what_has_arrived_is_read_at_once() -> None:
    sent = message([b"x"] * 8)
    mine, theirs = Whole(sent, 0), Whole(sent, 0)
    wire.Reader()(mine)
    own.retrieve_msg(theirs)
    assert mine.calls == 1
    assert theirs.calls > 100


def test_only_the_reader_of_the_known_version_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", worker)
    monkeypatch.setattr(Service, "predict", Service.predict)  # put back when the test ends

    def install() -> bool:
        return wire.install(lambda calls: [])

    before = Service.predict
    assert not install()  # no worker of TorchServe
    worker.retrieve_msg = lambda connection: None  # type: ignore[attr-defined]
    assert not install()  # someone else's
    worker.retrieve_msg = own.retrieve_msg  # type: ignore[attr-defined]
    monkeypatch.setattr(wire, "version", lambda name: "0.12.1")
    assert not install()
    assert Service.predict is before
    monkeypatch.setattr(wire, "version", lambda name: "0.12.0")
    assert install()
    assert isinstance(worker.retrieve_msg, wire.Reader)
    assert Service.predict(None, []) == wire.message([], [])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, loaded: data.Data, vectors: Path) -> Path:
    """An archive of a tiny model, unpacked."""
    work = tmp_path_factory.mktemp("wire")
    model = loop.train(tiny_config("glove", "cnn", vectors, work), loaded, work / "model").folder
    export = exported(model, "torchscript", work / "export", loaded.valid)
    with zipfile.ZipFile(archive(export, "tiny", work)) as packed:
        packed.extractall(work / "tree")
    return work / "tree"


@contextlib.contextmanager
def worker(tree: Path, place: Path, *, buffered: bool) -> Iterator[tuple[socket.socket, Path]]:
    """TorchServe's own worker process with the archive loaded, and its log."""
    config = tree / "model-config.yaml"
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    assert settings["handler"]["buffered_socket"] is True  # unless it is switched off
    changed = settings | {"handler": settings["handler"] | {"buffered_socket": buffered}}
    place.mkdir()
    path, log = place / ".ts.sock.9000", place / "log"
    script = Path(own.__file__).parents[1] / "model_service_worker.py"
    options = ["--sock-type", "unix", "--sock-name", str(path)]
    options += ["--metrics-config", str(ROOT / "serving" / "metrics.yaml")]
    config.write_text(yaml.safe_dump(changed), encoding="utf-8")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(script), *options],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree), "TS_DECODE_INPUT_REQUEST": "false"},
            stdout=out,
            stderr=out,
        )
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(100)
            while connection.connect_ex(str(path)):
                assert process.poll() is None, log.read_text(encoding="utf-8")
                time.sleep(0.05)
            manifest = json.loads((tree / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8"))
            load = b"L" + field("tiny") + field(str(tree)) + struct.pack("!i", 16)
            load += field(manifest["model"]["handler"]) + END + field("") + b"\x01"
            connection.sendall(load)
            assert b"loaded model tiny" in answer(connection)
            yield connection, log
            connection.sendall(b"Z")  # no command; the two readers say so in other words
            process.wait(timeout=20)
    finally:
        process.kill()
        process.wait()
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")


def answer(connection: socket.socket) -> bytes:
    """All bytes up to the mark of the end."""
    found = b""
    while not found.endswith(END):
        found += connection.recv(1 << 20)
    return found


def test_a_real_worker_answers_the_same_with_either_reader(tree: Path, tmp_path: Path) -> None:
    bodies = [b'{"text": "great film"}', b"{", b'{"instances": ["dull", "x"]}', b"\xff"]
    batch = message(bodies).removesuffix(END)
    batch += request(4, [("X-Worker", "1")], ("text", b"great film"), ("top_k", b"1"))
    batch += request(5, [], ("data", b"great film")) + request(6, [("describe", "True")]) + END
    answers, logs = [], []
    for buffered in (True, False):
        with worker(tree, tmp_path / str(buffered), buffered=buffered) as (connection, log):
            found = []
            for _ in range(3):
                connection.sendall(batch)
                found.append(answer(connection))
            for i in range(0, len(batch), 100):  # as a slow writer sends it
                connection.sendall(batch[i : i + 100])
                time.sleep(0.005)
            found.append(answer(connection))
            answers.append(found)
        logs.append(log.read_text(encoding="utf-8"))
    pid = re.compile(rb"(x-worker\0\0\0).\d+", re.DOTALL)  # each of the two workers has its own
    answers = [[pid.sub(rb"\1", each) for each in found] for found in answers]
    assert answers[0] == answers[1]
    assert len(set(answers[0])) == 1
    assert answers[0][0].count(b'"label":"') == 5
    assert answers[0][0].count(b'"code":400') == 2
    assert "Invalid command: b'Z'" in logs[0]
    assert "Invalid command: bytearray(b'Z')" in logs[1]
