"""A teacher's logits for the training sentences and for altered copies of them."""

import contextlib
import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm import tqdm

from model_src.config import Config
from model_src.errors import ConfigError, nearest
from model_src.files import atomic_write
from model_src.predictor import Predictor
from model_src.tokenizer import pad_batch
from train import parallel
from train.data import Example
from train.fetch import user_cache
from train.precision import has_bf16

# Sentences between two writes to disk: some seconds of work for a base-size teacher.
_CHUNK = 2048
_BATCH = 64


@dataclass(frozen=True)
class Taught:
    """Examples, the copies included, with the teacher's logits ``[examples, labels]`` fp32."""

    examples: list[Example]
    logits: Tensor


def teach(
    teacher: Path, config: Config, examples: list[Example], labels: list[str], device: torch.device
) -> Taught:
    """Ask the model or export directory ``teacher`` about ``examples`` and their copies.

    What it said is kept on disk, so that another seed or an interrupted run goes on there.

    Raises:
        ConfigError: when the teacher has other labels, or gives another number of them.

    """
    predictor = Predictor.load(teacher)
    if predictor.bundle.labels != labels:
        odd = sorted(set(labels) ^ set(predictor.bundle.labels))
        known = predictor.bundle.labels
        raise ConfigError(
            f"the teacher {teacher} knows {known}, the data {labels}: {odd[0]!r} is only in one"
            f"{nearest(odd[0], known)}"
        )
    if bool(predictor.bundle.config.multi_label) != bool(config.multi_label):
        raise ConfigError(f"the teacher {teacher} was trained on another number of labels a text")
    every = examples + altered(examples, config.distill_copies)
    texts = [example.text for example in every]
    chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
    # Of several processes each begins with chunks of its own and finds the others' done.
    order = sorted(range(len(chunks)), key=lambda i: (i - parallel.rank()) % parallel.world())
    parts: dict[int, Tensor] = {}
    name, silent = f"teacher {teacher.name}", parallel.rank() > 0
    with tqdm(total=len(texts), desc=name, unit=" sentences", disable=silent) as bar:
        for i in order:
            named = json.dumps([predictor.bundle.fingerprint, *chunks[i]])
            digest = hashlib.sha256(named.encode()).hexdigest()
            path = user_cache() / "teachers" / f"{digest}.safetensors"
            if path.exists():
                parts[i] = load_file(path)["logits"]
            else:
                parts[i] = _logits(predictor, chunks[i], device)
                # A cache that cannot be written costs time only.
                with contextlib.suppress(OSError):
                    atomic_write(path, save({"logits": parts[i]}))
            bar.update(len(chunks[i]))
    return Taught(every, torch.cat([parts[i] for i in range(len(chunks))]))


def altered(examples: list[Example], copies: int) -> list[Example]:
    """Return ``copies`` of each sentence with words left out or swapped, or a run of its words.

    (arXiv 1903.12136, section 3.2; words are swapped for others of the data, as frequent there,
    instead of others of their part of speech, so that no language needs a tagger.) The same for
    the same examples.
    """
    words = [word for example in examples for word in example.text.split()]
    generator = random.Random(0)  # noqa: S311 - no secret
    made = []
    for _ in range(copies):
        for example in examples:
            kept = []
            for word in example.text.split():
                chance = generator.random()
                if chance < 0.1:
                    continue
                kept.append(generator.choice(words) if chance < 0.2 else word)
            if len(kept) > 4 and generator.random() < 0.25:
                size = generator.randint(2, len(kept) - 1)
                first = generator.randrange(len(kept) - size + 1)
                kept = kept[first : first + size]
            made.append(example._replace(text=" ".join(kept) or example.text))
    return made


@torch.inference_mode()
def _logits(predictor: Predictor, texts: list[str], device: torch.device) -> Tensor:
    """Return logits ``[texts, labels]``; bf16 is near enough for a teacher.

    An export computes as it was exported: on the CPU, in its own precision.
    """
    model = predictor.backend
    plain = predictor.bundle.kind == "model" and isinstance(model, nn.Module)
    where = device if plain else torch.device("cpu")
    if isinstance(model, nn.Module) and plain:
        model.to(where)
    amp = plain and (where.type == "cuda" or has_bf16())
    tokenizer = predictor.bundle.tokenizer
    rows = tokenizer.encode_batch(texts)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    logits = torch.empty(len(texts), len(predictor.bundle.labels))
    with torch.autocast(where.type, dtype=torch.bfloat16, enabled=amp):
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            ids, mask = pad_batch([rows[i] for i in batch], tokenizer.pad_id)
            logits[batch] = predictor.backend(ids.to(where), mask.to(where)).float().cpu()
    return logits
