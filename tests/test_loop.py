"""How training computes: batches, accumulation, processes, precision, teachers, search."""

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from model_src.bundle import WEIGHTS, Bundle
from model_src.errors import ConfigError, UserError
from model_src.predictor import Predictor
from model_src.tokenizer import SubwordTokenizer, WordTokenizer
from tests.conftest import QUICK, ROOT, Models, read_json, sentence, tiny_config, verb
from train import distill, loop, precision
from train.batches import Features, WordDropout
from train.board import Board
from train.data import Data, Example
from train.loss import Loss
from train.task import TASKS

CPU = torch.device("cpu")


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in Bundle.read(folder).metrics["history"]]


def said(text: str) -> list[dict[str, float]]:
    """Return the lines of JSON among others."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.parametrize(("rows", "world"), [(64, 2), (65, 2), (66, 4), (17, 3), (1, 2)])
def test_processes_share_each_batch_and_weigh_it_as_one(rows: int, world: int) -> None:
    tokenizer = WordTokenizer(["<pad>", "<unk>", "film"], lowercase=True, n_ctx=9)
    examples = [Example("film " * (1 + i % 5), str(i % 2)) for i in range(rows)]
    features = Features(examples, tokenizer, ["0", "1"], TASKS[False])
    whole = features.batches(16, "seed")
    parts = [features.batches(16, "seed", rank, world) for rank in range(world)]
    for i, batch in enumerate(whole):
        mine = [part[i] for part in parts]
        together = sum(b.targets.double().mean() * b.share for b in mine) / world
        assert together == pytest.approx(batch.targets.double().mean())
        assert {b.rows for b in mine} == {len(batch.targets)}
        if len(batch.targets) >= world:
            assert sum(len(b.targets) for b in mine) == len(batch.targets)


def test_accumulated_batches_take_the_step_of_one_batch(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoint: Path
) -> None:
    still = {"dropout": 0.0, "epoch": 2}
    whole = tiny_config("glove", "cnn", vectors, checkpoint, batch_size=256, **still)
    more = {"batch_size": 60, "gradient_accumulation_steps": 5}  # the last has 16 rows
    parts = tiny_config("glove", "cnn", vectors, checkpoint, **more, **still)
    loop.train(whole, loaded, tmp_path / "whole")
    loop.train(parts, loaded, tmp_path / "parts")
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)
    # without dropout two passes agree, so R-Drop adds nothing
    loop.train(dataclasses.replace(parts, r_drop=1.0), loaded, tmp_path / "twice")
    assert losses(tmp_path / "twice") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)


@pytest.mark.parametrize(("pair", "steps"), [(("glove", "cnn"), 1), (("bert", "cls"), 2)])
def test_two_processes_train_as_one(
    tmp_path: Path,
    data_dir: Path,
    loaded: Data,
    vectors: Path,
    checkpoint: Path,
    pair: tuple[str, str],
    steps: int,
) -> None:
    """With torchrun and gloo, on the same batches; dropout is off, as its draws would differ."""
    own = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (own / "config.json").write_text(json.dumps(read_json(own / "config.json") | off))
    config = tiny_config(
        *pair, vectors, own, dropout=0.0, epoch=3, gradient_accumulation_steps=steps
    )
    (tmp_path / "config.json").write_text(config.to_json(), encoding="utf-8")
    loop.train(config, loaded, tmp_path / "one")
    options = ["--config", tmp_path / "config.json", "--data_dir", data_dir, "--device", "cpu"]
    torchrun = [Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "scripts", "train", *options, "--save_path", tmp_path / "two"]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONWARNINGS": "error::FutureWarning"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is trained") == 1
    assert said(done.stderr) == Bundle.read(tmp_path / "two").metrics["history"]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    one, two = (load_file(tmp_path / name / WEIGHTS) for name in ("one", "two"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-3


def test_word_dropout_spares_special_tokens(checkpoint: Path) -> None:
    tokenizer = SubwordTokenizer.load(checkpoint)
    ids = torch.tensor([tokenizer.encode("the film is great"), tokenizer.encode("a b c d")])
    torch.manual_seed(0)
    dropped = WordDropout(tokenizer, 0.9)(ids)
    assert torch.equal(dropped[:, [0, -1]], ids[:, [0, -1]])
    assert set(dropped[dropped != ids].tolist()) == {tokenizer.fast.token_to_id("[MASK]")}
    words = WordTokenizer(["<pad>", "<unk>", "film"], lowercase=True, n_ctx=9)
    assert WordDropout(words, 0.9)(torch.tensor([[2] * 50 + [0] * 9])).unique().tolist() == [
        0,
        1,
        2,
    ]


def test_class_weights_make_rare_labels_count_as_much(vectors: Path, checkpoint: Path) -> None:
    config = tiny_config("glove", "cnn", vectors, checkpoint, class_weights=True)
    targets = torch.tensor([0] * 9 + [1])
    weights = Loss(config, TASKS[False], targets, 2).weights
    assert weights is not None
    assert weights[0] * 9 == pytest.approx(float(weights[1]))
    assert weights[targets].mean() == pytest.approx(1)


@pytest.mark.parametrize("multi", [False, True])
def test_weights_do_not_teach_what_smoothing_gives_to_rare_labels(multi: bool) -> None:  # noqa: FBT001
    """With 99 sentences to 1 the gold answer must still cost least, and the other most."""
    targets = torch.tensor([0] * 99 + [1])
    task = TASKS[multi]
    rows = functional.one_hot(targets).float() if multi else targets
    weights = task.weights(rows, 2)
    gold = torch.tensor([[3.0, -3.0]])
    costs = [float(task.loss(logits, rows[:1], 0.1, weights)) for logits in (gold, 0 * gold, -gold)]
    assert costs == sorted(costs)


@pytest.mark.parametrize("amp_dtype", ["bfloat16", "float16"])
def test_training_learns_in_every_precision(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoint: Path, amp_dtype: str
) -> None:
    more = {"use_amp": True, "amp_dtype": amp_dtype}
    config = tiny_config("glove", "cnn", vectors, checkpoint, **more)
    assert loop.train(config, loaded, tmp_path / "m").metrics["valid_accuracy"] >= 0.9


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device is '{name}'"):
        precision.device_of(name)


def test_a_student_learns_its_teachers_answers(
    tmp_path: Path, tiny: Models, loaded: Data, vectors: Path, checkpoint: Path
) -> None:
    """Without labels: they are all swapped, and only the teacher is right."""
    swap = {"good": "bad", "bad": "good"}
    wrong = [Example(e.text, swap[e.label]) for e in loaded.train]
    swapped = dataclasses.replace(loaded, train=wrong, fingerprint="swapped")
    config = tiny_config("glove", "cnn", vectors, checkpoint, distill_copies=2)
    teacher = tiny.models["bert", "cls"]
    student = loop.train(config, swapped, tmp_path / "student", teacher=teacher)
    texts = [example.text for example in loaded.test]
    pairs = zip(
        Predictor.load(student.folder).predict(texts),
        Predictor.load(teacher).predict(texts),
        strict=True,
    )
    assert sum(a.label == b.label for a, b in pairs) >= 0.9 * len(texts)


def test_a_teacher_of_other_labels_is_refused(
    tmp_path: Path, tiny: Models, loaded: Data, vectors: Path, checkpoint: Path
) -> None:
    config = tiny_config("glove", "cnn", vectors, checkpoint)
    renamed = [Example(e.text, e.label.upper()) for e in loaded.train]
    other = Data(renamed, renamed, renamed, ["BAD", "GOOD"], {}, "renamed")
    with pytest.raises(ConfigError, match="'BAD' is only in one"):
        loop.train(config, other, tmp_path / "m", teacher=tiny.models["bert", "cls"])


def test_altered_copies_are_repeatable_and_never_empty() -> None:
    generator = random.Random(0)
    examples = [Example(sentence(generator, "good"), "good") for _ in range(50)]
    made = distill.altered(examples, 3)
    assert made == distill.altered(examples, 3)
    assert len(made) == 150
    assert all(e.text.strip() for e in made)
    assert {e.text for e in made} - {e.text for e in examples}


def test_tensorboard_gets_every_epoch(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoint: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny_config("glove", "cnn", vectors, checkpoint, epoch=2)
    loop.train(config, loaded, tmp_path / "m", on_epoch=Board(tmp_path / "runs"))
    events = EventAccumulator(str(tmp_path / "runs"))
    events.Reload()
    assert [e.step for e in events.Scalars("valid_accuracy")] == [1, 2]
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(losses(tmp_path / "m"))


def test_the_verb_gives_each_epoch_to_tensorboard_and_as_a_line_of_json(
    tmp_path: Path,
    data_dir: Path,
    vectors: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny_config("glove", "cnn", vectors, checkpoint, epoch=3)
    (tmp_path / "config.json").write_text(config.to_json(), encoding="utf-8")
    options = ["--config", tmp_path / "config.json", "--data_dir", data_dir, "--device", "cpu"]
    folders = ["--save_path", tmp_path / "m", "--log_dir", tmp_path / "new" / "runs"]
    with caplog.at_level("INFO", "train"):
        verb(capsys, "train", *options, *folders)
    history = Bundle.read(tmp_path / "m").metrics["history"]
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert said("\n".join(caplog.messages)) == history
    events = EventAccumulator(str(tmp_path / "new" / "runs"))
    events.Reload()
    for name in ("loss", "valid_accuracy", "seconds"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(e["epoch"], pytest.approx(e[name])) for e in history]


@pytest.mark.parametrize(
    "key",
    [
        {"word_dropout": 0.3},
        {"r_drop": 1.0},
        {"class_weights": True},
        {"use_amp": True},
        {"max_grad_norm": 1e-3},
        {"label_smoothing": 0.2},
        {"embedding_dropout": 0.3},
        {"dropout": 0.4},
        {"weight_decay": 0.5},
        {"warmup_ratio": 0.5},
        {"lr_decay_rate": 0.1, "lr_decay_steps": 1},
    ],
    ids=lambda key: next(iter(key)),
)
def test_every_key_of_the_recipe_changes_what_is_learned(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoint: Path, key: dict[str, object]
) -> None:
    skewed = [e for i, e in enumerate(loaded.train) if e.label == "good" or i % 3]
    some = dataclasses.replace(loaded, train=skewed)
    base = {"epoch": 6, "lr": 1e-2}
    plain = tiny_config("glove", "cnn", vectors, checkpoint, **base)
    changed = tiny_config("glove", "cnn", vectors, checkpoint, **base, **key)
    loop.train(plain, some, tmp_path / "plain")
    loop.train(changed, some, tmp_path / "changed")
    assert losses(tmp_path / "plain") != losses(tmp_path / "changed")


def test_training_stops_when_patience_ends(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoint: Path
) -> None:
    more = {"epoch": 12, "patience": 2, "lr": 1e-2}
    config = tiny_config("glove", "cnn", vectors, checkpoint, **more)
    history = loop.train(config, loaded, tmp_path / "m").metrics["history"]
    values = [entry["valid_accuracy"] for entry in history]
    assert len(values) == values.index(max(values)) + 3 < 12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_checkpoint_in_half_precision_is_trained_in_fp32(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoint: Path, dtype: torch.dtype
) -> None:
    from transformers import AutoModel

    folder = Path(shutil.copytree(checkpoint, tmp_path / "half"))
    AutoModel.from_pretrained(checkpoint).to(dtype).save_pretrained(folder)
    config = tiny_config("bert", "cls", vectors, folder, epoch=1)
    made = loop.train(config, loaded, tmp_path / "m")
    assert {value.dtype for value in load_file(made.folder / WEIGHTS).values()} == {torch.float32}
    assert Predictor.load(made.folder).predict(["great"])


@pytest.mark.parametrize("form", QUICK)
def test_any_export_can_teach(
    tmp_path: Path, tiny: Models, loaded: Data, vectors: Path, checkpoint: Path, form: str
) -> None:
    config = tiny_config("glove", "cnn", vectors, checkpoint)
    teacher = tiny.exports[f"bert-cls-{form}"]
    assert loop.train(config, loaded, tmp_path / "m", teacher=teacher)


def test_teachers_that_make_no_sense_are_refused(
    tmp_path: Path, tiny: Models, loaded: Data, vectors: Path, checkpoint: Path
) -> None:
    config = tiny_config("glove", "cnn", vectors, checkpoint, distill_copies=1)
    for key, value in {"copies": 1, "weight": 0.5, "temperature": 3.0}.items():
        alone = tiny_config("glove", "cnn", vectors, checkpoint, **{f"distill_{key}": value})
        with pytest.raises(ConfigError, match=f"distill_{key} .* give train --teacher DIR"):
            loop.train(alone, loaded, tmp_path / "m")
    same = tiny.models["glove", "cnn"]
    with pytest.raises(ConfigError, match="both teacher and student"):
        loop.train(config, loaded, same, teacher=same)
    several = [e._replace(multi=True) for e in loaded.train]
    many = dataclasses.replace(loaded, train=several, valid=several, test=several)
    with pytest.raises(ConfigError, match="on another number of labels a text"):
        loop.train(config, many, tmp_path / "m", teacher=same)


def test_class_weights_that_a_teacher_leaves_without_effect_are_refused(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoint: Path
) -> None:
    """Before the teacher, which is not there, is asked; below 1 it is asked."""
    config = tiny_config("glove", "cnn", vectors, checkpoint, class_weights=True)
    teacher = tmp_path / "teacher"
    with pytest.raises(ConfigError, match="give --distill_weight below 1"):
        loop.train(config, loaded, tmp_path / "m", teacher=teacher)
    mixed = dataclasses.replace(config, distill_weight=0.5)
    with pytest.raises(UserError, match="teacher") as refused:
        loop.train(mixed, loaded, tmp_path / "m", teacher=teacher)
    assert "distill_weight" not in str(refused.value)


def test_answers_that_are_no_numbers_end_training(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(self: loop._Fit, epoch: int) -> float:
        torch.nn.init.constant_(self.model.output.weight, float("nan"))
        return 0.0

    monkeypatch.setattr(loop._Fit, "_epoch", spoil)
    config = tiny_config("glove", "cnn", vectors, checkpoint)
    with pytest.raises(loop.DivergedError, match="no numbers"):
        loop.train(config, loaded, tmp_path / "m")
