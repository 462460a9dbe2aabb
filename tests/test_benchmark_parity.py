"""The benchmark of parity has every pair, tells a model that breaks it, and tries none twice."""

from pathlib import Path

import pytest
import torch

from benchmarks import parity, untrained
from benchmarks.untrained import Choice, Entry
from model_src.encoders.cnn import MaskedConvolutions
from tests.conftest import PAIRS, read_json


@pytest.fixture
def entries(vectors: Path) -> dict[str, Entry]:
    """One tiny model of word vectors."""
    options = {"embedding_path": str(vectors), "num_filters": "4", "fc_hidden_size": "4"}
    return {"tiny": Entry("Tiny", "glove-cnn", 8, options=options)}


def test_every_pair_of_the_registries_is_tried() -> None:
    configs = [untrained.config_of(entry) for entry in parity.MODELS.values()]
    assert {(each.emb_class, each.enc_class) for each in configs} == set(PAIRS)
    assert all(each.n_ctx == 100 for each in configs)


def test_a_model_is_tried_once_and_one_that_looks_at_padding_fails(
    tmp_path: Path, entries: dict[str, Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = parity.run(tmp_path, Choice(60), entries).read_text(encoding="utf-8")
    assert "| Tiny | 60 | " in table
    assert "| pass |" in table
    found = read_json(tmp_path / "parity.json")
    with monkeypatch.context() as patch:
        patch.setattr(untrained, "make", None)
        parity.run(tmp_path, Choice(60), entries)
    assert read_json(tmp_path / "parity.json") == found

    forward = MaskedConvolutions.forward

    def blind(self: MaskedConvolutions, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Take padding for words, as the original did."""
        return forward(self, hidden, torch.ones_like(mask))

    monkeypatch.setattr(MaskedConvolutions, "forward", blind)
    table = parity.run(tmp_path, Choice(61), entries).read_text(encoding="utf-8")
    assert "**FAIL**" in table
