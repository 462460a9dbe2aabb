"""Multi-label measures agree with what is counted by hand."""

import numpy as np
import pytest

from model_src.decode import MultiPrediction
from train.data import Example
from train.evaluate import evaluate
from train.measures import auroc, macro_f1, mean_auroc

# by hand: a positive against each negative, 1 where it scores higher and 0.5 where equal
AREAS = [
    ([0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0], 1.0),
    ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 0.0),
    ([0.9, 0.8, 0.3, 0.1], [1, 0, 1, 0], 0.75),
    ([0.5, 0.5, 0.5], [1, 0, 0], 0.5),
    ([0.9, 0.5, 0.5, 0.1], [0, 1, 0, 0], 0.5),  # (0 + 0.5 + 1) / 3
    ([0.7, 0.7, 0.7, 0.2], [1, 1, 0, 0], 0.75),  # (0.5 + 1 + 0.5 + 1) / 4
    ([0.4, 0.6], [1, 1], None),
    ([0.4, 0.6], [0, 0], None),
]


@pytest.mark.parametrize(("scores", "gold", "area"), AREAS)
def test_auroc_is_the_share_of_pairs_in_the_right_order(
    scores: list[float], gold: list[int], area: float | None
) -> None:
    assert auroc(np.array(scores), np.array(gold, dtype=bool)) == area


def test_auroc_equals_the_count_over_all_pairs() -> None:
    generator = np.random.default_rng(0)
    scores, gold = generator.integers(0, 20, 300) / 20, generator.random(300) < 0.3
    over = scores[gold][:, None] - scores[~gold][None, :]
    pairs = (np.sign(over) + 1) / 2
    assert auroc(scores, gold) == pytest.approx(pairs.mean(), abs=1e-12)


def test_means_leave_out_what_is_undefined() -> None:
    gold = np.array([[1, 0, 0], [0, 0, 1]], dtype=bool)
    scores = np.array([[0.9, 0.1, 0.8], [0.2, 0.3, 0.7]])
    assert mean_auroc(scores, gold) == 0.5  # 1 and 0; the second column has no positive
    assert mean_auroc(scores, gold & False) is None
    assert macro_f1(scores >= 0.5, gold) == pytest.approx((1 + 2 / 3) / 2)
    assert macro_f1(gold & False, gold & False) == 0


def prediction(**scores: float) -> MultiPrediction:
    return MultiPrediction.of(dict(sorted(scores.items(), key=lambda item: -item[1])))


class Said:
    """A predictor with given answers."""

    def __init__(self, **answers: MultiPrediction) -> None:
        """Take an answer for each text."""
        self.answers = answers

    def predict(self, texts: list[str], batch_size: int = 1) -> list[MultiPrediction]:
        """Look the answers up."""
        assert batch_size
        return [self.answers[text] for text in texts]


def test_a_report_agrees_with_hand_computed_measures() -> None:
    gold = {"p": "x|y", "q": "x", "r": "", "s": "y"}
    said = Said(
        p=prediction(x=0.9, y=0.8, z=0.1),  # both right
        q=prediction(x=0.4, y=0.6, z=0.2),  # x missed, y wrong
        r=prediction(x=0.3, y=0.1, z=0.1),  # rightly none
        s=prediction(x=0.5, y=0.6, z=0.3),  # y right, x wrong
    )
    examples = [Example(text, label, multi=True) for text, label in gold.items()]
    report, _ = evaluate(said, examples)  # type: ignore[arg-type]
    assert (report.correct, report.accuracy) == (2, 0.5)
    x = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2, "auroc": 0.75}
    y = {"precision": 0.6667, "recall": 1.0, "f1": 0.8, "support": 2, "auroc": 0.875}
    assert report.labels == {"x": x, "y": y}
    assert (report.macro_f1, report.micro_f1, report.mean_auroc) == (0.65, 0.6667, 0.8125)
    assert report.no_auroc == ["z"]
