"""A real nginx with our configuration, on free ports, in a folder of its own."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from serving.process import free_ports
from tests.conftest import ROOT

CONF = ROOT / "serving" / "nginx.conf"
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
# What Debian's own nginx.conf puts around ours.
_MAIN = """{user}
daemon off;
pid nginx.pid;
error_log start.log;
events {{ worker_connections 512; }}
http {{
    {temporary}
    include iclassifier.conf;
}}
"""
_OTHERS = ("proxy", "fastcgi", "uwsgi", "scgi")


class Asked(NamedTuple):
    """A request as it reached the upstream."""

    path: str
    headers: dict[str, str]
    body: bytes
    port: int


class Upstream:
    """A server that answers every request with its own body, and remembers it."""

    def __init__(self) -> None:
        """Listen on a free port."""
        self.asked: list[Asked] = []
        self.pause: Callable[[], float] = lambda: 0.0
        self.fickle = False  # whether a kept connection is closed at its second request
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            kept = False

            def do_POST(self) -> None:
                if outer.fickle and self.kept:
                    self.close_connection = True
                    return
                self.kept = True
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                port = self.client_address[1]
                outer.asked.append(Asked(self.path, dict(self.headers), body, port))
                time.sleep(outer.pause())
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # a front that gave up
                    self.wfile.write(body)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, *arguments: object) -> None:
                """Keep standard error clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port: int = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


class Front(NamedTuple):
    """A running nginx."""

    folder: Path
    port: int

    @property
    def certificate(self) -> Path:
        """The one to trust."""
        return self.folder / "iclassifier.crt"

    def connect(self) -> ssl.SSLSocket:
        """Open a connection."""
        trusted = ssl.create_default_context(cafile=str(self.certificate))
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        return trusted.wrap_socket(raw, server_hostname="127.0.0.1")

    def send(self, line: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], Any]:
        """Send one request, its first line as it is; return status, headers and JSON."""
        with self.connect() as client:
            named = {"Host": "front", "Content-Length": str(len(body)), "Connection": "close"}
            lines = [
                f"{name.replace('_', '-')}: {text}" for name, text in (named | headers).items()
            ]
            with contextlib.suppress(ConnectionError):  # refused before it was read to its end
                client.sendall("\r\n".join([f"{line} HTTP/1.1", *lines, "", ""]).encode() + body)
            return read(client)

    def chunked(self, line: str, count: int, size: int) -> tuple[int, dict[str, str], Any]:
        """Send a body in ``count`` chunks of ``size`` bytes."""
        with self.connect() as client:
            head = f"{line} HTTP/1.1\r\nHost: front\r\nTransfer-Encoding: chunked\r\n\r\n"
            body = f"{size:x}\r\n{'x' * size}\r\n" * count + "0\r\n\r\n"
            with contextlib.suppress(ConnectionError):
                client.sendall((head + body).encode())
            return read(client)

    def written(self) -> dict[str, str]:
        """Return the content of all that nginx has written, temporary files and logs."""
        ours = {"iclassifier.conf", "nginx.conf", "iclassifier.crt", "iclassifier.key"}
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return {path.name: path.read_text() for path in files if path.name not in ours}


def read(client: ssl.SSLSocket) -> tuple[int, dict[str, str], Any]:
    """Read one answer."""
    answer = http.client.HTTPResponse(client)
    answer.begin()
    content = answer.read()
    try:
        value = json.loads(content)
    except ValueError:
        value = content
    return answer.status, dict(answer.headers), value


def certify(folder: Path) -> None:
    """Make a certificate for 127.0.0.1 that signs itself."""
    files = ["-keyout", f"{folder}/iclassifier.key", "-out", f"{folder}/iclassifier.crt"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    name = ["-subj", "/CN=front", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        ["openssl", "req", "-x509", *kind, *name, *files], capture_output=True, check=True
    )


@contextlib.contextmanager
def running(folder: Path, upstream: int, **edits: str) -> Iterator[Front]:
    """Start nginx before a port, ``edits`` replacing words of our configuration."""
    assert NGINX
    (port,) = free_ports(1)
    text = CONF.read_text(encoding="utf-8")
    edits |= {"127.0.0.1:8080": f"127.0.0.1:{upstream}", "listen 443": f"listen 127.0.0.1:{port}"}
    edits |= {"    listen [::]:443 ssl;\n": "", "/etc/nginx/": "", "/var/log/nginx/": ""}
    edits |= {"path /dev/shm/iclassifier": "path bodies"}
    for old, new in edits.items():
        assert old in text, old
        text = text.replace(old, new)
    (folder / "iclassifier.conf").write_text(text, encoding="utf-8")
    temporary = " ".join(f"{name}_temp_path {name};" for name in _OTHERS)
    # a test's folder is closed to the user that nginx would become
    user = "user root;" if os.geteuid() == 0 else ""
    main = _MAIN.format(temporary=temporary, user=user)
    (folder / "nginx.conf").write_text(main, encoding="utf-8")
    certify(folder)
    command = [NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", "start.log"]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr
    with subprocess.Popen(command) as process:
        try:
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    Front(folder, port).connect().close()
                    break
                assert process.poll() is None, (folder / "start.log").read_text()
                time.sleep(0.01)
            yield Front(folder, port)
        finally:
            process.terminate()
