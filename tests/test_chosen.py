"""Which epoch becomes the model, and when training stops for want of a better one."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from model_src.bundle import WEIGHTS
from model_src.classifier import state_of
from tests.conftest import tiny_config, verb
from train import loop
from train.data import Data

States = list[dict[str, Tensor]]


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> States:
    """The weights after each epoch, which valid is made to judge by ``values``."""
    found: States = []
    given: Iterator[float] = iter(values)

    def measure(self: loop._Fit) -> tuple[str, float]:
        found.append(copy.deepcopy(state_of(self.model)))
        return "valid_accuracy", next(given)

    monkeypatch.setattr(loop._Fit, "_measure", measure)
    return found


@pytest.mark.parametrize(
    ("values", "kept"), [([0.5, 0.9, 0.9, 0.8], 3), ([0.9, 0.5, 0.5, 0.5], 1), ([0.0] * 4, 4)]
)
def test_the_best_epoch_is_kept_and_of_equal_ones_the_last(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoint: Path, states: States, kept: int
) -> None:
    config = tiny_config("glove", "cnn", vectors, checkpoint)
    made = loop.train(config, loaded, tmp_path / "model")
    weights = load_file(made.folder / WEIGHTS)
    same = [all(weights[key].equal(value) for key, value in state.items()) for state in states]
    assert same == [epoch == kept for epoch in range(1, 5)]


@pytest.mark.parametrize("values", [[0.9] * 6])
def test_an_equal_epoch_is_no_gain_to_wait_for(
    tmp_path: Path,
    data_dir: Path,
    vectors: Path,
    states: States,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--data_dir", data_dir, "--save_path", tmp_path / "model"]
    options += ["--embedding_path", vectors, "--epoch", "6", "--patience", "2"]
    told = verb(capsys, "train", "--config", "glove-cnn", *map(str, options))
    assert len(states) == 3
    assert "after epoch 3 of 3" in told
