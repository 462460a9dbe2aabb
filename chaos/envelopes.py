"""Malformed requests around a body: its type, encoding, token, path, form; a generator each."""

import gzip
import json
import zlib
from collections.abc import Iterator

from chaos.payload import (
    FORM,
    GOOD,
    KEY,
    MANAGEMENT,
    MARKER,
    NAME,
    TEXT,
    Payload,
    marked,
    plain,
    refused,
)
from handlers.body import MAX_BODY


def content_types() -> Iterator[Payload]:
    """Types that do not fit the body, or are none."""
    for kind in ("Application/JSON", "application/json;;;", "application/json; charset=utf-16"):
        yield from refused(f"no JSON as {kind}", GOOD, kind=kind)
    for kind in ("", "application/octet-stream", "a/b/c", "/", ";", "\xe9/\xff", "x" * 4000):
        yield from refused(f"no JSON as {kind[:20]}", "{", '{"text": 1}', kind=kind)
        yield plain(f"text as {kind[:20]}", GOOD.encode(), kind)
    for kind in (TEXT, "text/html", "text/", "TEXT/JSON"):
        yield plain(f"JSON as {kind}", b'{"text": "a film"}', kind)
    yield from refused("a form of no field", MARKER, '{"text": "a"}', kind=FORM)
    many = "&".join(f"a{i}" for i in range(50_000))
    yield from refused("a form of many fields", many, kind=FORM)
    yield from refused("no encoding", '{"text": "a"}', **{"Content-Encoding": "br"})
    yield from refused("no encoding", '{"text": "a"}', **{"Content-Encoding": "deflate, gzip"})
    yield Payload("a type too long", MARKER.encode(), "x" * 20_000, statuses=frozenset({400, 431}))


