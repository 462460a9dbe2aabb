"""Tiny real parts: data, vectors, a checkpoint, and every model and export made from them."""

import atexit
import importlib
import itertools
import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from benchmarks import contenders
from model_src.backends import FORMATS, missing
from model_src.bundle import Bundle
from model_src.config import Config
from model_src.decode import joined
from model_src.embeddings import EMBEDDINGS
from scripts.__main__ import VERBS
from scripts.options import Parser
from serving import server
from serving.archive import archive
from serving.export import Candidate, export
from serving.server import Server
from tests import checkpoints as checkpoints_of
from tests.disturb import Disturb, disturbed
from tests.watch import Unsaved, answers_at_best
from train import data, loop

ROOT = Path(__file__).resolve().parent.parent
GOOD = ["great", "lovely", "superb", "funny", "moving", "brilliant", "warm", "charming"]
BAD = ["awful", "boring", "dull", "tedious", "weak", "sloppy", "cold", "clumsy"]
REST = ["the", "a", "film", "movie", "is", "was", "with", "it", "very", "do", "n't", ",", ".", "!"]
UNSEEN = "quibble"  # has a vector, but is in no sentence of the data
WORDS = [*GOOD, *BAD, *REST, UNSEEN]

torch.set_num_threads(1)  # as workers compute

# Every (embedding, encoder) pair and every way to serve it: tests loop over the tables.
PAIRS = [(name, encoder) for name, family in EMBEDDINGS.items() for encoder in family.encoders]
# Formats that are slow to export or to load meet these pairs only, unless this variable is set.
ALL = "ICLASSIFIER_ALL_FORMATS" in os.environ
_SOME = [("glove", "cnn"), ("glove", "densenet-dsa"), ("bert", "cls"), ("bart", "cls")]
_SOME += [("mpnet", "cnn"), ("albert", "cls")]
_FEW = {"bf16": [*_SOME, ("albert", "cnn")], "openvino": _SOME, "openvino-bf16": _SOME}
_FEW["onnx-int8"] = _FEW["openvino-int8"] = [*_SOME, ("bart", "cnn")]
_FEW["pt2"] = [("glove", "cnn")]  # half a minute of compiling each
EXPORTS = {
    f"{a}-{b}-{form}": form
    for (a, b), form in itertools.product(PAIRS, FORMATS)
    if ALL or (a, b) in _FEW.get(form, PAIRS)
}
INSTALLED = [form for form in FORMATS if not missing(form, to_export=True)]
QUICK = [form for form in INSTALLED if form != "pt2"]

# How far the probability of a label may move from fp32, and it is for tiny models that it moves.
ALLOWED = {"torchscript": 1e-5, "int8": 0.05, "bf16": 0.03, "onnx": 1e-5, "onnx-int8": 0.05}
ALLOWED |= {"openvino": 1e-5, "openvino-bf16": 0.03, "openvino-int8": 0.05}
ALLOWED |= {"pt2": 1e-5, "cuda-fp16": 0.03, "cuda-bf16": 0.03}

# Archives and servers take a worker each: one model a handler and head, and one a package.
_HEADS = ("glove-cnn", "glove-densenet-dsa", "bert", "bart-cls")
_ONE = {"bf16": "bert-cls", "onnx": "glove-densenet-dsa", "onnx-int8": "bert-cls"}
_ONE |= {"openvino": "glove-cnn", "openvino-bf16": "bart-cls", "pt2": "glove-cnn"}
_ONE["openvino-int8"] = "bert-cls"
SERVED = [n for n, f in EXPORTS.items() if f in INSTALLED and n.startswith(_ONE.get(f, _HEADS))]

# One archive that can explain its answers.
EXPLAINED = "explained"
# One archive of a multi-label model, whose labels these words give independently of each other.
MULTI = "multi-label"
TRIGGERS = {"bore": ["boring", "dull", "tedious"], "joy": ["funny", "charming"], "odd": ["clumsy"]}

# What a tokenizer, a mask or a protocol may stumble over, all of it text that can be labelled.
ODD_TEXTS = [
    "a",
    ".",
    "great",
    "zxqv unknownword 12345",
    "the film is great " * 80,
    "정말 재미있는 영화였어요",
    "ünïcödé naïve café \u202eabc\u200d \ufeff",
    "tab\tand\nnewline",
    "[CLS] [SEP] [PAD] <pad> <unk> [MASK]",
    '{"text": "not JSON but text"}',
    "nul \x00 and \x1b control",
    "x" * 5000,
]


