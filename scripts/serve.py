"""Start, stop or look at a TorchServe with archives."""

import argparse
from pathlib import Path

from model_src.errors import ServerError
from scripts.options import ROOT, Parser, front, port, say, shown
from serving import server
from serving.server import Server

EXAMPLE = "./iclassifier serve start movie_reviews-glove-cnn-torchscript"
RUN_DIR = ROOT / ".serve" / "default"
_PORTS = {"inference": 8080, "management": 8081, "metrics": 8082}


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("action", choices=("start", "stop", "status"))
    parser.add_argument("models", nargs="*", help="archives to start (default: all in the store)")
    parser.add_argument(
        "--model_store", type=Path, default=ROOT / "model_store", help="their folder"
    )
    parser.add_argument("--run_dir", type=Path, default=RUN_DIR, help="state, keys and logs")
    parser.add_argument(
        "--seconds", type=float, default=120, help="time to get READY (default 120)"
    )
    for name, default in _PORTS.items():
        parser.add_argument(
            f"--{name}_port",
            type=port,
            default=default,
            help=f"default {default}; 0 takes a free one",
        )


def run(args: argparse.Namespace) -> None:
    """Do one of the three actions."""
    if args.action == "start":
        _start(args)
        return
    if args.models:
        raise ServerError(f"serve {args.action} takes no model names")
    found = Server.find(args.run_dir)
    if args.action == "stop":
        if found is None:
            say(f"no server of {shown(args.run_dir)} runs")
            return
        found.stop()
        say(f"stopped the server of {shown(args.run_dir)}. Next: {front()} serve start")
        return
    if found is None:
        raise ServerError(f"no server of {shown(args.run_dir)} runs: ./iclassifier serve start")
    for model in found.models:
        workers = found.workers(model)
        say(f"{model}: {found.ready(model)} of {len(workers)} workers READY, {found.url(model)}")
    say(how_to_call(found))


def how_to_call(found: Server) -> str:
    """Return the curl line to try."""
    return (
        f"Next: curl -H @{shown(found.header_file)} -H 'Content-Type: text/plain' "
        f"-d 'a sentence to label' {found.url(found.models[0])}"
    )


def _start(args: argparse.Namespace) -> None:
    models = args.models or sorted(path.stem for path in args.model_store.glob("*.mar"))
    given = {name: getattr(args, f"{name}_port") for name in _PORTS}
    ports = {name: number for name, number in given.items() if number}
    started = server.start(args.model_store, models, args.run_dir, ports, args.seconds)
    for model in started.models:
        say(f"{model}: READY at {started.url(model)}")
    say(how_to_call(started))
