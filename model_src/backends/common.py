"""What several formats share: a model's tensors, and batches in which no mate changes an answer."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from model_src.classifier import Classifier, state_of, ties_of
from model_src.errors import BundleError
from model_src.lean import lean
from model_src.tokenizer import pad_batch

if TYPE_CHECKING:
    from model_src.bundle import Bundle


class Backend(Protocol):
    """What a loaded model can do."""

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map ids ``[batch, seq]`` int64 and mask ``[batch, seq]`` bool to ``[batch, labels]``.

        Both are on the CPU, and padding follows the tokens.
        """


# Maps the ids of sentences, a list each, to logits ``[batch, labels]``.
RunRows = Callable[[list[list[int]]], Tensor]

# What graphs are traced with: ids and mask of two sentences, one of them padded.
EXAMPLE = (
    torch.ones(2, 7, dtype=torch.int64),
    torch.arange(7)[None, :] < torch.tensor([[7], [4]]),
)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return all that the graph computes with: position ids and the like are in no state dict."""
    return dict(model.named_buffers()) | state_of(model)


def skeleton(bundle: "Bundle", names: set[str], path: Path) -> Classifier:
    """Return the lean form on the meta device, to be filled with the tensors ``names`` of ``path``.

    It must not meet padded sentences: run it by length, one by one or ``packed``.

    Raises:
        BundleError: when the file was made by a version with other layers.

    """
    with torch.device("meta"):
        model = Classifier(bundle.config, bundle.shape, len(bundle.labels))
        model = lean(model, padded=False)
    if names != set(tensors_of(model)):
        raise BundleError(f"{path} has other layers than this version makes: export it again")
    return model


def fill(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put ``tensors_of`` another model of the same shape into a skeleton on the meta device."""
    ties = ties_of(model)
    for first, value in tensors.items():
        for name in (first, *ties.get(first, ())):
            owner, _, leaf = name.rpartition(".")
            module = model.get_submodule(owner)
            is_parameter = leaf in module._parameters
            setattr(
                module, leaf, nn.Parameter(value, requires_grad=False) if is_parameter else value
            )


class Unpadded:
    """A backend that would rather have sentences as they are than padded."""

    def __init__(self, run: RunRows) -> None:
        """Take what runs them."""
        self.run = run

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Do what ``Backend`` says."""
        lengths = mask.sum(dim=1).tolist()
        return self.run([row[:n] for row, n in zip(ids.tolist(), lengths, strict=True)])


def one_by_one(run: Backend) -> Unpadded:
    """Run a sentence at a time and without padding.

    Rounding turns the last bits, in which fp32 kernels differ from batch to batch, into whole steps
    of a coarser value. A sentence alone always meets the same kernels, so its answer never depends
    on its mates.
    """

    def alone(rows: list[list[int]]) -> Tensor:
        every = [run(*pad_batch([row], 0)) for row in rows]
        return every[0] if len(every) == 1 else torch.cat(every)

    return Unpadded(alone)


def by_length(run: Backend, mixed: RunRows | None = None) -> Unpadded:
    """Run sentences of one length together and without padding.

    Rounding turns the last bits, in which padding makes fp32 kernels differ, into whole steps of a
    coarser value. Rows of one length have the bits that they have alone where what crosses columns
    is a sum of integers or a kernel that works row by row; on a CPU where that does not hold,
    sentences run one by one. ``mixed`` takes several lengths at once.
    """
    if not _ignores_mates(run):
        return one_by_one(run)
    if mixed is not None and not _equals(mixed, run):
        mixed = None

    def together(rows: list[list[int]]) -> Tensor:
        if len({*map(len, rows)}) == 1:
            return run(*pad_batch(rows, 0))
        if mixed is not None:
            return mixed(rows)
        groups = defaultdict(list)
        for i, row in enumerate(rows):
            groups[len(row)].append(i)
        parts = [run(*pad_batch([rows[i] for i in group], 0)) for group in groups.values()]
        order = torch.tensor([i for group in groups.values() for i in group])
        return torch.cat(parts)[order.argsort()]

    return Unpadded(together)


def _ignores_mates(run: Backend) -> bool:
    """Try whether rows have the same logits to the last bit alone and among others."""
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for length in (1, 7, 32):
            ids = torch.randint(3, (17, length), generator=generator)
            mask = torch.ones_like(ids, dtype=torch.bool)
            alone = torch.cat([run(ids[i : i + 1], mask[i : i + 1]) for i in range(2)])
            for size in (2, 5, 17):
                if not torch.equal(run(ids[:size], mask[:size])[:2], alone):
                    return False
    return True


def _equals(mixed: RunRows, run: Backend) -> bool:
    """Try whether ``mixed`` has the bits that ``run`` has for each sentence alone."""
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for lengths in ([1, 2], [7, 1, 32, 7, 7, 12, 1], [*range(32, 4, -2)]):
            rows = [torch.randint(3, (n,), generator=generator).tolist() for n in lengths]
            alone = [run(*pad_batch([row], 0)) for row in rows]
            if not torch.equal(mixed(rows), torch.cat(alone)):
                return False
    return True


def cpu_has(*flags: str) -> bool:
    """Tell whether the CPU has any of ``flags``, as Linux names them; no where it names none."""
    path = Path("/proc/cpuinfo")
    words = path.read_text(encoding="utf-8").split() if path.exists() else []
    return any(flag in words for flag in flags)
