"""From nothing to two served models, checked against offline answers."""

import argparse
import json
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from model_src.bundle import EXPORT, Bundle
from model_src.config import Config
from model_src.decode import Prediction, label_of
from model_src.errors import BundleError, RefusedError, ServerError
from model_src.files import read_json
from model_src.predictor import Predictor
from scripts import evaluate, export, prepare
from scripts.options import ROOT, Parser, config_path, count, front, say, shown
from scripts.serve import how_to_call
from serving import archive, server
from serving.client import Client
from serving.export import export as write_export
from serving.golden import TOLERANCE
from serving.server import Server
from train import data, loop
from train.evaluate import Report
from train.task import settle

EXAMPLE = "./iclassifier quickstart --keep"


@dataclass(frozen=True)
class Road:
    """One model from its config to its archive."""

    name: str
    config: str
    epoch: str
    format: str


ROADS: tuple[Road, ...] = (
    Road("glove-cnn", "config-glove-cnn.json", "8", "torchscript"),
    # Two epochs reach what three do on the movie reviews, in two thirds of the time.
    Road("minilm-cls", "config-bert-cls.json", "2", "int8"),
)
_FALLBACK = "torchscript"


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--keep", action="store_true", help="leave the server running")
    parser.add_argument("--data_dir", type=Path, help="your own data instead of movie reviews")
    parser.add_argument("--skip_bad", action="store_true", help="drop and count bad lines")
    parser.add_argument("--epoch", help="fewer epochs, for a quick look")
    parser.add_argument("--sentences", type=count, default=40, help="how many to send (default 40)")
    parser.add_argument("--home", type=Path, default=ROOT, help="where all folders are made")


def run(args: argparse.Namespace) -> None:
    """Walk the whole road; what an earlier run finished is used again."""
    began = time.perf_counter()
    home = args.home
    roads = ROADS
    if args.data_dir:  # beside the models of the movie reviews, not in their place
        prefix = archive.served_name(args.data_dir.resolve().name)
        roads = tuple(replace(road, name=f"{prefix}-{road.name}") for road in ROADS)
    run_dir = home / ".serve" / "quickstart"
    left = Server.find(run_dir)
    if left:
        say(f"Stopping the server that an earlier run left in {shown(run_dir)}.")
        left.stop()

    say("1/5 data")
    folder = args.data_dir or home / "data" / "movie_reviews"
    if not args.data_dir and not folder.exists():
        prepare.make(folder, "movie_reviews", None, 42, skip_bad=False)
    loaded = data.load(folder, skip_bad=args.skip_bad)
    prepare.counts(loaded)

    exports = []
    cores = torch.get_num_threads()
    for road in roads:
        torch.set_num_threads(cores)
        say(f"\n2/5 train and evaluate {road.name}")
        model = _trained(road, args.epoch or road.epoch, loaded, home)
        torch.set_num_threads(1)  # from here on as served
        evaluate.show(_evaluated(model, loaded))
        say(f"\n3/5 export and archive {road.name}")
        exports.append(_exported(road, model, loaded, home))
        mar = home / "model_store" / f"{road.name}.mar"
        if not archive.holds(mar, exports[-1]):
            archive.archive(exports[-1], road.name, home / "model_store")
        say(f"{shown(mar)} answers as its export does")

    say("\n4/5 serve")
    started = server.start(home / "model_store", [road.name for road in roads], run_dir)
    try:
        for road in roads:
            say(f"{road.name}: READY at {started.url(road.name)}")
        say(f"\n5/5 ask {args.sentences} test sentences with curl")
        _ask(started, exports, loaded.test[: args.sentences])
        say(f"Done in {time.perf_counter() - began:.0f} s.")
    except BaseException:
        started.stop()
        raise
    if args.keep:
        say(f"The server goes on; stop it with ./iclassifier serve stop --run_dir {shown(run_dir)}")
        say(how_to_call(started))
    else:
        started.stop()
        say(f"The server is stopped. Next: {front()} quickstart --keep leaves it running")


