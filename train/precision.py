"""Where training computes and in how many bits: device, autocast, gradient scaling."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from model_src.config import Config
from model_src.errors import ConfigError


def device_of(name: str) -> torch.device:
    """Return the device called ``name``; raises ConfigError when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device is {name!r}, but must be auto, cpu, cuda or cuda:0") from None
    if device.type not in {"cpu", "cuda"}:
        raise ConfigError(f"device is {name!r}, but training knows auto, cpu and cuda only")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device is {name!r}, but torch finds {torch.cuda.device_count()} GPUs: "
            "use --device cpu, or install a GPU build of torch"
        )
    return device


class Precision:
    """Autocast around the forward pass, and scaled gradients where fp16 needs them.

    Mixed precision training, arXiv 1710.03740.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        """Use ``amp_dtype`` where ``use_amp`` says so, or where the device is good at it."""
        cuda = device.type == "cuda"
        dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}[config.amp_dtype]
        good = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else has_bf16()
        enabled = good or (cuda and dtype == torch.float16)
        enabled = enabled if config.use_amp is None else config.use_amp
        self.autocast = torch.autocast(device.type, dtype=dtype, enabled=enabled)
        self.name = f"{device.type} {config.amp_dtype if enabled else 'float32'}"
        scaled = enabled and dtype == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)

    def __str__(self) -> str:
        """Name it: results of another one differ."""
        return self.name

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss``."""
        self.scaler.scale(loss).backward()

    def step(self, optimizer: torch.optim.Optimizer, model: nn.Module, max_norm: float) -> None:
        """Clip the gradients, take one step and forget them."""
        self.scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), max_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad()


def has_bf16() -> bool:
    """Tell whether this CPU multiplies bf16 in hardware, where autocast is about 2x faster."""
    path = Path("/proc/cpuinfo")
    flags = path.read_text(encoding="utf-8") if path.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags
