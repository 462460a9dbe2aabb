"""What the apps of all peers share: the same model in one thread, and the settings of batches."""

import os
from pathlib import Path

import torch

from model_src.predictor import Predictor

# Ours is set by its archive.
BATCH = 32
# The names of the environment in which an app finds the export directory, its processes and how
# long it waits for a batch to fill; and the folder by which its processes are found.
EXPORT, WORKERS = "ICLASSIFIER_PEER_EXPORT", "ICLASSIFIER_PEER_WORKERS"
WAIT_MS, PLACE = "ICLASSIFIER_PEER_WAIT_MS", "ICLASSIFIER_PEER_PLACE"


def load() -> Predictor:
    """Return the model that every peer serves."""
    torch.set_num_threads(1)
    return Predictor.load(Path(os.environ[EXPORT]))


def wait_seconds() -> float:
    """Return how long a batch waits to be filled; 0: for nobody."""
    return int(os.environ[WAIT_MS]) / 1000
