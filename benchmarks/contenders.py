"""What is measured side by side: the original's way, the model as trained, and its exports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from tqdm import tqdm

from model_src.backends import FORMATS
from model_src.bundle import Bundle
from model_src.errors import PackageError, UserError
from model_src.predictor import Predictor
from serving.export import Candidate, make
from serving.measure import measure_sound, problem

# What is against a contender begins with one of these words.
PACKAGE, FAILED, REFUSED = "package", "failed", "refused"


class Padded:
    """A model as the original ran it: every sentence padded to ``n_ctx``."""

    def __init__(self, model: nn.Module, bundle: Bundle) -> None:
        """Take the training modules in evaluation mode."""
        self.model, self.n_ctx, self.pad_id = model, bundle.config.n_ctx, bundle.tokenizer.pad_id

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map ids and mask ``[batch, seq]`` to logits ``[batch, labels]``."""
        more = (0, self.n_ctx - ids.shape[1])
        padded = nn.functional.pad(ids, more, value=self.pad_id), nn.functional.pad(mask, more)
        logits: Tensor = self.model(*padded)
        return logits


def attempt(source: Bundle, name: str, folder: Path) -> Candidate:
    """Export ``source`` in the format ``name``, or say what is against it, first in a word."""
    try:
        return make(source, name, folder)
    except PackageError as reason:
        return Candidate(name, problem=f"{PACKAGE}: {reason}")
    except (UserError, RuntimeError) as reason:
        first = str(reason).partition("\n")[0]
        return Candidate(name, problem=f"{FAILED}: {first}")


def refusal(name: str, measured: dict[str, Any]) -> str:
    """Say why ``export`` would refuse, of formats in fp32 only.

    Others it judges by labels, about which random weights are undecided.
    """
    exact = name in FORMATS and FORMATS[name].exact  # not so the fp32 model itself
    why = problem(measured, exact=True) if exact else ""
    return f"{REFUSED}: {why}" if why else ""


def cells(
    reference: Predictor,
    forms: list[str],
    scratch: Path,
    texts: list[str],
    gold: list[str] | None = None,
    judge: Callable[[str, dict[str, Any]], str] = refusal,
) -> dict[str, dict[str, Any]]:
    """Measure formats of one model in turns, or say in a word what is against them.

    Args:
        reference: the fp32 model.
        forms: of ``FORMATS``.
        scratch: a folder for the exports.
        texts: what is answered.
        gold: the labels of ``texts``; without, accuracy is not measured.
        judge: says what is against a format from its name and what was measured.

    Returns:
        By format: what ``measure`` found, and ``against``.

    """
    bar = tqdm(forms, desc="export", unit=" formats", leave=False)
    tried = {form: attempt(reference.bundle, form, scratch / form) for form in bar}
    found = {form: {"against": made.problem} for form, made in tried.items()}
    exported = {form: made.predictor for form, made in tried.items() if made.predictor}
    measured, failed = measure_sound(reference, exported, texts, gold)
    found |= {form: {"against": f"{FAILED}: {reason}"} for form, reason in failed.items()}
    for form, own in measured.items():
        found[form] = own | tried[form].measured | {"against": judge(form, own)}
    return found
