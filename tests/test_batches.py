"""Sentences are split into batches that pay: of like length, and not too large for the cache."""

import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model_src import predictor
from model_src.tokenizer import WordTokenizer
from tests.conftest import tiny_config
from train import loop
from train.batches import Batch, Features
from train.data import Data, Example
from train.task import TASKS

N = 1000


def test_every_sentence_is_in_one_batch_and_no_batch_is_too_large() -> None:
    generator = random.Random(0)
    for _ in range(200):
        lengths = [generator.randint(1, 100) for _ in range(generator.randint(0, 60))]
        most = generator.randint(1, 40)
        found = list(predictor.batches(lengths, most))
        assert sorted(itertools.chain(*found)) == list(range(len(lengths)))
        for batch in found:
            own = [lengths[i] for i in batch]
            assert own == sorted(own)
            assert len(own) <= most
            assert len(own) == 1 or len(own) * own[-1] <= predictor._IDS


def test_a_long_sentence_does_not_pad_many_short_ones() -> None:
    assert list(predictor.batches([5, 90, 5, 6, 5], 32)) == [[0, 2, 4, 3], [1]]
    assert list(predictor.batches([600, 700], 32)) == [[0], [1]]
    assert list(predictor.batches([8] * 100, 64)) == [list(range(64)), list(range(64, 100))]


def test_where_no_padding_is_computed_only_the_ids_count() -> None:
    assert list(predictor.batches([5, 90, 5, 6, 5], 32, pads=False)) == [[0, 2, 4, 3, 1]]
    assert list(predictor.batches([200, 100, 300, 12], 32, pads=False)) == [[3, 1, 0], [2]]
    assert list(predictor.batches([1] * 5, 2, pads=False)) == [[0, 1], [2, 3], [4]]


def features() -> Features:
    """Sentences of 1 to 40 words, each with its number as its teacher's answer."""
    generator = random.Random(0)
    tokenizer = WordTokenizer(["<pad>", "<unk>", "film"], lowercase=True, n_ctx=40)
    examples = [Example("film " * generator.randint(1, 40), str(i % 2)) for i in range(N)]
    soft = torch.arange(N)[:, None]
    return Features(examples, tokenizer, ["0", "1"], TASKS[False], soft)


def numbers(batches: list[Batch]) -> list[list[int]]:
    return [batch.soft.flatten().tolist() for batch in batches if batch.soft is not None]


def test_an_epoch_has_every_sentence_once_beside_others_of_like_length() -> None:
    batches = features().batches(16, "42-1")
    assert sorted(itertools.chain(*numbers(batches))) == list(range(N))
    assert [len(batch.ids) for batch in batches].count(16) >= N // 16 - 1
    places = sum(batch.mask.numel() for batch in batches)
    assert 1 - sum(int(batch.mask.sum()) for batch in batches) / places < 0.05
    lengths = [batch.ids.shape[1] for batch in batches]
    assert sum(a > b for a, b in itertools.pairwise(lengths)) > 10  # in random order


def test_the_order_of_an_epoch_depends_on_its_seed_alone() -> None:
    first = numbers(features().batches(16, "42-1"))
    random.seed(1)
    assert numbers(features().batches(16, "42-1")) == first
    other = numbers(features().batches(16, "42-2"))
    assert other != first
    assert {frozenset(batch) for batch in other} != {frozenset(batch) for batch in first}


def test_training_takes_another_order_each_epoch_and_the_same_each_run(
    tmp_path: Path,
    loaded: Data,
    vectors: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orders: list[list[tuple[int, ...]]] = []

    def noted(self: loop._Fit, epoch: int) -> float:
        orders.append([])
        return whole(self, epoch)

    def step(self: loop._Fit, batches: list[Batch], rows: int) -> float:
        orders[-1] += [tuple(row[row > 0].tolist()) for batch in batches for row in batch.ids]
        self.schedule.optimizer.step()
        self.schedule.step()
        return 0.0

    whole = loop._Fit._epoch
    monkeypatch.setattr(loop._Fit, "_epoch", noted)
    monkeypatch.setattr(loop._Fit, "_step", step)
    config = tiny_config("glove", "cnn", vectors, checkpoint, epoch=2)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        loop.train(replace(config, seed=seed), loaded, tmp_path / name)
    assert orders[:2] == orders[2:4]
    different = [orders[0], orders[1], orders[4], orders[5]]
    assert all(a != b for a, b in itertools.combinations(different, 2))
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert len(orders[0]) == len(loaded.train)
