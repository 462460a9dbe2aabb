"""Malformed bodies, and bodies of naughty sentences: one generator a kind."""

import gzip
import itertools
import json
from collections.abc import Iterator

from chaos.naughty import HALVES, STRINGS
from chaos.payload import GOOD, JSON, MARKER, TEXT, Payload, marked, plain, refused
from handlers.body import MAX_BODY
from model_src.text import text_problem

_VALUES = (
    *("null", "true", "false", "0", "-1", "1.5", "1e308", "12345678901234567890", "[]", "{}"),
    *('[""]', '["a"]', "[null]", '{"text": "a"}', '{"a": []}', '""', '" "', '"\\t\\n"', "[[]]"),
    *('"\\ud800"', '"\\udc00\\ud800"', '"a\\udfff"', '"\\u3000"'),
)
_NUMBERS = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "0x10", "01", "+1", ".5", "5.", "1_000"),
    *("-", "--1", "1e", "9" * 5000, "1,5", "inf", "nan", "0b1", "1 2"),
)


def types() -> Iterator[Payload]:
    """Values of another type than the contract has."""
    yield from refused("text", *(f'{{"text": {value}}}' for value in _VALUES))
    lists = ('[""]', '["a"]', "[null]", "[[]]")
    wrong = (value for value in _VALUES if value not in lists)
    yield from refused("instances", *(f'{{"instances": {value}}}' for value in wrong))
    for value in _VALUES:
        one = f'{{"instances": ["{GOOD}", {{"text": {value}}}, "{GOOD}"]}}'
        yield Payload(f"an instance {value}", one.encode(), texts=(GOOD, None, GOOD))
    for value in ('"1"', "0", "-1", "1.5", "true", "[]", "{}", "[1]", '""'):
        yield from refused(f"top_k {value}", f'{{"text": "a", "top_k": {value}}}')
    for value in ('"0.5"', "-0.1", "1.01", "true", "[]", "{}", "[1]", '""'):
        yield from refused(f"threshold {value}", f'{{"text": "a", "threshold": {value}}}')
    yield from refused("whole", *(value for value in _VALUES if value != '{"text": "a"}'))


def numbers() -> Iterator[Payload]:
    """Spell numbers as JSON does not."""
    for name in ("text", "instances", "top_k", "threshold"):
        beside = '"text": "a", ' if name in {"top_k", "threshold"} else ""
        yield from refused(f"{name} number", *(f'{{{beside}"{name}": {n}}}' for n in _NUMBERS))


def keys() -> Iterator[Payload]:
    """Keys that lack, are too many or twice."""
    yield from refused(
        "keys",
        "{}",
        '{"": "a"}',
        '{"txt": "a"}',
        '{"Text": "a"}',
        '{"text ": "a"}',
        '{"body": "a"}',
        '{"text": "a", "more": 1}',
        '{"text": "a", "text": "b"}',
        '{"text": "a", "te\\u0078t": "b"}',
        '{"text": "a", "instances": ["b"]}',
        '{"text": "a", "inputs": []}',
        '{"instances": ["a"], "instances": ["b"]}',
        '{"instances": ["a"], "target": "good"}',
        '{"text": "a", "top_k": 1, "top_k": 2}',
        '{"text": "a", "__class__": "x"}',
        '{"top_k": 1}',
        '{"signature_name": "x", "instances": ["a"]}',
        "{" + ",".join(f'"k{i}": {i}' for i in range(20_000)) + "}",
    )
    for one in ('{"text": "a", "text": "b"}', '{"text": "a", "more": 1}', "{}", '{"data": "a"}'):
        body = f'{{"instances": ["{GOOD}", {one}]}}'
        twins = one.count('"text"') > 1
        yield Payload(f"an instance {one}", body.encode(), texts=() if twins else (GOOD, None))


def syntax() -> Iterator[Payload]:
    """Yield what is no JSON."""
    yield from refused(
        "syntax",
        "{'text': 'a'}",
        '{"text": "a",}',
        '{"text" "a"}',
        '{text: "a"}',
        '{"text": a}',
        '{"text": "a"} x',
        '{"text": "a"}{"text": "b"}',
        '{"text": "a"}\n{"text": "b"}',
        '{"text": "a" /* b */}',
        '// b\n{"text": "a"}',
        '{"text": "a\nb"}',
        '{"text": "a\x01b"}',
        '{"text": "\\u12"}',
        '{"text": "\\x41"}',
        '{"text": "\\"}',
        '{"text": "a"]',
        '["text", "a"]',
        '"a"',
        "a great film",
        "text=a",
        "<text>a</text>",
        "text: a",
        "\x00",
        "{\x00}",
    )


def empty() -> Iterator[Payload]:
    """Bodies of nothing."""
    kinds = (JSON, TEXT, "", "application/octet-stream", "application/xml")
    for kind, body in itertools.product(kinds, (b"", b" ", b"\r\n\t", b"\x1c\x1d")):
        yield Payload(f"empty {kind} {body!r}", body, kind)


