"""The bf16 format: the same bits alone, padded and in any batch."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from model_src.backends import bf16, steady
from model_src.errors import BundleError
from model_src.predictor import Predictor
from model_src.tokenizer import pad_batch
from tests.conftest import EXPORTS, ODD_TEXTS, Models, sentence

NAMES = [name for name, form in EXPORTS.items() if form == "bf16"]


@pytest.mark.parametrize("rows", [16, None])
@pytest.mark.parametrize("name", ["albert-cnn-bf16", "bart-cls-bf16", "glove-densenet-dsa-bf16"])
def test_any_number_of_rows_that_products_may_need_leaves_the_bits(
    tiny: Models, name: str, rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, true = [], steady.fewest

    def fewest(inputs: int, outputs: int, dtype: torch.dtype) -> int | None:
        asked.append((inputs, outputs))
        return true(inputs, outputs, dtype) and rows

    monkeypatch.setattr(bf16, "fewest", fewest)
    assert _changed(Predictor.load(tiny.exports[name])) == []
    assert len(asked) == len({*asked}) > 0


@pytest.mark.parametrize("name", NAMES)
def test_no_batch_changes_a_bit(tiny: Models, name: str) -> None:
    assert _changed(Predictor.load(tiny.exports[name])) == []


def _changed(predictor: Predictor) -> list[int]:
    """Return the lengths of sentences whose logits batches or padding change."""
    generator = random.Random(4)
    texts = ODD_TEXTS + [sentence(generator, "good") for _ in range(60)]
    rows, pad = predictor.bundle.tokenizer.encode_batch(texts), predictor.bundle.tokenizer.pad_id
    found = []
    with torch.inference_mode():
        alone = [predictor.backend(*pad_batch([row], pad))[0] for row in rows]
        for size in [1, 2, 3, 5, 8, 16, 32] * 4:
            some = sorted(generator.sample(range(len(rows)), size), key=lambda i: len(rows[i]))
            filler = [[5] * predictor.bundle.config.n_ctx] * generator.randint(0, 1)
            logits = predictor.backend(*pad_batch([*(rows[i] for i in some), *filler], pad))
            pairs = zip(some, logits, strict=False)
            found += [len(rows[i]) for i, own in pairs if not torch.equal(own, alone[i])]
    return found


@pytest.mark.parametrize("shape", [(1, 6), (4, 6), (9, 6), (1, 3, 6), (2, 5, 6), (0, 6)])
def test_a_product_that_is_filled_up_is_the_same_product(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randint(-8, 9, size, generator=generator).float() for size in (shape, (3, 6), (3,))
    )
    for least in (1, 4, 16):  # sums of whole numbers have no rounding
        y = steady._product(x, weight.bfloat16(), bias.bfloat16(), least)
        assert y.dtype == torch.float32
        assert torch.equal(y, functional.linear(x, weight, bias).bfloat16().float())


def test_the_last_layer_stays_fp32_and_another_is_refused(tiny: Models, tmp_path: Path) -> None:
    bundle = Predictor.load(tiny.exports["bert-cls-bf16"]).bundle
    tensors = load_file(next(bundle.folder.glob("*.safetensors")))
    halves = {name for name, value in tensors.items() if value.dtype == torch.bfloat16}
    assert "output.weight" in {*tensors} - halves
    assert any("words.weight" in name for name in halves)
    tensors["output.weight"] = tensors["output.weight"].bfloat16()
    save_file(tensors, tmp_path / "old")
    with pytest.raises(BundleError, match="export it again"):
        bf16.load(bundle, tmp_path / "old")
