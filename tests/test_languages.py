"""Hangul from a labelled file to equal answers: other languages need only vectors or weights."""

import random
from pathlib import Path

import numpy as np
import pytest

from model_src.predictor import Predictor
from scripts import prepare
from tests import checkpoints
from tests.conftest import tiny_config
from train import data, loop
from train.evaluate import evaluate

WHEN = ["오늘", "내일", "주말에", "아침에", "저녁에", "지금"]
ENDS = ["알려줘", "부탁해", "괜찮을까?", "해줘.", "좋겠다"]
TOPICS = {
    "날씨": ["비가", "눈이", "바람이", "기온이", "우산이", "하늘이"],
    "음악": ["노래를", "가수의", "음반을", "재즈를", "연주를", "선율을"],
    "식당": ["예약을", "메뉴를", "냉면을", "불고기를", "자리를", "김치찌개를"],
}
ENCODINGS = {"plain": ("\n", "utf-8"), "mark and CRLF": ("\r\n", "utf-8-sig")}


def examples() -> list[data.Example]:
    """Sentences of a template: when, two words of the topic, an end."""
    generator = random.Random(0)
    rows = []
    for label in list(TOPICS) * 100:
        words = generator.sample(TOPICS[label], 2)
        text = " ".join([generator.choice(WHEN), *words, generator.choice(ENDS)])
        rows.append(data.Example(text, label))
    return rows


@pytest.fixture(scope="module")
def hangul(tmp_path_factory: pytest.TempPathFactory) -> dict[str, data.Data]:
    """The same sentences prepared from a file of each encoding."""
    work = tmp_path_factory.mktemp("hangul")
    loaded = {}
    for i, (name, (end, encoding)) in enumerate(ENCODINGS.items()):
        source = work / f"{i}.tsv"
        content = "".join(f"{e.text}\t{e.label}{end}" for e in examples())
        source.write_bytes(content.encode(encoding))
        prepare.make(work / str(i), "", source, 42, skip_bad=False)
        loaded[name] = data.load(work / str(i))
    return loaded


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Vectors of Hangul words, and a checkpoint whose word pieces are Hangul syllables."""
    work = tmp_path_factory.mktemp("parts")
    words = sorted({word for e in examples() for word in e.text.rstrip("?.").split()})
    values = np.random.default_rng(0).normal(size=(len(words), 16))
    rows = (
        f"{w} {' '.join(f'{v:.4f}' for v in row)}" for w, row in zip(words, values, strict=True)
    )
    (work / "vectors.txt").write_text("\n".join(rows), encoding="utf-8")
    syllables = sorted({syllable for word in words for syllable in word})
    pieces = [f"{syllable} ##{syllable}" for syllable in syllables]
    return work / "vectors.txt", checkpoints.make("bert", work / "bert", pieces)


def test_a_mark_and_crlf_change_nothing(hangul: dict[str, data.Data]) -> None:
    first, second = hangul.values()
    assert first == second
    assert first.labels == sorted(TOPICS)


@pytest.mark.parametrize("pair", [("glove", "cnn"), ("bert", "cls")], ids="-".join)
def test_hangul_is_learned_and_answered_the_same_in_batches(
    pair: tuple[str, str],
    hangul: dict[str, data.Data],
    parts: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    loaded = hangul["plain"]
    # Lower-casing as BERT does it takes syllables apart; checkpoints of syllables are cased.
    config = tiny_config(*pair, *parts, bert_do_lower_case=False)
    predictor = Predictor.load(loop.train(config, loaded, tmp_path / "model").folder)
    texts = [example.text for example in loaded.test]
    known = {i for row in predictor.bundle.tokenizer.encode_batch(texts) for i in row}
    assert len(known) > 20  # not all of it unknown words
    report, alone = evaluate(predictor, loaded.test, 1)
    assert report.accuracy >= 0.95
    assert set(report.labels) == set(TOPICS)
    for a, b in zip(alone, predictor.predict(texts, 7), strict=True):
        assert a.label == b.label
        assert all(abs(a.scores[label] - b.scores[label]) <= 1e-5 for label in TOPICS)
