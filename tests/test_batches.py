"""Sentences are split into batches that pay: of like length, and not too large for the cache."""

import itertools
import random

from model_src import predictor


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
