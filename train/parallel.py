"""Data-parallel training: which of torchrun's processes this is, and how they agree."""

import contextlib
import gc
import os
from collections.abc import Iterator

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from model_src.errors import ConfigError


@contextlib.contextmanager
def processes(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that torchrun started, for as long as the block runs.

    Yields the device of this process; without torchrun nothing is joined.

    Raises:
        ConfigError: for more processes than GPUs.

    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if (device.index or 0) >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise ConfigError(f"torchrun started more processes than the {count} GPUs here")
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        # A model that waits for the garbage collector keeps the group, whose threads would still
        # run when the process ends: with one core for all it then dies of them now and then.
        gc.collect()
        distributed.destroy_process_group()


def rank() -> int:
    """Return the number of this process; 0 writes and speaks."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def agree(value: float) -> float:
    """Return what process 0 has for ``value``."""
    if world() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def mean(value: float) -> float:
    """Return the mean of ``value`` over all processes."""
    if world() == 1:
        return value
    values: list[float] = [0.0] * world()
    distributed.all_gather_object(values, value)
    return sum(values) / world()


def wrap(model: nn.Module) -> nn.Module:
    """Return what to call in a forward pass so that all processes share their gradients."""
    # Buffers are constants here, so they need no broadcast at each step.
    return DistributedDataParallel(model, forward_sync_buffers=False) if world() > 1 else model


def silent(model: nn.Module, *, until: bool) -> contextlib.AbstractContextManager[None]:
    """Keep the gradients of a block to this process, ``until`` they are to be exchanged."""
    if isinstance(model, DistributedDataParallel) and not until:
        return model.no_sync()
    return contextlib.nullcontext()


def wait() -> None:
    """Return when every process has come here."""
    if world() > 1:
        distributed.barrier()