def sentence(generator: random.Random, label: str) -> str:
    """Return a sentence whose label a small model can learn."""
    words = generator.choices(REST, k=generator.randint(0, 12))
    words += generator.choices(GOOD if label == "good" else BAD, k=generator.randint(1, 3))
    generator.shuffle(words)
    return " ".join(words)


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all shared parts."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(work: Path) -> Iterator[None]:
    """Keep the user's cache out of the tests, and the tests out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(work / "cache"))
        yield


@pytest.fixture(scope="session")
def data_dir(work: Path) -> Path:
    """A data directory with 320 sentences of two labels."""
    generator = random.Random(0)
    labels = ["good", "bad"] * 160
    examples = [data.Example(sentence(generator, label), label) for label in labels]
    folder = work / "data"
    folder.mkdir()
    for name, part in data.split(examples, 0).items():
        data.write(folder / f"{name}.tsv", part)
    return folder


@pytest.fixture(scope="session")
def loaded(data_dir: Path) -> data.Data:
    """The same in memory."""
    return data.load(data_dir)


@pytest.fixture(scope="session")
def vectors(work: Path) -> Path:
    """A GloVe text file with 16 values a word."""
    values = np.random.default_rng(0).normal(size=(len(WORDS), 16))
    lines = [
        f"{word} {' '.join(f'{v:.4f}' for v in row)}\n"
        for word, row in zip(WORDS, values, strict=True)
    ]
    path = work / "vectors.txt"
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def checkpoints(work: Path, loaded: data.Data) -> dict[str, Path]:
    """A random checkpoint of each transformer family."""
    corpus = [example.text for example in loaded.train]
    kinds = [name for name, family in EMBEDDINGS.items() if family.handler == "transformer"]
    return {kind: checkpoints_of.make(kind, work / "checkpoints" / kind, corpus) for kind in kinds}


@pytest.fixture(scope="session")
def checkpoint(checkpoints: dict[str, Path]) -> Path:
    """The one of BERT."""
    return checkpoints["bert"]


class Models(NamedTuple):
    """Where the tiny models and exports lie."""

    models: dict[tuple[str, str], Path]
    exports: dict[str, Path]


def tiny_config(name: str, encoder: str, vectors: Path, checkpoint: Path, **more: object) -> Config:
    """Return the config of one registry entry on tiny parts."""
    values = {
        "emb_class": name,
        "enc_class": encoder,
        "n_ctx": 40,
        "num_filters": 16,
        "densenet_first_num_filters": 16,
        "densenet_num_filters": 8,
        "densenet_last_num_filters": 32,
        "dsa_num_attentions": 2,
        "dsa_dim": 16,
        "fc_hidden_size": 32,
        "embedding_path": str(vectors),
        "embedding_trainable": True,
        "bert_model_name_or_path": str(checkpoint),
        "batch_size": 16,
        "epoch": 4,
        "lr": 5e-3,
        "use_amp": False,
    }
    return Config(**(values | more))  # type: ignore[arg-type]


def exported(model: Path, form: str, folder: Path, valid: list[data.Example]) -> Path:
    """Export, whatever it costs: of 32 sentences one is 3 %, and tiny models are undecided."""
    texts, gold = [each.text for each in valid], [each.label for each in valid]
    return export(model, form, folder, texts, gold, accept=True).folder


@pytest.fixture(scope="session")
def unsaved() -> Unsaved:
    """What the models of ``tiny`` answered on valid at their best epoch, before they were saved."""
    return {}


@pytest.fixture(scope="session")
def tiny(
    work: Path, loaded: data.Data, vectors: Path, checkpoints: dict[str, Path], unsaved: Unsaved
) -> Models:
    """Every registry entry trained for real, and exported in every format installed."""
    models, exports = {}, {}
    for name, encoder in PAIRS:
        config = tiny_config(name, encoder, vectors, checkpoints.get(name, work))
        folder = work / "models" / f"{name}-{encoder}"
        with answers_at_best() as unsaved[name, encoder]:
            models[name, encoder] = loop.train(config, loaded, folder).folder
        for form in INSTALLED:
            served = f"{name}-{encoder}-{form}"
            if served not in EXPORTS:
                continue
            folder = work / "exports" / served
            exports[served] = exported(models[name, encoder], form, folder, loaded.valid)
    return Models(models, exports)


@pytest.fixture
def model(tiny: Models) -> Path:
    """The model directory of GloVe + CNN."""
    return tiny.models["glove", "cnn"]


@pytest.fixture
def texts(loaded: data.Data) -> list[str]:
    """The 32 sentences of valid."""
    return [each.text for each in loaded.valid]


@pytest.fixture
def gold(loaded: data.Data) -> list[str]:
    """Their labels."""
    return [each.label for each in loaded.valid]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The formats in which a benchmark has tried to export."""
    names, original = [], contenders.attempt

    def attempt(source: Bundle, name: str, folder: Path) -> Candidate:
        names.append(name)
        return original(source, name, folder)

    monkeypatch.setattr(contenders, "attempt", attempt)
    return names


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """One format of each kind: the rules are the same for all others."""
    for name in set(FORMATS) - {"torchscript", "int8"}:
        monkeypatch.delitem(FORMATS, name)


