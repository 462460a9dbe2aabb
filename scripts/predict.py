"""Label sentences with a model, an export or a running server."""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from model_src.bundle import manifest_of
from model_src.decode import Choice, label_of
from model_src.errors import ConfigError, DataError, ServerError
from model_src.text import text_problem
from scripts.options import Parser, count, say, share
from scripts.serve import RUN_DIR
from serving.client import Client

EXAMPLE = (
    "./iclassifier predict --model_path exports/movie_reviews-glove-cnn-torchscript 'a great film'"
)
_CHUNK = 128  # what a server takes as one request
_CONNECTIONS = 4


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("texts", nargs="*", help="sentences (default: lines of standard input)")
    parser.add_argument("--model_path", type=Path, help="model or export directory")
    parser.add_argument(
        "--url",
        help="of a running server: http://host:port/predictions/NAME or grpc://host:port/NAME",
    )
    keys = RUN_DIR / "key_file.json"
    parser.add_argument("--key_file", type=Path, default=keys, help="keys of that server")
    parser.add_argument(
        "--ca_file", type=Path, help="certificate of an https server that few trust"
    )
    parser.add_argument("--top_k", type=count, help="show only so many scores (jsonl)")
    parser.add_argument("--threshold", type=share, help="no label below this score")
    parser.add_argument("--explain", action="store_true", help="what each word adds to the logit")
    parser.add_argument("--target", metavar="LABEL", help="explain this label, not the best one")
    parser.add_argument("--input", type=Path, metavar="FILE", help="read one sentence a line")
    parser.add_argument(
        "--output_format", choices=("tsv", "jsonl"), default="tsv", help="default tsv"
    )
    parser.add_argument(
        "--batch_size", type=count, default=32, help="sentences at once (default 32)"
    )
    parser.add_argument(
        "--num_threads", type=count, default=1, help="threads (default 1, as served)"
    )


def run(args: argparse.Namespace) -> None:
    """Answer sentence by sentence in order; the summary goes to standard error."""
    if bool(args.model_path) == bool(args.url):
        raise ConfigError("give either --model_path DIR or --url URL")
    if args.texts and args.input:
        raise ConfigError("give sentences or --input FILE, not both")
    if args.explain and (args.top_k or args.threshold is not None):
        raise ConfigError("--explain takes no --top_k and no --threshold")
    if args.target and not args.explain:
        raise ConfigError("--target is for --explain")
    # Sentence by sentence where someone may be typing them.
    size = _CHUNK if args.input else 1
    answers = _served(args, size) if args.url else _offline(args, size)
    asked, texts = itertools.tee(_sentences(args))
    number = 0
    for number, (text, found) in enumerate(zip(texts, answers(asked), strict=True), 1):
        if "code" in found:
            said = found.get("message", "no message")
            raise ServerError(f"{args.url} answered sentence {number} with: {said}")
        say(_line(text, found, args.output_format))
    sys.stderr.write(f"answered {number} sentences from {args.model_path or args.url}\n")


_Answers = Callable[[Iterator[str]], Iterator[dict[str, Any]]]


def _served(args: argparse.Namespace, size: int) -> _Answers:
    connections = _CONNECTIONS if args.input else 1
    wanted = {"top_k": args.top_k, "threshold": args.threshold, "ca_file": args.ca_file}
    client = Client(args.url, args.key_file, connections=connections, **wanted)
    if args.explain:
        return lambda texts: (client.explain(text, args.target) for text in texts)
    return lambda texts: client.stream(texts, size)


def _offline(args: argparse.Namespace, size: int) -> _Answers:
    manifest_of(args.model_path)
    # Seconds that a refusal need not wait for, and a served answer never.
    import torch

    from model_src.explain import Explainer
    from model_src.predictor import Predictor

    torch.set_num_threads(args.num_threads)
    if args.explain:
        explainer = Explainer.load(args.model_path)
        return lambda texts: (explainer.explain(text, args.target).as_dict() for text in texts)
    predictor = Predictor.load(args.model_path)
    choice = Choice.of(args.top_k, args.threshold)

    def answers(texts: Iterator[str]) -> Iterator[dict[str, Any]]:
        while chunk := list(itertools.islice(texts, size)):
            yield from (each.as_dict(choice) for each in predictor.predict(chunk, args.batch_size))

    return answers


def _sentences(args: argparse.Namespace) -> Iterator[str]:
    """Yield checked sentences; raises DataError with the place of one that cannot be labelled."""
    if args.texts:
        source, lines = "argument", iter(args.texts)
    elif args.input:
        if not args.input.is_file():
            raise DataError(f"there is no file {args.input}")
        source = f"{args.input}, line"
        lines = iter(args.input.read_bytes().splitlines())
    else:
        source, lines = "standard input, line", iter(sys.stdin.buffer)
    for number, line in enumerate(lines, 1):
        try:
            # utf-8-sig drops a byte-order mark
            text = (
                line
                if isinstance(line, str)
                else line.decode("utf-8-sig" if number == 1 else "utf-8")
            )
        except UnicodeDecodeError:
            raise DataError(f"{source} {number}: invalid UTF-8") from None
        problem = text_problem(text)
        if problem:
            raise DataError(f"{source} {number}: {problem}")
        yield text.rstrip("\r\n")


def _line(text: str, found: dict[str, Any], output_format: str) -> str:
    if output_format == "jsonl":
        return json.dumps({"text": text} | found, ensure_ascii=False)
    cells = [" ".join(text.split()), label_of(found)]
    if "words" in found:
        added = " ".join(f"{each['word']}{each['attribution']:+.3f}" for each in found["words"])
        return "\t".join([*cells, f"{found['score']:.6f}", added])
    return "\t".join([*cells, f"{max(found['scores'].values()):.6f}"])
