"""What faults are made of, each part alone: who was accepted, traffic, nuisances, ends."""

import contextlib
import json
import socket
import socketserver
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import numpy as np
import pytest

from chaos import limits, nuisances, soak, strangers, wire, worker_kill
from chaos import traffic as traffic_module
from chaos.parts import Offline, sentence
from chaos.payload import Payload
from chaos.repeated import repeated
from chaos.scene import Scene
from chaos.stop import accepted
from chaos.traffic import Record, Traffic
from chaos.wire import Reply, Wire, problem
from serving.server import Server


def _record(number: int, began: float, status: int) -> Record:
    none = np.empty(0)
    return Record(range(number, number + 1), began, began, began + 1, status, none, none)


def test_a_request_that_was_sent_before_an_answered_one_counts_as_accepted() -> None:
    records = [_record(0, 1.0, 0), _record(1, 2.0, 200), _record(2, 2.5, 0), _record(3, 3, 503)]
    sent = {sentence(number): moment for number, moment in {0: 1.5, 1: 2.1, 2: 2.6}.items()}
    assert [each.numbers[0] for each in accepted(records, sent, 0.5)] == [0, 1]
    assert [each.numbers[0] for each in accepted(records, sent | {sentence(0): 2.2}, 0.5)] == [1]
    broken = _record(4, 9, 500)
    assert accepted([broken], {}, 0.5) == [broken]


@pytest.mark.parametrize("status", [0, 400, 500, 503])
def test_an_abrupt_kill_is_no_stop(status: int) -> None:
    """What was sent before the stop must be answered, though none of it or nothing after it was."""
    records = [_record(0, 1.0, 200), _record(1, 2.0, status), _record(2, 4.0, 0)]
    sent = {sentence(number): number + 1.5 for number in range(2)}
    assert accepted(records, sent, 3.0) == records[:2]
    assert accepted(records[1:], sent, 3.0) == [records[1]]
    # what could not be sent, before the stop and after
    assert accepted([_record(1, 1.0, 0)], {}, 3.0)
    assert not accepted([_record(1, 3.0, 0)], {}, 3.0)


def test_traffic_keeps_its_rate_and_counts_lateness() -> None:
    def ask(texts: list[str]) -> list[dict[str, object]]:
        return []

    with Traffic([ask] * 2, iter(range(100)), rate=50, most=20) as traffic:
        assert traffic.wait(20)
    due = sorted(each.due for each in traffic.records)
    assert len(due) == 20
    assert 0.37 < due[-1] - due[0] < 0.39
    assert all(each.began >= each.due for each in traffic.records)


def test_a_request_that_hangs_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(texts: list[str]) -> list[dict[str, object]]:
        asked.wait(20)
        released.wait(20)
        return []

    asked, released = threading.Barrier(3), threading.Event()
    monkeypatch.setattr(traffic_module, "_LAST", 0.1)
    with Traffic([ask] * 2, iter(range(100))) as traffic:
        asked.wait(20)
    released.set()
    assert traffic.wait(20)
    assert [each.status for each in traffic.records] == [0, 0]
    assert "no answer after" in traffic.records[0].said


def test_an_end_that_is_interrupted_leaves_none_of_the_others_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(run_dir: Path) -> None:
        ended.append(run_dir)
        if len(ended) == 1:
            raise KeyboardInterrupt

    ended: list[Path] = []
    made = Scene(tmp_path, short=True)
    folders = {made.run_dir() for _ in range(3)}
    monkeypatch.setattr(made, "end", end)
    with pytest.raises(KeyboardInterrupt), made:
        pass
    assert {*ended} == folders


