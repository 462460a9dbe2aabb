"""The least time an answer can take on this machine, from what one thread of it measures.

A model must read the weights that a sentence needs and do the operations that it needs; the longer
of the two is its floor. Both are measured by what torch does best here.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model_src.classifier import Classifier
from model_src.lean import lean

# Bytes a value.
PRECISIONS = {"fp32": 4, "bf16": 2, "int8": 1}
_SIZES = (512, 1024)
_SECONDS = 0.3
_CACHE_FREE = 2**28


def peaks() -> dict[str, float]:
    """Return the operations a second, in 1e9, of the best product of each precision."""
    found: dict[str, float] = {}
    for size in _SIZES:
        a, b = torch.rand(size, size), torch.rand(size, size)
        ints = (a * 99).char(), (b * 99).char()
        ways: list[tuple[str, Callable[[], object]]] = [
            ("fp32", partial(torch.mm, a, b)),
            ("bf16", partial(torch.mm, a.bfloat16(), b.bfloat16())),
            ("int8", partial(torch._int_mm, *ints)),
        ]
        if torch.backends.mkldnn.is_available():
            ways.append(("fp32", _packed(a, b)))
        for name, product in ways:
            rate = 2 * size**3 / _least(product) / 1e9
            found[name] = max(found.get(name, 0), round(rate, 1))
    return found


def _packed(a: Tensor, b: Tensor) -> Callable[[], object]:
    """Return the product by oneDNN with weights in the order it likes best."""
    weight = torch.ops.mkldnn._reorder_linear_weight(b, None)
    return lambda: torch.ops.mkldnn._linear_pointwise(a, weight, None, "none", [], "")


def bandwidth(count: int = _CACHE_FREE) -> float:
    """Return GB a second of reading ``count`` bytes again and again, from whatever holds them."""
    values, few = torch.ones(max(count // 4, 1)), torch.ones(16)
    seconds = _least(values.sum) - _least(few.sum)  # without the cost of the call itself
    return round(values.nbytes / max(seconds, 1e-7) / 1e9, 1)


def needs(model: Classifier, tokens: int) -> dict[str, int]:
    """Return what a sentence of ``tokens`` needs: operations, and the values of weights it reads.

    Operations are those of the training graph or of the lean one, whichever has fewer; of tables
    only the rows looked up count.
    """
    ids = torch.ones(1, tokens, dtype=torch.int64)
    counts = []
    for graph in (model, lean(model)):
        counter = FlopCounterMode(display=False)  # knows attention by its products only
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
            graph(ids, torch.ones_like(ids, dtype=torch.bool))
        counts.append(counter.get_total_flops())
    tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    held = sum(value.numel() for value in model.parameters())
    looked_up = sum(tokens * table.shape[1] for table in tables)
    weights = held - sum(table.numel() for table in tables) + looked_up
    return {"operations": min(counts), "weights": weights}


def floors(
    needed: dict[str, int], rates: dict[str, float], peak: dict[str, float]
) -> dict[str, float]:
    """Return the floor in ms by precision; ``rates`` are GB/s, ``peak`` 1e9 operations a second."""
    return {
        name: max(
            needed["weights"] * size / rates[name] / 1e6, needed["operations"] / peak[name] / 1e6
        )
        for name, size in PRECISIONS.items()
    }


def _least(work: Callable[[], object]) -> float:
    """Return the fewest seconds that ``work`` takes: others on the machine only add to it."""
    work()
    least, end = float("inf"), time.perf_counter() + _SECONDS
    while (began := time.perf_counter()) < end:
        work()
        least = min(least, time.perf_counter() - began)
    return least
