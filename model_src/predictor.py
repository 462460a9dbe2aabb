"""The road of a sentence: text, ids, logits, label; the same offline and served."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from torch import Tensor

from model_src.backends import FORMATS, eager, require
from model_src.backends.common import Backend, Unpadded
from model_src.bundle import EXPORT, Bundle
from model_src.classifier import family_of
from model_src.decode import Prediction, decode
from model_src.errors import BundleError, nearest
from model_src.files import read_json
from model_src.tokenizer import pad_batch

# A batch is closed where one more sentence would take it past this many ids, padding included (up
# to there what a layer makes stays in the cache: 1,024 ids take five times as long as 512), or cost
# more padding than this, which takes about as long as another call of the model. Some formats
# compute no padding (``Format.pads``).
_IDS, _PADDING = 512, 32


class Predictor:
    """A loaded model or export directory that answers sentences."""

    def __init__(self, bundle: Bundle, backend: Backend, *, pads: bool = True) -> None:
        """Join what ``load`` has read; ``pads`` says whether the backend computes padding."""
        self.bundle, self.backend, self.pads = bundle, backend, pads
        self.tokens = 0  # read so far

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model directory (fp32 modules) or an export directory (its own format).

        Raises:
            BundleError: when the directory does not hold what its manifest says.
            PackageError: when its format needs a package that is not installed.

        """
        bundle = Bundle.read(folder)
        if bundle.kind == "model":
            return cls(bundle, eager.load(bundle))
        name = read_json(folder / EXPORT, BundleError).get("format", "")
        if name not in FORMATS:
            raise BundleError(f"{folder} has the unknown format {name!r}{nearest(name, FORMATS)}")
        require(name)
        try:
            return cls.of(bundle, name)
        except (ImportError, RuntimeError, SafetensorError) as reason:
            file = folder / FORMATS[name].file
            raise BundleError(f"{file} cannot be loaded: {reason}") from None

    @classmethod
    def of(cls, bundle: Bundle, name: str) -> Self:
        """Load the format ``name`` of an export directory, whatever its manifest says."""
        entry = FORMATS[name]
        backend = entry.load(bundle, bundle.folder / entry.file)
        return cls(bundle, backend, pads=entry.pads(family_of(bundle.config)))

    def predict(self, texts: list[str], batch_size: int = 32) -> list[Prediction]:
        """Answer ``texts`` in their order; at most ``batch_size`` of like length share a batch."""
        bundle, tokenizer = self.bundle, self.bundle.tokenizer
        multi = bool(bundle.config.multi_label)
        encoded = tokenizer.read_batch(texts)
        rows = [each.ids for each in encoded]
        self.tokens += sum(map(len, rows))
        order: list[int] = []
        answers: list[Prediction] = []
        with torch.inference_mode():
            alone = len(rows) == 1  # a fortieth of such an answer's time is what is left out here
            lengths = [len(row) for row in rows]
            for batch in [[0]] if alone else batches(lengths, batch_size, pads=self.pads):
                logits = self.logits([rows[i] for i in batch])
                answers += decode(logits, bundle.labels, multi_label=multi)
                order += batch
        for i, answer in zip(order, tuple(answers), strict=True):
            cut = encoded[i].truncated
            answers[i] = answer._replace(truncated=True) if cut else answer
        return answers

    def logits(self, rows: list[list[int]]) -> Tensor:
        """Map the ids of sentences to ``[batch, labels]``, all at once."""
        if isinstance(self.backend, Unpadded):
            return self.backend.run(rows)
        return self.backend(*pad_batch(rows, self.bundle.tokenizer.pad_id))


def batches(lengths: list[int], most: int, *, pads: bool = True) -> Iterator[list[int]]:
    """Yield the positions of at most ``most`` sentences at a time, from the shortest on."""
    batch: list[int] = []
    ids = 0  # of the batch, with its padding where that is computed
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        length, count = lengths[i], len(batch)
        padding = count * length - ids if pads else 0
        # A head of convolutions pads the states all the same.
        large = ids + padding + length > _IDS or (count + 1) * length > 4 * _IDS
        if batch and (count == most or large or padding > _PADDING):
            yield batch
            batch, ids, padding = [], 0, 0
        batch.append(i)
        ids += padding + length
    if batch:
        yield batch