class _Listener(socketserver.ThreadingTCPServer):
    """Keeps what each client sends."""

    daemon_threads = True

    def __init__(self) -> None:
        """Listen on a free port."""
        self.got: dict[object, bytes] = {}
        super().__init__(("127.0.0.1", 0), None)  # type: ignore[arg-type]

    def finish_request(self, request: Any, client_address: object) -> None:  # noqa: ANN401
        """Read until the client is gone; answer what is asked at once with a 401."""
        self.got[client_address] = b""
        with contextlib.suppress(OSError):
            while more := request.recv(2**16):
                self.got[client_address] += more
                if b"aa" not in self.got[client_address]:
                    request.sendall(
                        b"HTTP/1.1 401 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                    )


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[tuple[_Listener, Server]]:
    """A listener, and a server's record that names it."""
    with _Listener() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        port = made.server_address[1]
        ports = {"inference": port, "management": port}
        keys = {name: {"key": f"{name} key"} for name in ports}
        (tmp_path / "key_file.json").write_text(json.dumps(keys), encoding="utf-8")
        yield made, Server(tmp_path, 0, 0, ports, [])
        made.shutdown()


def test_slow_senders_send_a_whole_header_and_then_a_body_by_the_byte(
    listener: tuple[_Listener, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, found = listener
    monkeypatch.setattr(nuisances, "SLOW", 2)
    monkeypatch.setattr(nuisances, "PAUSE", 0.01)
    with nuisances.NUISANCES["slow senders"](Wire(found)):
        time.sleep(0.2)
    assert len(made.got) == 2
    for content in made.got.values():
        header, _, body = content.partition(b"\r\n\r\n")
        assert b"Content-Length: " in header
        assert 2 <= len(body) <= 20
        assert not body.strip(b"a")


def test_every_limit_is_asked_beside_the_others_or_after_them(
    listener: tuple[_Listener, Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = listener[1]
    with zipfile.ZipFile(tmp_path / "a.mar", "w") as packed:
        packed.writestr("model/config.json", '{"n_ctx": 100}')
    every, wrong = len([*limits._limits(100)]), list[str]()
    monkeypatch.setattr(limits, "_PAUSE", 0.01)
    with limits._edges(Wire(found), tmp_path / "a.mar", Offline({}), wrong):
        deadline = time.monotonic() + 20
        while not wrong and time.monotonic() < deadline:
            time.sleep(0.01)
        assert wrong
    assert len({*wrong}) == every
    assert all("401" in said for said in wrong)


def test_a_proxy_of_the_environment_does_not_stand_for_the_server(
    listener: tuple[_Listener, Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It would refuse all that the server should have refused."""
    made, found = listener
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    assert not [*strangers.over_rest(found)]
    assert len(made.got) == 6
    mar = tmp_path / "good.mar"
    mar.write_bytes(b"archive")
    assert not [*strangers.addresses(replace(found, run_dir=tmp_path), mar)]
    assert not [*tmp_path.parent.glob("stranger.mar"), *tmp_path.glob("stranger.mar")]


def test_a_grpc_port_that_asks_for_no_key_or_the_wrong_one_is_told(
    listener: tuple[_Listener, Server],
) -> None:
    """One port lets everybody in, the other takes the key of the first."""

    def let_in(_: bytes, context: grpc.ServicerContext) -> bytes:
        return b""

    def mixed_up(_: bytes, context: grpc.ServicerContext) -> bytes:
        if dict(context.invocation_metadata()).get("authorization") != "Bearer inference key":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "")
        return b""

    ports, servers = {}, []
    for port, answer in (("inference", let_in), ("management", mixed_up)):
        made = grpc.server(futures.ThreadPoolExecutor(1))
        made.add_generic_rpc_handlers((_Every(answer),))
        ports[f"grpc_{port}"] = made.add_insecure_port("127.0.0.1:0")
        made.start()
        servers.append(made)
    assert [*strangers.over_grpc(replace(listener[1], ports=ports), "any")] == [
        "gRPC inference with no token: OK",
        "gRPC inference with a wrong token: OK",
        "gRPC inference with the token for management: OK",
        "gRPC management with the token for inference: OK",
        "gRPC management with its own token: PERMISSION_DENIED",
    ]
    for made in servers:
        made.stop(None).wait()


class _Every(grpc.GenericRpcHandler):
    """Answers every method in the same way."""

    def __init__(self, answer: Callable[[bytes, grpc.ServicerContext], bytes]) -> None:
        """Take how to answer."""
        self._handler = grpc.unary_unary_rpc_method_handler(answer)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Return the handler of any method."""
        return self._handler


def test_a_killed_worker_that_needs_two_starts_is_counted_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the processes 1 and 2 the first is killed; 3 and 4 follow, and 5 is a child of 4."""
    alive = iter([[1, 2], [2], [2, 3], [2], [2, 4, 5], [2, 4]])
    ready = iter([{2}, {2}, {2}, {2}, {2, 4}])
    found = SimpleNamespace(pid=9, admin=SimpleNamespace(workers=lambda *_: next(ready)))
    monkeypatch.setattr(worker_kill, "workers", lambda _: next(alive))
    monkeypatch.setattr(worker_kill, "_parent", lambda pid: 4 if pid == 5 else 9)
    monkeypatch.setattr(worker_kill, "birth", lambda _: 0)
    monkeypatch.setattr(worker_kill, "end", lambda *_: None)
    assert worker_kill._kill(cast("Server", found), 0).pids == 2


def test_a_thread_beside_a_fault_that_dies_is_noticed() -> None:
    died = threading.Event()

    def die() -> None:
        died.set()
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"), repeated(0.001) as each:
        each(die)
        assert died.wait(20)


def test_wrong_replies_to_malformed_requests_are_told_in_the_soak(
    listener: tuple[_Listener, Server],
) -> None:
    with soak._malformed(Wire(listener[1]), Offline({}), 100) as wrong:
        time.sleep(0.3)
    assert any("401" in each for each in wrong)


def test_only_what_is_not_whole_may_be_met_with_silence() -> None:
    offline = Offline({})
    half = Payload("half", b"", raw=True, partial=True)
    whole, request = replace(half, partial=False), Payload("a request", b"")
    silent, closed = Reply(silent=True), Reply()
    assert [problem(half, reply, offline) for reply in (silent, closed)] == ["", ""]
    assert problem(whole, silent, offline) == "half: no answer in time"
    assert problem(whole, closed, offline) == ""
    assert problem(request, closed, offline) == "a request: 0"


def test_an_error_without_a_message_is_taken_only_where_it_is_known() -> None:
    reply = Reply(400, b'{"code": 400, "type": "StackOverflowError"}')
    assert problem(Payload("known", b"", bare=True), reply, Offline({})) == ""
    assert problem(Payload("other", b""), reply, Offline({})) == "other: no JSON error"


def test_a_closed_connection_is_told_from_a_silent_one() -> None:
    for closes in (True, False):
        here, there = socket.socketpair()
        here.settimeout(0.05)
        with contextlib.closing(there):
            if closes:
                there.shutdown(socket.SHUT_WR)
            assert wire._read(here, partial(wire._begun, here)) == Reply(silent=not closes)
