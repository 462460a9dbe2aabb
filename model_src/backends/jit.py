"""torch.jit lives here: graphs traced, compiled, written and read.

It is deprecated but works in torch 2.13; its warnings are silenced here and only here.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from model_src.backends.common import EXAMPLE

F = TypeVar("F", bound=Callable[..., Any])


def freeze(model: nn.Module, example: tuple[Tensor, ...] = EXAMPLE) -> torch.jit.ScriptModule:
    """Trace ``model``, in evaluation mode, with dynamic sizes of its inputs, and freeze it."""
    with torch.inference_mode(), _quiet():
        traced = torch.jit.trace(model, example, check_trace=False)
        frozen: torch.jit.ScriptModule = torch.jit.freeze(traced)
    return frozen


def script(function: F) -> F:
    """Compile ``function`` with its loops, which ``freeze`` would unroll; torch does so once."""
    with _quiet():
        compiled: F = torch.jit.script(function)
    return compiled


def save(graph: torch.jit.ScriptModule, path: Path) -> None:
    """Write a frozen graph to ``path``."""
    with _quiet():
        torch.jit.save(graph, str(path))


def load(path: Path) -> torch.jit.ScriptModule:
    """Read the frozen graph in ``path`` for the CPU."""
    with _quiet():
        graph: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")
    return graph


def optimize(graph: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """Let torch prepare ``graph`` for this machine as it thinks best."""
    with _quiet():
        optimized: torch.jit.ScriptModule = torch.jit.optimize_for_inference(graph)
    return optimized


def function_of(graph: Any) -> Callable[..., Any]:  # noqa: ANN401 - torch ships no types of graphs
    """Return a function that runs ``graph``, without what nothing needs any more."""
    torch._C._jit_pass_dce(graph)
    function: Callable[..., Any] = torch._C._create_function_from_graph("forward", graph)
    return function


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
