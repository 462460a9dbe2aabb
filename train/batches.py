"""Features and batches: sentences of like length together, padded to the longest of a batch."""

import random
from collections.abc import Iterator

from torch import Tensor

from model_src.tokenizer import Tokenizer, pad_batch
from train.data import Example
from train.task import Task

# Batches sorted together: enough to leave 3 % padding, few enough to keep the order random.
_POOL = 50

Batch = tuple[Tensor, Tensor, Tensor]


class Features:
    """Sentences as ids and labels as numbers."""

    def __init__(
        self, examples: list[Example], tokenizer: Tokenizer, labels: list[str], task: Task
    ) -> None:
        """Encode every sentence once."""
        self.rows = tokenizer.encode_batch([example.text for example in examples])
        self.targets = task.targets(examples, labels)
        self.pad_id = tokenizer.pad_id

    def batches(self, batch_size: int, seed: str | None = None) -> list[Batch]:
        """Return ids ``[batch, seq]``, mask ``[batch, seq]`` and the task's targets, a row each.

        With a ``seed`` the order is random and depends on it alone; without, it is by length.
        """
        return list(self._batches(batch_size, seed))

    def _batches(self, batch_size: int, seed: str | None) -> Iterator[Batch]:
        order = list(range(len(self.rows)))
        generator = random.Random(seed)  # noqa: S311 - no secret
        if seed is not None:
            generator.shuffle(order)
        pool = batch_size * _POOL if seed is not None else len(order)
        chunks: list[list[int]] = []
        for start in range(0, len(order), pool):
            near = sorted(order[start : start + pool], key=lambda i: len(self.rows[i]))
            chunks += [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
        if seed is not None:
            generator.shuffle(chunks)
        for chunk in chunks:
            ids, mask = pad_batch([self.rows[i] for i in chunk], self.pad_id)
            yield ids, mask, self.targets[chunk]
