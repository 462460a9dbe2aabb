"""What each word adds to the logit of a label: integrated gradients on the word vectors.

Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) go on a straight line from a
baseline, the same sentence with padding in place of every word, to the sentence. What the words add
sums to the difference of the two logits, up to the error of the integral, which is reported. They
need gradients and so a model in fp32: exports hold none.
"""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from model_src.backends import eager
from model_src.bundle import Bundle
from model_src.classifier import Classifier
from model_src.decode import decode
from model_src.errors import BundleError, RequestError, nearest

# Points on the line: doubled until the sum is as near as this, a share of the difference. Points
# that are computed at once.
_STEPS = (16, 32, 64, 128, 256, 512, 1024)
GAP = 0.02
_AT_ONCE = 16


@dataclass(frozen=True)
class Explanation:
    """The words of a sentence in order with what each adds to the logit of ``label``."""

    label: str
    # the probability of the label
    score: float
    words: list[tuple[str, float]]
    # the logit of the sentence and that of the baseline
    logit: float
    baseline: float
    # points on the line
    steps: int
    truncated: bool = False

    @property
    def gap(self) -> float:
        """By how much the words miss the difference of the logits, as a share of it."""
        missed = abs(math.fsum(added for _, added in self.words) - (self.logit - self.baseline))
        return missed / max(abs(self.logit - self.baseline), 1e-6)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of the serving contract in its order."""
        fields = {
            "label": self.label,
            "score": self.score,
            "words": [{"word": word, "attribution": added} for word, added in self.words],
            "logit": self.logit,
            "baseline": self.baseline,
            "gap": round(self.gap, 6),
            "steps": self.steps,
        }
        return fields | ({"truncated": True} if self.truncated else {})


class Explainer:
    """A model directory, loaded to explain sentences one by one."""

    def __init__(self, bundle: Bundle, model: Classifier) -> None:
        """Take a model in evaluation mode; its own parameters get no gradients."""
        self.bundle, self.model = bundle, model.requires_grad_(requires_grad=False)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model directory; raises BundleError for an export, which holds no fp32 model."""
        bundle = Bundle.read(folder)
        if bundle.kind != "model":
            raise BundleError(
                f"{folder} is an export, which cannot be explained: name the model directory that "
                "it was made from"
            )
        return cls(bundle, eager.load(bundle))

    def explain(
        self, text: str, target: str | None = None, *, deadline: float = math.inf
    ) -> Explanation:
        """Explain the logit of the label ``target``, or of the most probable one.

        Args:
            text: one sentence.
            target: one of the labels.
            deadline: of ``time.monotonic``.

        Raises:
            RequestError: for a target that is no label.
            TimeoutError: when the deadline passes.

        """
        tokenizer, labels = self.bundle.tokenizer, self.bundle.labels
        if target is not None and target not in labels:
            raise RequestError(f"the target is none of the model's labels{nearest(target, labels)}")
        (encoded,) = tokenizer.read_batch([text])
        words = tokenizer.read_words(text)
        inner = sorted(i for _, positions in words for i in positions)
        line = _Line(self.model, encoded.ids, inner, tokenizer.pad_id)
        with torch.no_grad():
            logits = line.logits(line.vectors_at(torch.tensor([0.0, 1.0])))
        (found,) = decode(logits[1:], labels, multi_label=bool(self.bundle.config.multi_label))
        label = target or next(iter(found.scores))
        column = labels.index(label)
        for steps in _STEPS:
            added = line.integrate(column, steps, deadline)
            explanation = Explanation(
                label,
                found.scores[label],
                [(word, sum(added[i] for i in positions)) for word, positions in words],
                float(logits[1, column]),
                float(logits[0, column]),
                steps,
                encoded.truncated,
            )
            if explanation.gap <= GAP:
                break
        return explanation


class _Line:
    """The straight line between two sets of word vectors, and the model along it."""

    def __init__(self, model: Classifier, ids: list[int], inner: list[int], pad_id: int) -> None:
        """Look up the vectors of ``ids``, and of padding in their place at ``inner``."""
        self.model, self.ids = model, torch.tensor([ids])
        self.lookups = model.embedding.lookups()
        self.ends: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            for (lookup, shift), real in zip(self.lookups, self._looked_up(), strict=True):
                base = real.clone()
                places = [i + shift for i in inner if i + shift < len(ids)]
                base[:, places] = lookup(torch.full((1, len(places)), pad_id))
                self.ends.append((base, real))

    def _looked_up(self) -> list[Tensor]:
        """Return what the lookups give the model for the sentence itself."""
        found: list[Tensor] = []
        self._run(1, [lambda module, arguments, output: found.append(output)] * len(self.lookups))
        return found

    def _run(self, rows: int, hooks: list[Callable[..., Any]]) -> Tensor:
        """Return the logits ``[rows, labels]`` with a hook on each lookup."""
        handles = [
            lookup.register_forward_hook(hook)
            for (lookup, _), hook in zip(self.lookups, hooks, strict=True)
        ]
        ids = self.ids.expand(rows, -1)
        try:
            logits: Tensor = self.model(ids, torch.ones_like(ids, dtype=torch.bool))
        finally:
            for handle in handles:
                handle.remove()
        return logits

    def logits(self, vectors: list[Tensor]) -> Tensor:
        """Return the logits ``[points, labels]`` of ``vectors_at`` some points."""
        return self._run(len(vectors[0]), [_give(value) for value in vectors])

    def vectors_at(self, points: Tensor) -> list[Tensor]:
        """Return what each lookup shall give at ``points`` from 0, the baseline, to 1."""
        return [base + points[:, None, None] * (real - base) for base, real in self.ends]

    def integrate(self, column: int, steps: int, deadline: float) -> list[float]:
        """Return what each token adds to the logit ``column``."""
        points, weights = _gauss(steps)
        sums = [torch.zeros_like(real) for _, real in self.ends]
        for at, weight in zip(points.split(_AT_ONCE), weights.split(_AT_ONCE), strict=True):
            if time.monotonic() > deadline:
                raise TimeoutError
            vectors = [value.requires_grad_() for value in self.vectors_at(at)]
            logit = self.logits(vectors)[:, column].sum()
            for i, gradient in enumerate(torch.autograd.grad(logit, vectors)):
                sums[i] += (gradient * weight[:, None, None]).sum(dim=0, keepdim=True)
        added = torch.zeros(self.ids.shape[1])
        for (_, shift), (base, real), total in zip(self.lookups, self.ends, sums, strict=True):
            added += ((real - base) * total).sum(dim=2)[0].roll(-shift)
        found: list[float] = added.tolist()
        return found


def _give(value: Tensor) -> Callable[..., Tensor]:
    """Return a hook that replaces what a lookup returns."""

    def hook(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        return value

    return hook


@functools.cache
def _gauss(steps: int) -> tuple[Tensor, Tensor]:
    """Return the points in 0..1 and the weights of Gauss and Legendre's quadrature."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    return (
        torch.tensor((points + 1) / 2, dtype=torch.float32),
        torch.tensor(weights / 2, dtype=torch.float32),
    )
