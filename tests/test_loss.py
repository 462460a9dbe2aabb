"""The loss on two passes: what R-Drop adds, and what it leaves as it was."""

import pytest
import torch

from model_src.config import Config
from train.batches import Batch
from train.loss import Loss
from train.task import TASKS

LABELS = 4


def batch(*, multi_label: bool, taught: bool) -> Batch:
    """Return six rows with targets of either task, and a teacher's logits if asked for."""
    targets = torch.arange(6) % LABELS
    if multi_label:
        targets = torch.eye(LABELS)[targets]
    ids = torch.ones(6, 3, dtype=torch.int64)
    soft = torch.randn(6, LABELS, generator=torch.Generator().manual_seed(1)) if taught else None
    return Batch(ids, ids.bool(), targets, soft, 6, 1.0)


def loss(weight: float, *, multi_label: bool, taught: bool, logits: torch.Tensor) -> torch.Tensor:
    """Return the loss of ``logits`` with ``r_drop`` of ``weight``."""
    config = Config(emb_class="glove", enc_class="cnn", r_drop=weight)
    given, task = batch(multi_label=multi_label, taught=taught), TASKS[multi_label]
    return Loss(config, task, given.targets, LABELS)(logits, given)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("taught", [False, True])
def test_two_passes_that_agree_cost_what_one_costs(*, multi_label: bool, taught: bool) -> None:
    one = torch.randn(6, LABELS, generator=torch.Generator().manual_seed(2))
    kind = {"multi_label": multi_label, "taught": taught}
    plain = loss(0.0, logits=one, **kind)
    for weight in (0.5, 5.0):
        assert loss(weight, logits=one.repeat(2, 1), **kind) == pytest.approx(float(plain))


@pytest.mark.parametrize("multi_label", [False, True])
def test_two_passes_that_differ_are_drawn_together(*, multi_label: bool) -> None:
    kind = {"multi_label": multi_label, "taught": False}
    generator = torch.Generator().manual_seed(3)
    both = torch.randn(12, LABELS, generator=generator, requires_grad=True)
    first, second = both.detach().chunk(2)
    mean = (loss(0.0, logits=first, **kind) + loss(0.0, logits=second, **kind)) / 2
    weak, strong = loss(1.0, logits=both, **kind), loss(3.0, logits=both, **kind)
    (gradient,) = torch.autograd.grad(strong - weak, both)
    weak, strong = weak.detach(), strong.detach()
    assert float(weak) > float(mean)
    assert float(strong - mean) == pytest.approx(3 * float(weak - mean), rel=1e-4)
    # either order of the two passes is the same
    swapped = torch.cat([second, first])
    assert loss(1.0, logits=swapped, **kind) == pytest.approx(float(weak))
    # a step along the gradient of what R-Drop adds brings the two answers closer
    near = (both - 0.1 * gradient).detach()
    apart = [float(x[:6].sub(x[6:]).abs().sum()) for x in (both.detach(), near)]
    assert apart[1] < apart[0]


def test_two_passes_are_the_mean_of_two_cross_entropies_and_half_the_divergences() -> None:
    """By hand, for one sentence of two labels (arXiv 2106.14448, equations 2 to 4, halved)."""
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    config = Config(emb_class="glove", enc_class="cnn", r_drop=0.7)
    ids = torch.ones(1, 3, dtype=torch.int64)
    given = Batch(ids, ids.bool(), torch.tensor([0]), None, 1, 1.0)
    found = Loss(config, TASKS[False], given.targets, 2)(logits, given)
    p, q = (row.double().softmax(0) for row in logits)
    gold = -(p[0].log() + q[0].log()) / 2
    apart = ((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / 2
    assert float(found) == pytest.approx(float(gold + 0.7 * apart), rel=1e-5)
