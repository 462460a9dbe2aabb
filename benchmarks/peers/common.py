"""What the apps of all peers share: the same model in one thread, and the size of a batch."""

import os
from pathlib import Path

import torch

from model_src.predictor import Predictor

# Ours is set by its archive; a peer waits no longer for a batch to fill.
BATCH, WAIT_MS = 32, 1
# The names of the environment in which an app finds the export directory and its processes.
EXPORT, WORKERS = "ICLASSIFIER_PEER_EXPORT", "ICLASSIFIER_PEER_WORKERS"


def load() -> Predictor:
    """Return the model that every peer serves."""
    torch.set_num_threads(1)
    return Predictor.load(Path(os.environ[EXPORT]))
