"""A search goes on where it was, spares what is not its own, and refuses what makes no sense."""

import dataclasses
from pathlib import Path

import optuna
import pytest
import torch

from model_src.bundle import Bundle
from model_src.config import Config
from model_src.errors import ConfigError, UserError
from tests.conftest import Models, tiny_config
from train import loop
from train.data import Data
from train.search import _study, distributions, search

CPU = torch.device("cpu")


def test_a_search_goes_on_after_an_interruption(
    tmp_path: Path,
    loaded: Data,
    vectors: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config("glove", "cnn", vectors, checkpoint, epoch=2)
    whole, calls = loop.train, []

    def interrupted(config: Config, *rest: object, **more: object) -> Bundle:
        calls.append(config)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(config, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "train", interrupted)
    space = ["lr=1e-4..1e-2", "dropout=0.1,0.4"]
    with pytest.raises(KeyboardInterrupt):
        search(config, loaded, tmp_path, space, 5, CPU)
    found = search(config, loaded, tmp_path, space, 5, CPU)
    assert len(calls) == 6
    assert calls[3] == calls[2]  # the interrupted trial is tried again
    assert len({c.lr for c in calls}) == 5
    best = Bundle.read(found.model)
    assert best.metrics["valid_accuracy"] == found.value
    assert Config.load(found.config) == best.config
    assert {path.name for path in tmp_path.iterdir()} == {
        "study.db",
        "study.db.lock",
        "config.json",
        "best",
    }


def test_a_combination_that_cannot_be_trained_is_not_tried_for_ever(
    tmp_path: Path,
    loaded: Data,
    vectors: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, calls = loop.train, []

    def refusing(config: Config, *rest: object, **more: object) -> Bundle:
        calls.append(config)
        if len(calls) == 1:
            raise ConfigError("no such pair")
        return whole(config, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "train", refusing)
    config = tiny_config("glove", "cnn", vectors, checkpoint, epoch=1)
    with pytest.raises(ConfigError, match="no such pair"):
        search(config, loaded, tmp_path, ["lr=1e-4..1e-2"], 2, CPU)
    assert search(config, loaded, tmp_path, ["lr=1e-4..1e-2"], 2, CPU).model.is_dir()
    assert calls[0] not in calls[1:]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("lrr=1..2", "did you mean"),
        ("lr=low..high", "must be of type float"),
        ("lr=2..1", "from a number to a higher one"),
        ("dropout=0..2", "must be in"),
        ("lr", "must be KEY=LOW..HIGH or KEY=A,B,C"),
        ("lr=1e-3", "must be KEY=LOW..HIGH or KEY=A,B,C"),
        ("kernel_sizes=2,3", "without lists"),
        ("dsa_r=1..3", "dsa_r from --space is for densenet-dsa only"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(
    vectors: Path, checkpoint: Path, space: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        distributions(tiny_config("glove", "cnn", vectors, checkpoint), [space])


def test_a_choice_may_be_a_path_with_dots(vectors: Path, checkpoint: Path) -> None:
    space = ["embedding_path=../mine.txt,glove.6B.50d"]
    found = distributions(tiny_config("glove", "cnn", vectors, checkpoint), space)
    assert found["embedding_path"].choices == ("../mine.txt", "glove.6B.50d")  # type: ignore[attr-defined]


def test_a_search_spares_what_is_not_its_own(
    tmp_path: Path, tiny: Models, loaded: Data, vectors: Path, checkpoint: Path
) -> None:
    config = tiny_config("glove", "cnn", vectors, checkpoint, epoch=1)
    with pytest.raises(UserError, match="which would be lost"):
        search(config, loaded, tiny.models["glove", "cnn"], ["lr=1e-3,2e-3"], 1, CPU)
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"thesis\.txt, which would be lost"):
        search(config, loaded, tmp_path, ["lr=1e-3,2e-3"], 1, CPU)
    search(config, loaded, tmp_path / "new", ["lr=1e-3,2e-3"], 1, CPU)
    with pytest.raises(ConfigError, match="holds a search with other settings"):
        search(config, loaded, tmp_path / "new", ["lr=1e-3,3e-3"], 1, CPU)


def test_a_search_without_a_finished_trial_says_so(
    tmp_path: Path,
    loaded: Data,
    vectors: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def strict(**_: object) -> optuna.pruners.BasePruner:
        return optuna.pruners.ThresholdPruner(lower=1.1)

    monkeypatch.setattr(optuna.pruners, "MedianPruner", strict)
    config = tiny_config("glove", "cnn", vectors, checkpoint, epoch=2)
    with pytest.raises(ConfigError, match="all 2 trials were pruned or diverged"):
        search(config, loaded, tmp_path, ["lr=1e-3..2e-3"], 2, CPU)
    assert {path.name for path in tmp_path.iterdir()} == {"study.db", "study.db.lock"}
    wrong = dataclasses.replace(config, embedding_path="nowhere.txt")
    with pytest.raises(ConfigError, match=r"nowhere\.txt"):
        search(wrong, loaded, tmp_path / "wrong", ["lr=1e-3..2e-3"], 2, CPU)


def test_the_first_epoch_is_spared_and_the_second_is_not(tmp_path: Path) -> None:
    """The learning rate may still warm up in the first."""
    study = _study(tmp_path, "name", 0)
    for _ in range(4):
        good = study.ask()
        for epoch in (1, 2):
            good.report(0.9, epoch)
        study.tell(good, 0.9)
    bad = study.ask()
    bad.report(0.1, 1)
    assert not bad.should_prune()
    bad.report(0.1, 2)
    assert bad.should_prune()


def test_a_space_may_hold_what_only_some_of_its_encoders_read(
    vectors: Path, checkpoint: Path
) -> None:
    config = tiny_config("glove", "densenet-dsa", vectors, checkpoint)
    both = distributions(config, ["dsa_r=1..3", "enc_class=cnn,densenet-dsa"])
    assert set(both) == {"dsa_r", "enc_class"}
    with pytest.raises(ConfigError, match="for densenet-dsa only"):
        distributions(config, ["dsa_r=1..3", "enc_class=cnn,densenet-cnn"])
