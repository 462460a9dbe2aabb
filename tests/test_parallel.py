"""Processes that train together end together, and in peace."""

import weakref

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from train import parallel


def test_no_model_keeps_the_group_when_it_is_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads end with its last owner; one that outlives them ends the process by SIGABRT."""
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in (alone | {"TORCHELASTIC_RUN_ID": "test"}).items():
        monkeypatch.setenv(name, value)
    destroy, owners = distributed.destroy_process_group, []

    def destroyed() -> None:
        owners.append(kept())
        destroy()

    monkeypatch.setattr(distributed, "destroy_process_group", destroyed)
    with parallel.processes(torch.device("cpu")):
        model = DistributedDataParallel(nn.Linear(2, 2))
        kept = weakref.ref(model)
        vars(model)["itself"] = model  # as loop and schedule of a training run hold each other
        del model
    assert owners == [None]
