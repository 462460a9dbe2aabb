"""The parity matrix: every registry entry, in every format, in process and in a packed archive."""

import itertools
import json
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from model_src.backends import FORMATS, missing
from model_src.bundle import Bundle
from model_src.decode import Prediction
from model_src.predictor import Predictor
from serving.archive import archive
from serving.export import make
from serving.measure import MAX_DP
from tests.conftest import EXPORTS, INSTALLED, ODD_TEXTS, PAIRS, ROOT, Models, sentence

MATRIX = {f"{a}-{b}-{form}": ((a, b), form) for (a, b), form in itertools.product(PAIRS, FORMATS)}
MADE = [
    n for n, (_, form) in MATRIX.items() if form in INSTALLED and (n in EXPORTS or form != "pt2")
]
TEXTS = ODD_TEXTS + [sentence(random.Random(i), "good" if i % 2 else "bad") for i in range(20)]
# The best label of two that are nearer than this may change in a format that rounds.
UNDECIDED = 0.1

Served = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folders(work: Path, tiny: Models) -> dict[str, Path]:
    """An export directory of every entry in every format: those of other tests and the rest."""
    (work / "matrix").mkdir()
    found = {name: tiny.exports[name] for name in MADE if name in EXPORTS}
    for name in MADE:
        if name not in found:
            pair, form = MATRIX[name]
            made = make(Bundle.read(tiny.models[pair]), form, work / "matrix" / name)
            found[name] = made.predictor.bundle.folder if made.predictor else work
    return found


@pytest.fixture(scope="module")
def served(work: Path, folders: dict[str, Path]) -> Served:
    """What the handler in each archive answers, from its own code and files alone."""
    trees, code = {}, set()
    with pytest.MonkeyPatch.context() as patch:
        # it starts a process for each archive; here one serves all
        patch.setattr("serving.archive.check", lambda tree, golden: None)
        for name, folder in folders.items():
            mar = archive(folder, name, work / "packed")
            trees[name] = str(work / "unpacked" / name)
            with zipfile.ZipFile(mar) as opened:
                opened.extractall(trees[name])
                files = {item.filename: item.CRC for item in opened.infolist()}
            code.add(
                frozenset(item for item in files.items() if "/" in item[0] and ".py" in item[0])
            )
    assert len(code) == 1  # so the code of the first is that of all, but for the two handlers
    places = [trees[next(n for n in trees if n.startswith(kind))] for kind in ("glove", "bert")]
    done = subprocess.run(
        [sys.executable, "-P", str(ROOT / "tests" / "packed.py"), *trees.values()],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([*places, os.environ.get("PYTHONPATH", ""), str(ROOT)])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {name: found[tree] for name, tree in trees.items()}


@pytest.fixture(scope="module")
def fp32(tiny: Models) -> dict[tuple[str, str], list[Prediction]]:
    """The answers of the models themselves."""
    return {pair: Predictor.load(folder).predict(TEXTS) for pair, folder in tiny.models.items()}


@pytest.mark.parametrize("name", MATRIX)
def test_an_export_answers_as_its_archive_and_its_model_do(
    folders: dict[str, Path],
    served: Served,
    fp32: dict[tuple[str, str], list[Prediction]],
    name: str,
) -> None:
    pair, form = MATRIX[name]
    if lacking := missing(form, to_export=True):
        pytest.skip(f"the format {form} needs {' and '.join(lacking)}")
    if name not in folders:
        pytest.skip("compiled where ICLASSIFIER_ALL_FORMATS=1 is set only")
    answers = Predictor.load(folders[name]).predict(TEXTS)
    if FORMATS[form].exact:  # a handler may batch otherwise, which fp32 may see in the last digits
        for answer, other in zip(answers, served[name], strict=True):
            assert answer.label == other["label"]
            assert answer.scores == pytest.approx(other["scores"], abs=1e-6, rel=0)
    else:  # rounding would make steps of those digits
        assert [answer.as_dict() for answer in answers] == served[name]
    for answer, expected in zip(answers, fp32[pair], strict=True):
        first, second, *_ = expected.scores.values()
        moved = max(abs(answer.scores[each] - p) for each, p in expected.scores.items())
        if FORMATS[form].exact:
            assert moved <= MAX_DP
        elif first - second > UNDECIDED:
            assert answer.label == expected.label


def test_most_answers_of_the_matrix_are_decided(
    fp32: dict[tuple[str, str], list[Prediction]],
) -> None:
    """Or agreement of labels would say little."""
    every = [answer for answers in fp32.values() for answer in answers]
    assert sum(2 * answer.score - 1 > UNDECIDED for answer in every) > 0.9 * len(every)
