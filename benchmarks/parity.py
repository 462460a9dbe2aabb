"""How far padding and other sentences move an answer: random sentences through every model."""

import random
import string
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import machine, results, untrained
from benchmarks.entries import ENTRIES
from benchmarks.untrained import Choice, Entry
from model_src.backends import eager
from model_src.decode import decode
from model_src.predictor import Predictor
from model_src.tokenizer import pad_batch
from serving.sentences import bundled

# Of a whole checkpoint ten thousand would take as long as all the rest.
CASES, OF_CHECKPOINT = 10_000, 1_000
EXACT = 1e-5
_LABELS = [f"label {i}" for i in range(7)]
_LARGEST_BATCH = 64
# What a published base model has of it would take hours; this is BERT-tiny (arXiv 1908.08962).
_TINY = {
    **dict.fromkeys(("hidden_size", "d_model", "dim"), 128),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim"), 512),
    **dict.fromkeys(("num_hidden_layers", "encoder_layers", "decoder_layers", "n_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "encoder_attention_heads", "n_heads"), 2),
    "decoder_attention_heads": 2,
    "embedding_size": 64,
}
# At the usual 0.02 the first token's state hardly depends on the others: it would be rounding alone
# that tells sentences apart. 1 / sqrt(width) passes on as much as comes in. BART has its own name.
_MIXING = dict.fromkeys(("initializer_range", "init_std"), 0.09)
_INTRODUCTION = """\
How far the probability of any label moves, in fp32, when a sentence is not alone: padded to n_ctx
(100 tokens), and in a batch of up to {most} random sentences. They have from one token to more than
n_ctx, a tenth of the words unknown, one sentence in twenty of nothing else. At most {exact:.0e}
passes. Models of word vectors and MiniLM have their real size, the other transformers that of
BERT-tiny; weights but MiniLM's are random.
"""


def _small(entry: Entry) -> Entry:
    if not entry.shape:
        return entry
    own = {key: _TINY[key] for key in entry.shape if key in _TINY} | _MIXING
    return replace(entry, title=entry.title.replace("-base", ""), shape=entry.shape | own)


# Layers are removed before a model is made: what is left is another size of the same model.
MODELS = {name: _small(entry) for name, entry in ENTRIES.items() if "-minus-" not in name}


def run(folder: Path, choice: Choice, entries: dict[str, Entry] = MODELS) -> Path:
    """Try the models that ``folder``/parity.json lacks; return the Markdown table beside it.

    Args:
        folder: of the results.
        choice: models, and how many sentences, which 0 leaves to each.
        entries: the whole table.

    """
    path = folder / "parity.json"
    known = results.load(path)
    rows = known.setdefault("rows", {})
    for name in choice.entries or entries:
        entry = entries[name]
        whole = not (entry.shape or entry.width)
        cases = choice.sentences or (OF_CHECKPOINT if whole else CASES)
        wanted = {
            "model": untrained.digest(entry),
            "cases": cases,
            "versions": machine.versions(("torch", "transformers")),
            "code": results.code(["model_src", "benchmarks/parity.py", "benchmarks/untrained.py"]),
            "machine": machine.describe(),
        }
        if rows.get(name, {}).get("made_with") == wanted:
            continue
        with tempfile.TemporaryDirectory(prefix="iclassifier-") as scratch:
            bundle = untrained.make(entry, Path(scratch) / "model", _LABELS, bundled())
            predictor = Predictor(bundle, eager.load(bundle))
            rows[name] = {"made_with": wanted} | _moved(predictor, cases, entry.title)
        results.save(path, known)
    return results.report(path, _lines(known, entries))


@torch.inference_mode()
def _moved(predictor: Predictor, cases: int, title: str) -> dict[str, float]:
    """Return the largest change of a probability by padding and by other sentences."""
    bundle, generator = predictor.bundle, random.Random(1)  # noqa: S311 - no secret
    tokenizer, longest = bundle.tokenizer, bundle.config.n_ctx
    words = " ".join(bundled()).split()
    padded = mixed = 0.0
    with tqdm(total=cases, desc=title, unit=" sentences") as bar:
        while bar.n < cases:
            size = min(generator.randint(2, _LARGEST_BATCH), cases - bar.n)
            rows = tokenizer.encode_batch([_sentence(generator, words) for _ in range(size)])
            together = _scores(predictor, pad_batch(rows, tokenizer.pad_id))
            for row, among in zip(rows, together, strict=True):
                (alone,) = _scores(predictor, pad_batch([row], tokenizer.pad_id))
                (long,) = _scores(predictor, _padded(row, longest, tokenizer.pad_id))
                padded, mixed = max(padded, _gap(alone, long)), max(mixed, _gap(alone, among))
            bar.update(size)
    return {"padded": padded, "mixed": mixed}


def _scores(predictor: Predictor, batch: tuple[Tensor, Tensor]) -> list[dict[str, float]]:
    return [each.scores for each in decode(predictor.backend(*batch), predictor.bundle.labels)]


def _padded(row: list[int], length: int, pad_id: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask ``[1, length]`` of one sentence."""
    ids, mask = pad_batch([row, [pad_id] * length], pad_id)
    return ids[:1], mask[:1]


def _gap(a: dict[str, float], b: dict[str, float]) -> float:
    return max(abs(a[label] - b[label]) for label in a)


def _sentence(generator: random.Random, words: list[str]) -> str:
    """Return one word to more than a model reads, mostly as short as people write."""
    count = generator.choice((1, generator.randint(2, 30), generator.randint(2, 130)))
    unknown = 1.0 if generator.random() < 0.05 else 0.1
    return " ".join(
        "".join(generator.choices(string.ascii_lowercase, k=12))
        if generator.random() < unknown
        else generator.choice(words)
        for _ in range(count)
    )


def _lines(known: dict[str, Any], entries: dict[str, Entry]) -> Iterator[str]:
    """Yield the lines of the report."""
    found = {name: known["rows"][name] for name in entries if name in known["rows"]}
    yield _INTRODUCTION.format(most=_LARGEST_BATCH, exact=EXACT)
    lines = []
    for name, row in found.items():
        passed = max(row["padded"], row["mixed"]) <= EXACT
        values = [f"{row[key]:.1e}" for key in ("padded", "mixed")]
        cases = f"{row['made_with']['cases']:,}"
        lines.append([entries[name].title, cases, *values, "pass" if passed else "**FAIL**"])
    heads = ("model", "sentences", "padded to 100", "among others", "")
    yield from results.table(heads, lines)
    yield ""
    places = dict.fromkeys(row["made_with"]["machine"] for row in found.values())
    yield f"`{results.FRONT} benchmark parity` on {'; '.join(places)}."
