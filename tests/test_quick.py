"""Quicker parts of training compute what the parts did that they stand for."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from model_src.classifier import Classifier, state_of
from model_src.tokenizer import pad_batch
from tests.conftest import PAIRS, tiny_config
from train import pretrained
from train.quick import FirstState, QuickDropout, UsedRows, quicken

CPU = torch.device("cpu")
# the second batch has no padding, for which transformers makes no mask
BATCHES = [[[3, 9, 8, 7, 6, 5, 4], [3, 4], [3, 5, 4]], [[3, 9, 4], [3, 5, 4]]]
_USED = {2, 3, 4, 5, 6, 7, 8, 9}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_dropout_zeroes_its_share_and_keeps_the_mean(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropout = QuickDropout(share)
    given = torch.ones(3, 1001, 333, dtype=dtype, requires_grad=True)
    found = dropout(given)
    assert found.dtype == dtype
    zero = float((found == 0).double().mean())
    assert zero == pytest.approx(share, abs=0.003)
    assert float(found.detach().double().mean()) == pytest.approx(1, rel=0.02)
    found.sum().backward()
    assert given.grad is not None
    assert torch.equal(given.grad, found.detach())  # what is dropped learns nothing
    assert not torch.equal(dropout(given), found)
    torch.manual_seed(0)
    assert torch.equal(dropout(given), found)
    assert dropout.eval()(given) is given


@pytest.mark.parametrize("rows", BATCHES, ids=["padded", "whole"])
@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair[0] != "glove"], ids="-".join)
def test_a_quickened_model_has_the_same_answers_gradients_and_names(
    vectors: Path, checkpoints: dict[str, Path], pair: tuple[str, str], rows: list[list[int]]
) -> None:
    config = tiny_config(*pair, vectors, checkpoints[pair[0]])
    start = pretrained.PRETRAINED[pair[0]](config, [])
    torch.manual_seed(0)
    plain = Classifier(config, start.shape, 3).eval()
    plain.embedding.load_state_dict(start.state)
    quick = deepcopy(plain)
    quicken(quick, CPU, _USED)
    kinds = [type(module) for module in quick.embedding.modules()]
    assert nn.Dropout not in kinds
    alike = pair[0] in {"bert", "roberta", "electra"} and pair[1] == "cls"
    assert (FirstState in kinds) == alike
    whole = state_of(plain)
    assert state_of(quick).keys() == whole.keys()
    assert all(torch.equal(value, whole[name]) for name, value in state_of(quick).items())
    ids, mask = pad_batch(rows, start.tokenizer.pad_id)
    found = []
    for model in (plain, quick):
        logits = model(ids, mask)
        logits.square().sum().backward()
        found.append((logits, {n: p.grad for n, p in model.named_parameters()}))
    if alike:  # other types drop by other means than modules
        for model in (plain, quick):
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
        assert torch.allclose(quick.train()(ids, mask), plain.train()(ids, mask), atol=1e-5)
    (expected, before), (logits, after) = found
    assert torch.allclose(logits, expected, atol=1e-5)
    tables = {f"{n}.weight": m for n, m in quick.named_modules() if isinstance(m, UsedRows)}
    assert bool(tables) == (pair[0] != "bart")  # whose two stacks share a table that scales
    for name, gradient in before.items():
        other = after[name]
        if name in tables and gradient is not None:
            learned = tables[name].rows
            assert not gradient.index_fill(0, learned, 0).any()
            gradient = gradient[learned]  # noqa: PLW2901
        assert (gradient is None) == (other is None), name
        if gradient is not None and other is not None:
            assert torch.allclose(gradient, other, rtol=1e-3, atol=1e-4), name


def test_rows_that_are_not_used_stay_and_whole_tables_are_saved_and_loaded() -> None:
    torch.manual_seed(0)
    whole = nn.Embedding(12, 4, padding_idx=0)
    table = UsedRows(whole, [2, 5, 7])
    assert table.weight.shape == (3, 4)
    ids = torch.tensor([[0, 1, 2, 5], [7, 2, 11, 0]])
    assert torch.equal(table(ids), whole(ids))
    with torch.no_grad():
        table.weight.add_(1)
    saved = table.state_dict()
    assert list(saved) == ["weight"]
    moved = (saved["weight"] - whole.weight).detach().round()
    assert moved.sum(1).tolist() == [4 * (row in {2, 5, 7}) for row in range(12)]
    other = UsedRows(nn.Embedding(12, 4), [1, 5])
    other.load_state_dict(saved)
    assert torch.equal(other(ids), table(ids))
    assert torch.equal(other.state_dict()["weight"], saved["weight"])
    saved["weight"].zero_()  # what was saved is a copy
    assert torch.equal(other(ids), table(ids))
    with pytest.raises(RuntimeError, match=r"Missing key.*weight"):
        other.load_state_dict({})
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        other.load_state_dict({"weight": torch.zeros(11, 4)})
    assert torch.equal(other(ids), table(ids))


def test_a_table_that_learns_nothing_is_left_as_it_is(vectors: Path, checkpoint: Path) -> None:
    config = tiny_config("bert", "cls", vectors, checkpoint, bert_use_feature_based=True)
    model = Classifier(config, pretrained.transformer(config, []).shape, 2)
    quicken(model, CPU, _USED)
    assert UsedRows not in [type(module) for module in model.modules()]


def test_a_layer_that_looks_back_only_is_left_as_it_is(vectors: Path, checkpoint: Path) -> None:
    config = tiny_config("bert", "cls", vectors, checkpoint)
    shape = pretrained.transformer(config, []).shape
    model = Classifier(config, shape | {"is_decoder": True}, 2)
    quicken(model, CPU, _USED)
    assert FirstState not in [type(module) for module in model.modules()]


def test_elsewhere_dropout_stays_torchs_own(vectors: Path, checkpoint: Path) -> None:
    """On a GPU it is quick."""
    config = tiny_config("bert", "cls", vectors, checkpoint)
    model = Classifier(config, pretrained.transformer(config, []).shape, 2)
    quicken(model, torch.device("cuda"), _USED)
    kinds = [type(module) for module in model.modules()]
    assert QuickDropout not in kinds
    assert FirstState in kinds
