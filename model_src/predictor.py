"""The road of a sentence: text, ids, logits, label; the same offline and served."""

from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError

from model_src.backends import FORMATS, eager, require
from model_src.backends.common import Backend
from model_src.bundle import EXPORT, Bundle
from model_src.decode import Prediction, decode
from model_src.errors import BundleError, nearest
from model_src.files import read_json
from model_src.tokenizer import pad_batch


class Predictor:
    """A loaded model or export directory that answers sentences."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        """Join what ``load`` has read."""
        self.bundle, self.backend = bundle, backend
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
        entry = FORMATS[name]
        try:
            return cls(bundle, entry.load(bundle, folder / entry.file))
        except (RuntimeError, SafetensorError) as reason:
            raise BundleError(f"{folder / entry.file} cannot be loaded: {reason}") from None

    def predict(self, texts: list[str], batch_size: int = 32) -> list[Prediction]:
        """Answer ``texts`` in their order; sentences of like length share a batch."""
        bundle, tokenizer = self.bundle, self.bundle.tokenizer
        multi = bool(bundle.config.multi_label)
        encoded = tokenizer.read_batch(texts)
        rows = [each.ids for each in encoded]
        self.tokens += sum(map(len, rows))
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        answers: list[Prediction] = []
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                batch = [rows[i] for i in order[start : start + batch_size]]
                logits = self.backend(*pad_batch(batch, tokenizer.pad_id))
                answers += decode(logits, bundle.labels, multi_label=multi)
        for i, answer in zip(order, tuple(answers), strict=True):
            cut = encoded[i].truncated
            answers[i] = replace(answer, truncated=True) if cut else answer
        return answers