def nesting() -> Iterator[Payload]:
    """Brackets in brackets."""
    for depth in (50, 1000, 20_000, 100_000):
        yield from refused(
            f"{depth} deep",
            "[" * depth,
            "[" * depth + "]" * depth,
            '{"text":' * depth,
            '{"text": ' + "[" * depth + "]" * depth + "}",
            '{"instances": ' + "[" * depth + '"a"' + "]" * depth + ', "top_k": 0}',
        )


def encodings() -> Iterator[Payload]:
    """Other encodings than UTF-8, and broken UTF-8."""
    film = "Ein schöner Film über Züge"
    codecs = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig"]
    codecs += ["latin-1", "cp1252", "mac-roman", "cp437"]
    for codec in codecs:
        text = json.dumps({"text": f"{MARKER} {film}"}, ensure_ascii=False)
        yield Payload(f"JSON in {codec}", text.encode(codec))
        yield plain(f"text in {codec}", film.encode(codec), f"{TEXT}; charset={codec}")
    others = {
        "shift_jis": "面白い映画",
        "euc_kr": "좋은 영화",
        "gb18030": "好电影",
        "koi8-r": "Фильм",
    }
    for codec, text in others.items():
        yield Payload(f"JSON in {codec}", f'{{"text": "{MARKER} {text}"}}'.encode(codec))
        yield plain(f"text in {codec}", text.encode(codec), TEXT)
    broken = [
        b"\xff",
        b"\xfe\xff",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\x80",
        b"\xc3",
    ]
    broken += [b"\xed\xa0\x80", b"\xed\xa0\x80\xed\xb0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"]
    broken += [b"\xf8\x88\x80\x80\x80", b"a" * 1000 + b"\xff"]
    for wrong in broken:
        yield from refused(f"bytes {wrong[:8].hex()}", b'{"text": "a' + wrong + b'"}', wrong)
        yield from refused(f"bytes {wrong[:8].hex()} as text", GOOD.encode() + wrong, kind=TEXT)


def truncated() -> Iterator[Payload]:
    """Every beginning of a good body."""
    whole = marked(b'{"text": "a great film", "top_k": 1, "threshold": 0.5}')
    yield from refused("cut JSON", *(whole[:cut] for cut in range(len(whole))))
    packed = gzip.compress(marked(b'{"text": "a great film"}'), mtime=0)
    cuts = (packed[:cut] for cut in range(len(packed)))
    yield from refused("cut gzip", *cuts, **{"Content-Encoding": "gzip"})


def tensors() -> Iterator[Payload]:
    """Tensors that break the Open Inference Protocol."""
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [GOOD]}
    inner: dict[str, list[object]] = {
        "shape": [None, [], [2], [-1], [0], [True], [1.0], ["1"], "1", [1, 1, 1], [2**70], {}],
        "datatype": [None, "", "FP32", "bytes", 1, []],
        "data": [None, [], "a", {}, [1], [None], [[GOOD]], [""], ["\ud800"], [GOOD] * 129],
    }
    for name, values in inner.items():
        for value in values:
            changed = tensor | {name: value}
            if name == "data" and isinstance(value, list) and value:
                changed["shape"] = [len(value)]
            yield from refused(f"tensor {name}", json.dumps({"inputs": [changed]}))
    outer: dict[str, list[object]] = {
        "inputs": [None, [], {}, "a", [tensor, tensor], [GOOD], [None], [[]], [{}]],
        "id": [1, "", " ", "x" * 300, "\ud800", [], True],
        "parameters": [None, [], {"top_k": 1}, {"threshold": "1"}, {"threshold": 2}],
        "outputs": [[], {}, "label", [{}], [{"name": "label"}] * 2, [{"name": ["label"]}], [1]],
        "more": [1],
    }
    for name, values in outer.items():
        for value in values:
            yield from refused(f"tensors {name}", json.dumps({"inputs": [tensor]} | {name: value}))


def sentences() -> Iterator[Payload]:
    """Every naughty sentence in every wrapping."""
    for number, text in enumerate(STRINGS):
        texts = () if text_problem(text) else (text,)
        for ascii_ in (True, False):
            body = json.dumps({"text": text}, ensure_ascii=ascii_).encode()
            if len(body) <= MAX_BODY:
                yield Payload(f"sentence {number} in JSON", body, texts=texts)
        many = json.dumps({"instances": [GOOD, text]}, ensure_ascii=False).encode()
        yield Payload(f"sentence {number} as an instance", many, texts=(GOOD, *(texts or (None,))))
        if not text.lstrip().startswith("{"):
            yield Payload(f"sentence {number} bare", text.encode(), "", texts=texts)
        yield Payload(f"sentence {number} as text", text.encode(), TEXT, texts=texts)
        gz = {"Content-Encoding": "gzip"}
        yield Payload(
            f"sentence {number} in gzip",
            gzip.compress(text.encode(), 1, mtime=0),
            TEXT,
            gz,
            texts=texts,
        )
    for number, text in enumerate(HALVES):
        yield from refused(f"half {number}", json.dumps({"text": text}))
        both = json.dumps({"instances": [GOOD, text]})
        yield Payload(f"half {number} as an instance", both.encode(), texts=(GOOD, None))