def packed() -> Iterator[Payload]:
    """Broken gzip, and bombs."""
    gz = {"Content-Encoding": "gzip"}
    whole = gzip.compress(f'{{"text": "{GOOD}"}}'.encode(), mtime=0)
    bad = gzip.compress(marked(gzip.decompress(whole)), mtime=0)
    sign = MARKER.encode()
    wrong = [sign, bad + b"x", bad + bad, zlib.compress(sign), bad[:-8] + b"\0" * 8]
    wrong += [gzip.compress(bad, mtime=0), b"\x1f\x8b" * 50, gzip.compress(b"", mtime=0)]
    wrong += [gzip.compress(sign + b"\xff\xfe", mtime=0), gzip.compress(b"[" * 100_000, mtime=0)]
    yield from refused("gzip", *wrong, **gz)
    for size in (MAX_BODY + 1, 30_000_000):
        bomb = gzip.compress(b'{"text": "' + sign + b"a " * (size // 2) + b'"}', 1, mtime=0)
        yield Payload(f"a bomb of {size}", bomb, headers=gz, statuses=frozenset({413}))
        zeros = gzip.compress(sign + bytes(size), 1, mtime=0)
        yield Payload(f"zeros of {size}", zeros, TEXT, gz, statuses=frozenset({413}))
    for name in ("gzip", "x-gzip", "GZIP"):
        yield Payload(f"good {name}", whole, headers={"Content-Encoding": name}, texts=(GOOD,))


def tokens() -> Iterator[Payload]:
    """Keys that are no keys."""
    good = marked(json.dumps({"text": GOOD}).encode())
    wrong = [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {MANAGEMENT}", f"Basic {KEY}"]
    wrong += [KEY, f"Bearer {KEY}x", f"Bearer  {KEY} {KEY}", f"Token {KEY}", f"Bearer x{KEY}"]
    wrong += ["Bearer " + "x" * 4000, "Bearer null", "Bearer \xe9\xff", f"Bearer '{KEY}'"]
    for key in wrong:
        statuses = frozenset({400, 401, 403})
        yield Payload(f"token {(key or 'none')[:20]}", good, key=key, statuses=statuses)


def paths() -> Iterator[Payload]:
    """Models, versions and methods that are not there."""
    good = marked(json.dumps({"text": GOOD}).encode())
    missing = frozenset({400, 404, 405})
    ends = [
        "/9.9",
        "/1",
        "/x",
        "/-1",
        "/null",
        "/%00",
        "/%2e%2e",
        "/..",
        "/1.0%20",
        "/" + "9" * 2000,
    ]
    paths = [f"/predictions/{NAME}{end}" for end in ends]
    paths += ["/predictions/unknown", "/predictions/", "/predictions", "/predictions/%F0%9F", "/"]
    paths += ["/predictions/%C0%AE", "/predictions/" + "x" * 3000, f"/predictions/{NAME}x", "/x/y"]
    paths += [f"/models/{NAME}", f"/models/{NAME}/9.9/predict", f"/v1/models/{NAME}x:predict"]
    for path in paths:
        yield Payload(f"path {path[:40]}", good, path=path, statuses=missing)
    for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE", "FOO"):
        yield Payload(f"method {method}", MARKER.encode(), method=method, statuses=missing)


def multipart() -> Iterator[Payload]:
    """Forms in parts."""

    def part(name: str, value: str = GOOD, more: str = "") -> str:
        return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'

    kind = "multipart/form-data; boundary=b"
    for good in (part("text"), part("data"), part("text", GOOD, '; filename="../../x"')):
        body = (good + "--b--\r\n").encode()
        yield Payload(f"a part {good[:60]}", body, kind, texts=(GOOD,))
    yield from refused(
        "parts",
        part("txt") + "--b--\r\n",
        part("text", "") + "--b--\r\n",
        part("text") + part("top_k", "x") + "--b--\r\n",
        part("text") + part("threshold", "7") + "--b--\r\n",
        "--b--\r\n",
        "",
        kind=kind,
    )
    for kind in ("multipart/form-data", "multipart/mixed", "multipart/form-data; x=y"):
        yield from refused(f"no boundary in {kind}", "{" + MARKER, kind=kind)


def broken_forms() -> Iterator[Payload]:
    """Forms that TorchServe's reader gives up on, before any handler is asked, and some others."""
    fields = [f"text={MARKER}%zz", f"text={MARKER}%", f"text={MARKER}&top_k=%f", f"%={MARKER}"]
    fields += ["=", "&&&"]
    part = '--b\r\nContent-Disposition: form-data; name="text"'
    parts = [
        f"--c\r\nContent-Disposition: form-data\r\n\r\n{MARKER}\r\n--c--\r\n",
        f"--b\r\nContent-Disposition: form-data\r\n\r\n{MARKER}\r\n--b--\r\n",
        "--b\r\n\r\n--b--\r\n",
        f"{part}\r\n\r\n{MARKER}",
        part[:-3],
        f"{part}\r\nContent-Type: text/plain; charset={MARKER}\r\n\r\na\r\n--b--\r\n",
        f"no parts at all {MARKER}",
    ]
    kind = "multipart/form-data; boundary="
    sent = [*((FORM, field) for field in fields), *((f"{kind}b", each) for each in parts)]
    for number, (form, body) in enumerate([*sent, (kind, "{" + MARKER)]):
        yield Payload(f"form {number}", body.encode(), form)
    deep = "--b\r\nContent-Type: multipart/mixed; boundary=c\r\n--c--\r\n" * 10_000 + MARKER
    too_large = frozenset({413})
    yield Payload("parts in parts", deep.encode(), f"{kind}b", statuses=too_large, bare=True)


def messages() -> Iterator[Payload]:
    """Yield what is no HTTP, or not the whole of it."""
    begin = f"POST /predictions/{NAME} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
    # TorchServe answers a version of HTTP that is none: what it must refuse is the body
    whole = f"{begin}Content-Length: {len(MARKER) + 1}\r\n\r\n{{{MARKER}"
    # blank lines before a request are skipped, and control characters with them
    begun = [
        "\r\n\r\n",
        "\x00\x01\x02\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        f"{begin}Content-Length: 100\r\n\r\n{MARKER}",
        begin + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}",
        begin[:40],
    ]
    ended = [
        "POST\r\n\r\n",
        whole.replace("HTTP/1.1", "HTTP/9.9"),
        whole.replace("HTTP/1.1", "HTTX"),
        f"{begin}Content-Length: -1\r\n\r\n{MARKER}",
        f"{begin}Content-Length: x\r\n\r\n{MARKER}",
        f"{begin}Content-Length: 99999999999999999999\r\n\r\n{MARKER}",
        begin + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
        f"{begin}Transfer-Encoding: chunked\r\n\r\nzz\r\n{MARKER}\r\n0\r\n\r\n",
        begin + "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        f"{begin}No colon here\r\n\r\n{MARKER}",
        begin + ": empty\r\n\r\n",
        begin + "X-Long: " + "x" * 100_000 + "\r\n\r\n",
        begin + "".join(f"X-{i}: {i}\r\n" for i in range(3000)) + "\r\n",
    ]
    for number, message in enumerate([*begun, *ended]):
        yield Payload(
            f"message {number}",
            message.encode("latin-1"),
            raw=True,
            partial=number < len(begun),
            statuses=frozenset({400, 404, 413, 431}),
        )
