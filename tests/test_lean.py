"""The lean form of every model gives the answers of the modules that were trained."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.profiler import ProfilerActivity, profile

from model_src.backends import FORMATS, eager, int8, jit, torchscript
from model_src.backends.common import Backend, Unpadded
from model_src.backends.packed import frozen, packed
from model_src.bundle import Bundle
from model_src.classifier import Classifier
from model_src.embeddings.transformer import TransformerEmbedding
from model_src.encoders.cnn import MaskedConvolutions
from model_src.encoders.densenet import DenseNet
from model_src.encoders.dsa import DynamicSelfAttention
from model_src.errors import BundleError
from model_src.lean import LEAN, lean
from model_src.predictor import Predictor
from model_src.tokenizer import pad_batch
from tests.conftest import ALLOWED, PAIRS, Models

EXACT = 1e-5
PRODUCT = "mkldnn::_linear_pointwise"
HEAVY = (TransformerEmbedding, MaskedConvolutions, DenseNet, DynamicSelfAttention)


def trained(tiny: Models, pair: tuple[str, str]) -> tuple[Classifier, Bundle]:
    bundle = Bundle.read(tiny.models[pair])
    return eager.load(bundle), bundle


def batches(*, padded: bool) -> Iterator[list[int]]:
    """Yield the lengths of sentences in a batch, all equal where none may be padded."""
    generator = random.Random(4)
    if padded:
        yield from ([1], [2], [40], [1, 1], [60, 1, 2, 3])
        yield from (generator.choices(range(1, 41), k=9) for _ in range(10))
    else:
        yield from ([n] * count for n, count in itertools.product((1, 2, 3, 17, 40, 60), (1, 9)))


def hold_equal(
    model: Classifier, bundle: Bundle, others: Sequence[Backend], *, padded: bool
) -> None:
    """Assert that ``others`` give the probabilities of ``model`` to ``batches`` of random ids."""
    generator = random.Random(4)
    words = range(5, bundle.shape["vocab_size"])
    for sizes in batches(padded=padded):
        rows = [generator.choices(words, k=size) for size in sizes]
        ids, mask = pad_batch(rows, bundle.tokenizer.pad_id)
        expected = model(ids, mask).double().softmax(dim=1)
        for other in others:
            assert (other(ids, mask).double().softmax(dim=1) - expected).abs().max() <= EXACT


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "unpadded"])
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@torch.inference_mode()
def test_the_lean_form_gives_equal_probabilities(
    tiny: Models,
    pair: tuple[str, str],
    padded: bool,  # noqa: FBT001
) -> None:
    """Alone, in any batch, of one token only, and whichever parts a format keeps as trained.

    Random ids; random lengths where the form is for padded sentences.
    """
    model, bundle = trained(tiny, pair)
    parts = {type(part) for part in model.modules()} & set(LEAN)
    kept = [keep for n in range(len(parts) + 1) for keep in itertools.combinations(parts, n)]
    forms = [lean(model, keep=keep, padded=padded) for keep in kept]
    for keep, form in zip(kept, forms, strict=True):
        assert {type(part) for part in form.modules()} & set(LEAN) == set(keep)
    hold_equal(model, bundle, [*forms, jit.freeze(forms[0])], padded=padded)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@torch.inference_mode()
def test_sentences_packed_without_padding_have_equal_probabilities(
    tiny: Models, pair: tuple[str, str]
) -> None:
    model, bundle = trained(tiny, pair)
    form = packed(lean(model, padded=False))
    assert (form is None) == (pair[0] == "bart")
    if form:
        others: list[Backend] = [form, jit.freeze(form), Unpadded(frozen(form))]
        hold_equal(model, bundle, others, padded=True)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("pair", [("glove", "cnn"), ("glove", "densenet-dsa"), ("bert", "cls")])
@torch.inference_mode()
def test_products_of_few_sizes_only_reach_onednn(tiny: Models, pair: tuple[str, str]) -> None:
    """It keeps kernels for every number of rows it meets: a worker's memory grew for hours.

    Beyond 64 rows only multiples of 16 are computed, and answers stay what they are.
    """
    model, bundle = trained(tiny, pair)
    backend = torchscript.load(bundle, tiny.exports[f"{'-'.join(pair)}-torchscript"] / "model.pt")
    shapes = [(count, length) for count in (1, 7) for length in range(1, 61)]
    inputs = [pad_batch([[5] * length] * count, 0) for count, length in shapes]
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        found = [backend(*each) for each in inputs]
    products = [each.input_shapes[0] for each in seen.events() if each.name == PRODUCT]
    sizes = {math.prod(shape[:-1]) for shape in products}
    assert {60, 63, 80} <= sizes
    assert all(size % 16 == 0 for size in sizes if size > 64)
    for logits, each in zip(found, inputs, strict=True):
        assert (logits - model(*each)).abs().max() <= EXACT


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_no_heavy_part_stays(tiny: Models, pair: tuple[str, str]) -> None:
    model, _ = trained(tiny, pair)
    assert not [part for part in lean(model).modules() if isinstance(part, HEAVY)]


def test_the_trained_modules_stay_as_they_are(tiny: Models) -> None:
    model, _ = trained(tiny, ("bert", "cls"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lean(model)
    after = model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "unpadded"])
@pytest.mark.parametrize(("kind", "stack"), [("bert", "layers"), ("bart", "decoder")])
def test_a_cls_head_needs_one_position_of_the_last_layer(
    tiny: Models,
    kind: str,
    stack: str,
    padded: bool,  # noqa: FBT001
) -> None:
    model, bundle = trained(tiny, (kind, "cls"))
    seen: list[torch.Size] = []
    shorter = lean(model, padded=padded)
    last = shorter.embedding.get_submodule(stack)[-1]  # type: ignore[index]
    last.up.register_forward_hook(lambda _module, inputs, _out: seen.append(inputs[0].shape))
    shorter(*pad_batch([[5] * 9, [6] * (1 if padded else 9)], bundle.tokenizer.pad_id))
    assert [shape[1] for shape in seen] == [1]


@pytest.mark.parametrize("activation", ["gelu_new", "relu", "silu", "gelu_10"])
@pytest.mark.parametrize(
    ("kind", "key"), [("albert", "hidden_act"), ("bart", "activation_function")]
)
@torch.inference_mode()
def test_other_activations_are_kept(tiny: Models, kind: str, key: str, activation: str) -> None:
    bundle = Bundle.read(tiny.models[kind, "cls"])
    shape = bundle.shape | {key: activation}
    torch.manual_seed(0)
    model = Classifier(bundle.config, shape, 2).eval()
    ids, mask = pad_batch([[5, 6, 7, 8], [9]], bundle.tokenizer.pad_id)
    assert (lean(model)(ids, mask) - model(ids, mask)).abs().max() <= EXACT


@torch.inference_mode()
def test_a_bart_whose_halves_have_words_of_their_own_is_kept(tiny: Models, tmp_path: Path) -> None:
    """Published ones share the table; what is shared is written once and put in both places."""
    bundle = Bundle.read(tiny.models["bart", "cls"])
    bundle = replace(bundle, shape=bundle.shape | {"tie_word_embeddings": False})
    torch.manual_seed(0)
    model = Classifier(bundle.config, bundle.shape, len(bundle.labels)).eval()
    own, other = model.embedding.lookups()
    assert not torch.equal(own[0].weight, other[0].weight)  # type: ignore[arg-type]
    ids, mask = pad_batch([[5, 6, 7, 8], [9]], bundle.tokenizer.pad_id)
    assert (lean(model)(ids, mask) - model(ids, mask)).abs().max() <= EXACT
    int8.export(model, tmp_path / "model")
    loaded = int8.load(bundle, tmp_path / "model")
    assert (loaded(ids, mask) - model(ids, mask)).abs().max() <= ALLOWED["int8"]


def test_an_int8_file_with_other_layers_is_refused(tiny: Models, tmp_path: Path) -> None:
    """As versions before the lean form wrote it."""
    folder = tiny.exports["glove-cnn-int8"]
    tensors = load_file(folder / FORMATS["int8"].file)
    tensors["encoder.convolve.convolutions.0.weight"] = torch.zeros(1)
    save_file(tensors, tmp_path / "old")
    with pytest.raises(BundleError, match=r"other layers .* export it again"):
        int8.load(Bundle.read(folder), tmp_path / "old")


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@torch.inference_mode()
def test_int8_mates_of_one_length_change_no_bit(tiny: Models, pair: tuple[str, str]) -> None:
    """Rounding would turn a last bit into whole steps of a quantized value."""
    backend = Predictor.load(tiny.exports[f"{pair[0]}-{pair[1]}-int8"]).backend
    words = Bundle.read(tiny.models[pair]).shape["vocab_size"]
    generator = random.Random(5)
    for size in (1, 2, 3, 8, 17, 33):
        rows = [generator.choices(range(5, words), k=size) for _ in range(9)]
        together = backend(*pad_batch(rows, 0))
        alone = torch.cat([backend(*pad_batch([row], 0)) for row in rows])
        assert torch.equal(together, alone)


def test_torchscript_works_without_onednn(tiny: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.exports["glove-densenet-cnn-torchscript"]
    texts = ["a lovely film", "dull"]
    before = Predictor.load(folder).predict(texts)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    for a, b in zip(before, Predictor.load(folder).predict(texts), strict=True):
        assert max(abs(a.scores[label] - b.scores[label]) for label in a.scores) <= EXACT
