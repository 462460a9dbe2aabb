"""Features and batches: sentences of like length together, padded to the longest of a batch."""

import random
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from model_src.tokenizer import SubwordTokenizer, Tokenizer, pad_batch
from train.data import Example
from train.task import Task

# Batches sorted together: enough to leave 3 % padding, few enough to keep the order random.
_POOL = 50


class Batch(NamedTuple):
    """What one forward pass needs: the part of a batch of ``rows`` that this process has.

    ``share`` is the weight of its mean loss in the mean over all processes.
    """

    ids: Tensor
    mask: Tensor
    targets: Tensor
    soft: Tensor | None
    rows: int
    share: float

    def to(self, device: torch.device) -> "Batch":
        """Return the same on ``device``."""
        parts = [x.to(device) if isinstance(x, Tensor) else x for x in self]
        return Batch(*parts)  # type: ignore[arg-type]


class Features:
    """Sentences as ids with their targets, and a teacher's logits where there is one."""

    def __init__(
        self,
        examples: list[Example],
        tokenizer: Tokenizer,
        labels: list[str],
        task: Task,
        soft: Tensor | None = None,
    ) -> None:
        """Encode every sentence once; ``soft`` has a row a sentence."""
        self.rows = tokenizer.encode_batch([example.text for example in examples])
        self.targets = task.targets(examples, labels)
        self.soft = soft
        self.pad_id = tokenizer.pad_id

    def batches(
        self, batch_size: int, seed: str | None = None, rank: int = 0, world: int = 1
    ) -> list[Batch]:
        """Return ids ``[batch, seq]``, mask ``[batch, seq]`` and the task's targets, a row each.

        With a ``seed`` the order is random and depends on it alone; without, it is by length.
        Of several processes each gets every ``world``-th row of each batch of ``batch_size``.
        """
        return list(self._batches(batch_size, seed, rank, world))

    def _batches(self, size: int, seed: str | None, rank: int, world: int) -> Iterator[Batch]:
        order = list(range(len(self.rows)))
        generator = random.Random(seed)  # noqa: S311 - no secret
        if seed is not None:
            generator.shuffle(order)
        pool = size * _POOL if seed is not None else len(order)
        chunks: list[list[int]] = []
        for start in range(0, len(order), pool):
            near = sorted(order[start : start + pool], key=lambda i: len(self.rows[i]))
            chunks += [near[i : i + size] for i in range(0, len(near), size)]
        if seed is not None:
            generator.shuffle(chunks)
        for chunk in chunks:
            # A batch of fewer rows than processes is done by all of them, so that none idles.
            shared = len(chunk) >= world
            own = chunk[rank::world] if shared else chunk
            share = len(own) * world / len(chunk) if shared else 1.0
            ids, mask = pad_batch([self.rows[i] for i in own], self.pad_id)
            soft = None if self.soft is None else self.soft[own]
            yield Batch(ids, mask, self.targets[own], soft, len(chunk), share)


class WordDropout:
    """Replace random words by the mask token, or the unknown word, while training.

    (arXiv 1506.05869 has it for decoders, 1903.12136 for classifiers.)
    """

    def __init__(self, tokenizer: Tokenizer, share: float) -> None:
        """Find the token that stands for a word left out, and those never replaced."""
        self.share, self.blank = share, 1
        self.special = torch.tensor([tokenizer.pad_id])
        if isinstance(tokenizer, SubwordTokenizer):
            tokens = ("[MASK]", "<mask>", "[UNK]", "<unk>")
            found = (tokenizer.fast.token_to_id(token) for token in tokens)
            self.blank = next((i for i in found if i is not None), tokenizer.pad_id)
            self.special = torch.tensor(sorted(tokenizer.fast.get_added_tokens_decoder()))

    def __call__(self, ids: Tensor) -> Tensor:
        """Return ids ``[batch, seq]`` with a random ``share`` of them replaced."""
        if not self.share:
            return ids
        hit = (torch.rand(ids.shape) < self.share).to(ids.device)
        return ids.masked_fill(hit & ~torch.isin(ids, self.special.to(ids.device)), self.blank)
