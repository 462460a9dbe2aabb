"""A sentence gets the same answer alone, padded, in any batch, in any order, in every format."""

import random

import pytest
import torch

from model_src.backends import FORMATS, missing
from model_src.decode import Prediction, decode
from model_src.predictor import Predictor
from model_src.tokenizer import pad_batch
from tests.conftest import ALLOWED, EXPORTS, ODD_TEXTS, PAIRS, Models, sentence

EXACT = 1e-5


def difference(a: Prediction, b: Prediction) -> float:
    return max(abs(a.scores[label] - b.scores[label]) for label in a.scores)


def load(tiny: Models, name: str) -> Predictor:
    if lacking := missing(EXPORTS[name], to_export=True) if name in EXPORTS else []:
        pytest.skip(f"the format {EXPORTS[name]} needs {' and '.join(lacking)}")
    models = {f"{a}-{b}": folder for (a, b), folder in tiny.models.items()}
    return Predictor.load((models | tiny.exports)[name])


@pytest.mark.parametrize("name", [f"{a}-{b}" for a, b in PAIRS] + [*EXPORTS])
def test_batch_order_and_padding_change_nothing(tiny: Models, name: str) -> None:
    predictor = load(tiny, name)
    generator = random.Random(1)
    texts = ODD_TEXTS + [sentence(generator, "good") for _ in range(60)]
    alone = {text: predictor.predict([text])[0] for text in texts}
    for batch_size in (2, 7, 64):
        generator.shuffle(texts)
        for text, answer in zip(texts, predictor.predict(texts, batch_size), strict=True):
            assert difference(answer, alone[text]) <= EXACT
    rows = predictor.bundle.tokenizer.encode_batch(texts[:5])
    longest = predictor.bundle.config.n_ctx
    with torch.inference_mode():
        for text, row in zip(texts, rows, strict=False):
            ids, mask = pad_batch([row, [1] * longest], predictor.bundle.tokenizer.pad_id)
            padded = decode(predictor.backend(ids, mask), predictor.bundle.labels)[0]
            assert difference(padded, alone[text]) <= EXACT


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_no_mate_and_no_padding_changes_a_random_sentence(
    tiny: Models, pair: tuple[str, str]
) -> None:
    """10,000 random cases over all pairs: ids alone against ids padded to 100 in a batch.

    `benchmark parity` takes as many for each.
    """
    predictor = Predictor.load(tiny.models[pair])
    rows_in = predictor.bundle.shape["vocab_size"]
    pad, labels = predictor.bundle.tokenizer.pad_id, predictor.bundle.labels
    generator = random.Random(3)
    with torch.inference_mode():
        for _ in range(10_000 // len(PAIRS) // 25 + 1):
            sizes = [generator.randint(1, 100) for _ in range(25)]
            rows = [[generator.randrange(5, rows_in) for _ in range(size)] for size in sizes]
            together = predictor.backend(*pad_batch([*rows, [5] * 100], pad))
            for row, answer in zip(rows, decode(together, labels), strict=False):
                alone = decode(predictor.backend(*pad_batch([row], pad)), labels)[0]
                assert difference(answer, alone) <= EXACT


@pytest.mark.parametrize("name", EXPORTS)
def test_a_format_keeps_the_answers(tiny: Models, name: str) -> None:
    assert set(ALLOWED) == set(FORMATS)
    generator = random.Random(2)
    texts = [sentence(generator, generator.choice(["good", "bad"])) for _ in range(100)]
    after = load(tiny, name).predict(texts)
    before = load(tiny, name.removesuffix(f"-{EXPORTS[name]}")).predict(texts)
    moved = max(difference(a, b) for a, b in zip(before, after, strict=True))
    assert moved <= ALLOWED[EXPORTS[name]]


def test_scores_are_sorted_and_sum_to_one() -> None:
    (answer,) = decode(torch.tensor([[0.1, 2.0, -1.0, 2.0]]), ["a", "b", "c", "d"])
    assert list(answer.scores) == ["b", "d", "a", "c"]
    assert answer.label == "b"
    assert answer.score == answer.scores["b"]
    assert abs(sum(answer.scores.values()) - 1) < 1e-12


def test_a_short_sentence_works_with_wide_kernels(tiny: Models) -> None:
    """The original crashed on inputs shorter than the widest kernel."""
    for pair in PAIRS:
        predictor = Predictor.load(tiny.models[pair])
        (row,) = predictor.bundle.tokenizer.encode_batch(["great"])
        with torch.inference_mode():
            wide, mask = pad_batch([row, [1] * 40], predictor.bundle.tokenizer.pad_id)
            (padded,) = decode(predictor.backend(wide[:1], mask[:1]), predictor.bundle.labels)
        answer = predictor.predict(["great"])[0]
        if pair[0] == "glove":  # a tiny random transformer need not know one word alone
            assert answer.label == "good", pair
        assert difference(answer, padded) <= EXACT
