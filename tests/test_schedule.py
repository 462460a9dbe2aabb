"""The learning rate and the gradients from the first step to the last."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import tiny_config
from train import loop, optimizer
from train.data import Data
from train.precision import Precision

Optimizer = torch.optim.Optimizer
Rates = list[float]


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Rates:
    """The learning rate of every step that training takes."""
    found: Rates = []
    step = Precision.step

    def noted(self: Precision, made: Optimizer, model: torch.nn.Module, norm: float) -> None:
        found.append(made.param_groups[0]["lr"])
        step(self, made, model, norm)

    monkeypatch.setattr(Precision, "step", noted)
    return found


@pytest.mark.parametrize(("ratio", "warm"), [(0.1, 10), (0.5, 50), (0.0, 1)])
def test_the_rate_rises_to_its_peak_and_falls_to_almost_zero(
    vectors: Path, checkpoint: Path, ratio: float, warm: int
) -> None:
    config = tiny_config("glove", "cnn", vectors, checkpoint, lr=2.0, warmup_ratio=ratio)
    made = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.lr)
    schedule = optimizer.schedule(made, config, 100, lambda: 1.0)
    found = []
    for _ in range(100):
        found.append(made.param_groups[0]["lr"])
        made.step()
        schedule.step()
    up, down = found[:warm], found[warm:]
    assert up == pytest.approx([2.0 * (i + 1) / warm for i in range(warm)])
    left = 100 - warm
    assert down == pytest.approx([2.0 * (left - i) / left for i in range(left)])
    assert made.param_groups[0]["lr"] == 0


@pytest.mark.parametrize("accumulated", [1, 3])
def test_the_last_step_of_training_has_the_last_rate(
    tmp_path: Path, loaded: Data, vectors: Path, checkpoint: Path, rates: Rates, accumulated: int
) -> None:
    more = {"batch_size": 64, "gradient_accumulation_steps": accumulated, "warmup_ratio": 0.25}
    config = tiny_config("glove", "cnn", vectors, checkpoint, **more)
    loop.train(config, loaded, tmp_path / "model")
    steps = 4 * -(-(256 // 64) // accumulated)
    assert len(rates) == steps
    assert rates[0] == pytest.approx(config.lr / (steps // 4))
    assert max(rates) == config.lr
    assert rates[-1] == pytest.approx(config.lr / (steps - steps // 4))


@pytest.mark.parametrize(
    ("measured", "factors"),
    [
        ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5], [1, 1, 1, 0.1, 0.1, 0.01]),
        ([0.5, 0.5, 0.6, 0.5, 0.6, 0.6], [1, 1, 1, 1, 1, 0.1]),
    ],
    ids=["no gain", "a gain"],
)
def test_the_rate_decays_after_epochs_without_gain(
    tmp_path: Path,
    loaded: Data,
    vectors: Path,
    checkpoint: Path,
    rates: Rates,
    monkeypatch: pytest.MonkeyPatch,
    measured: list[float],
    factors: list[float],
) -> None:
    """From the first step of the next epoch on, whose rate was set before valid was measured."""
    values = itertools.cycle(measured)
    monkeypatch.setattr(loop._Fit, "_measure", lambda _: ("valid_accuracy", next(values)))
    few = replace(loaded, train=loaded.train[:32])
    plain = tiny_config("glove", "cnn", vectors, checkpoint, epoch=6, lr_decay_steps=2)
    loop.train(plain, few, tmp_path / "plain")
    loop.train(replace(plain, lr_decay_rate=0.1), few, tmp_path / "decayed")
    found = [b / a for a, b in zip(rates[:12], rates[12:], strict=True)]
    assert found == pytest.approx([factor for factor in factors for _ in range(2)])


@pytest.mark.parametrize("use_amp", [False, True])
@pytest.mark.parametrize(("slope", "step"), [(1e4, 0.5), (0.01, 0.02)])
def test_clipping_bounds_the_norm_of_all_gradients_together(
    vectors: Path,
    checkpoint: Path,
    use_amp: bool,  # noqa: FBT001
    slope: float,
    step: float,
) -> None:
    amp = {"use_amp": use_amp, "amp_dtype": "float16"}
    precision = Precision(
        tiny_config("glove", "cnn", vectors, checkpoint, **amp), torch.device("cpu")
    )
    model = torch.nn.ParameterList([torch.zeros(2), torch.zeros(2)])
    made = torch.optim.SGD(model.parameters(), lr=1.0)
    precision.backward(sum((p.sum() for p in model), torch.zeros(())) * slope)
    precision.step(made, model, 0.5)
    moved = torch.cat([p.detach() for p in model])
    assert float(moved.norm()) == pytest.approx(step, rel=1e-3)