@pytest.fixture
def disturb(two: None, monkeypatch: pytest.MonkeyPatch) -> Disturb:
    """Make one of two formats give other logits than it should."""
    return lambda name, wrong: monkeypatch.setitem(FORMATS, name, disturbed(FORMATS[name], wrong))


@pytest.fixture(scope="session")
def multi_data(work: Path) -> Path:
    """A data directory with 400 sentences of any number of three labels."""
    generator = random.Random(0)
    examples = []
    for _ in range(400):
        given = [label for label in TRIGGERS if generator.random() < 0.4]
        words = generator.choices(REST, k=generator.randint(1, 8))
        words += [generator.choice(TRIGGERS[label]) for label in given]
        generator.shuffle(words)
        examples.append(data.Example(" ".join(words), joined(given), multi=True))
    folder = work / "multi_data"
    folder.mkdir()
    data.write_splits(folder, data.split(examples, 0))
    return folder


@pytest.fixture(scope="session")
def multi(work: Path, multi_data: Path, vectors: Path, checkpoint: Path) -> Models:
    """Multi-label models of both handlers, exported in every format that is quick to make."""
    loaded = data.load(multi_data)
    models, exports = {}, {}
    for name, encoder in [("glove", "cnn"), ("bert", "cls")]:
        config = tiny_config(name, encoder, vectors, checkpoint, epoch=8)
        folder = work / "multi" / f"{name}-{encoder}"
        models[name, encoder] = loop.train(config, loaded, folder).folder
        for form in QUICK:
            path = work / "multi" / f"{name}-{encoder}-{form}"
            exports[path.name] = exported(models[name, encoder], form, path, loaded.valid)
    return Models(models, exports)


@pytest.fixture(scope="session")
def model_store(work: Path, tiny: Models, multi: Models) -> Path:
    """Archives of all exports, each of which has proven itself."""
    store = work / "model_store"
    for name in SERVED:
        archive(tiny.exports[name], name, store)
    archive(multi.exports["glove-cnn-torchscript"], MULTI, store)
    explain = tiny.models["bert", "cls"]
    archive(tiny.exports["bert-cls-int8"], EXPLAINED, store, explain=explain)
    return store


@pytest.fixture(scope="session")
def live(work: Path, model_store: Path) -> Iterator[Server]:
    """A real TorchServe with all archives."""
    names = [*SERVED, MULTI, EXPLAINED]
    # fourteen workers at once: half a minute alone, minutes beside other work
    started = server.start(model_store, names, work / "serve", seconds=400)
    # pytest skips what follows a yield when a second Ctrl-C meets it in another fixture
    atexit.register(started.end)
    yield started
    started.stop()
    atexit.unregister(started.end)


def cli(*arguments: object, cwd: Path = ROOT, **more: object) -> "subprocess.CompletedProcess[str]":
    """Run ./iclassifier as a user does."""
    command = [str(ROOT / "iclassifier"), *map(str, arguments)]
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        command, cwd=cwd, capture_output=True, text=True, check=False, **more
    )


def read_json(path: Path) -> dict[str, object]:
    """Return a JSON object."""
    value: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return value


def verb(capsys: pytest.CaptureFixture[str], name: str, *options: object) -> str:
    """Return what a verb prints."""
    module = importlib.import_module(f"scripts.{name}")
    parser = Parser(name, VERBS[name], module.EXAMPLE)
    module.add_options(parser)
    capsys.readouterr()
    module.run(parser.parse([str(option) for option in options]))
    return capsys.readouterr().out