def _trained(road: Road, epoch: str, loaded: data.Data, home: Path) -> Bundle:
    """Return the model directory of an equal earlier run, or train it."""
    config = settle(Config.load(config_path(road.config), {"epoch": epoch}), loaded)
    # Not where `train` puts the model of this data and config by default.
    folder = home / "models" / f"quickstart-{road.name}"
    try:
        found = Bundle.read(folder)
        if found.config == config and found.metrics.get("data") == loaded.fingerprint:
            return found
    except BundleError:
        pass
    return loop.train(config, loaded, folder)


def _evaluated(model: Bundle, loaded: data.Data) -> Report:
    """Return the test report that lies beside the model, or measure it."""
    known = model.metrics.get("test", {"report": {}})
    same = known.get("data") == loaded.fingerprint
    if same and known["report"]["sentences"] == len(loaded.test):
        return Report(**known["report"])
    return evaluate.measure(Predictor.load(model.folder), loaded, "test")


def _exported(road: Road, model: Bundle, loaded: data.Data, home: Path) -> Path:
    """Return the export directory of this very model, or write it."""
    folder = home / "exports" / road.name
    try:
        found = Bundle.read(folder)
        same = read_json(folder / EXPORT, BundleError)["source"] == model.fingerprint
        current = same and "eager" in found.metrics["export"]  # which older exports lack
    except (BundleError, KeyError):
        current = False
    if not current:
        found = _write_export(road, model, loaded, folder)
    export.show(found)
    return folder


def _write_export(road: Road, model: Bundle, loaded: data.Data, folder: Path) -> Bundle:
    """Export; where few sentences or a hard task do not allow int8, to TorchScript."""
    texts = [example.text for example in loaded.valid]
    gold = [example.label for example in loaded.valid]
    try:
        return write_export(model.folder, road.format, folder, texts, gold)
    except RefusedError as reason:
        if road.format == _FALLBACK:
            raise
        say(f"refused: {reason}. {_FALLBACK} in its place")
        return write_export(model.folder, _FALLBACK, folder, texts, gold)


def _ask(started: Server, exports: list[Path], examples: list[data.Example]) -> None:
    """Print what the server says beside the gold labels, and hold it against offline answers."""
    texts = [example.text for example in examples]
    names = started.models
    served = [_curl(started, name, texts) for name in names]
    say(f"{'sentence':<44} {'gold':<10} " + " ".join(f"{name:<19}" for name in names))
    for i, example in enumerate(examples):
        text = example.text if len(example.text) <= 42 else example.text[:41] + "…"
        cells = (f"{label_of(a[i]):<11} {max(a[i]['scores'].values()):.4f} " for a in served)
        say(f"{text:<44} {example.label:<10} " + " ".join(cells))
    say("")
    for name, answers, folder in zip(names, served, exports, strict=True):
        agree, worst = _agreement(answers, Predictor.load(folder).predict(texts))
        say(f"{name}: {agree} of {len(texts)} labels as offline, largest |Δp| {worst:.1e}")
        if agree < len(texts) or worst > TOLERANCE:
            raise ServerError(f"{name} answers otherwise than offline; please report this")


def _agreement(answers: list[dict[str, Any]], offline: list[Prediction]) -> tuple[int, float]:
    pairs = list(zip(answers, offline, strict=True))
    agree = sum(label_of(answer) == known.label for answer, known in pairs)
    worst = max(abs(a["scores"][label] - b.scores[label]) for a, b in pairs for label in b.scores)
    return agree, worst


def _curl(started: Server, model: str, texts: list[str]) -> list[dict[str, Any]]:
    """Send all sentences with the batch script; where curl is missing, with the Python client."""
    if shutil.which("curl") is None:
        say("curl is not installed (apt-get install curl); asking with Python instead")
        client = Client(started.url(model), started.key_file)
        asked = client.stream(texts, batch_size=1)
        return list(tqdm(asked, total=len(texts), desc=model, unit=" sentences"))
    command = [
        str(ROOT / "scripts" / "batch_curl.sh"),
        started.url(model),
        str(started.header_file),
    ]
    lines = "\n".join(" ".join(text.split()) for text in texts) + "\n"
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise ServerError(f"the curl script failed: {done.stderr.strip()}")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if failed := [answer for answer in answers if "scores" not in answer]:
        raise ServerError(f"{model} refused {len(failed)} sentences, the first with {failed[0]}")
    return answers
