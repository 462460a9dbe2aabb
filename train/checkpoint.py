"""The unfinished training of a model directory, kept beside it so that the next call goes on."""

import hashlib
import json
import logging
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch

from model_src.tokenizer import FILE
from train.pretrained import Pretrained

logger = logging.getLogger(__name__)


class Checkpoint:
    """One file; it counts only for the run whose ``identity`` it names."""

    def __init__(self, save_path: Path, identity: dict[str, Any]) -> None:
        """Name the file after ``save_path``; ``identity`` is all that a run depends on, by name."""
        self.path = save_path.with_name(f".{save_path.name}.checkpoint.pt")
        self.identity = identity

    def write(self, state: dict[str, Any]) -> None:
        """Replace the file in one step."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_suffix(".partial")
        try:
            with scratch.open("wb") as stream:  # a full disk is an OSError here, not in torch
                torch.save(state | {"identity": self.identity}, stream)
            scratch.replace(self.path)
        finally:
            scratch.unlink(missing_ok=True)

    def read(self) -> dict[str, Any] | None:
        """Return the state of an equal run, or None; tensors come back on the CPU."""
        if not self.path.exists():
            return None
        try:
            saved: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
            saved = {}
        found = saved.get("identity")
        if found == self.identity:
            return saved
        if isinstance(found, dict):
            names = sorted(found.keys() | self.identity.keys())
            other = [name for name in names if found.get(name) != self.identity.get(name)]
            logger.info(
                "The unfinished training found is of a run with another %s: starting anew.",
                ", ".join(other),
            )
        else:
            logger.info("The checkpoint found is damaged: starting anew.")
        return None

    def remove(self) -> None:
        """Forget the run, which is finished."""
        self.path.unlink(missing_ok=True)


def digest(start: Pretrained) -> str:
    """Return a digest of the vectors or the checkpoint that training starts with."""
    found = hashlib.sha256(json.dumps(start.shape).encode())
    for _, value in sorted(start.state.items()):
        found.update(value.contiguous().numpy().tobytes())
    with tempfile.TemporaryDirectory() as folder:
        start.tokenizer.save(Path(folder))
        found.update((Path(folder) / FILE).read_bytes())
    return found.hexdigest()
