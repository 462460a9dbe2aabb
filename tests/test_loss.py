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
def test_two_passes_that_differ_cost_more_in_proportion_to_the_weight(*, multi_label: bool) -> None:
    kind = {"multi_label": multi_label, "taught": False}
    generator = torch.Generator().manual_seed(3)
    both = torch.randn(12, LABELS, generator=generator)
    first, second = both.chunk(2)
    mean = (loss(0.0, logits=first, **kind) + loss(0.0, logits=second, **kind)) / 2
    weak, strong = loss(1.0, logits=both, **kind), loss(3.0, logits=both, **kind)
    assert float(weak) > float(mean)
    assert float(strong - mean) == pytest.approx(3 * float(weak - mean), rel=1e-4)
    # either order of the two passes is the same
    swapped = torch.cat([second, first])
    assert loss(1.0, logits=swapped, **kind) == pytest.approx(float(weak))


@pytest.mark.parametrize("multi_label", [False, True])
def test_two_passes_are_the_mean_of_two_losses_and_half_the_divergences(
    *, multi_label: bool
) -> None:
    """By hand, with its gradient, for one sentence (arXiv 2106.14448, equations 2 to 4, halved)."""
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
    config = Config(emb_class="glove", enc_class="cnn", r_drop=0.7)
    ids = torch.ones(1, 3, dtype=torch.int64)
    targets = torch.tensor([[1.0, 0.0]]) if multi_label else torch.tensor([0])
    given = Batch(ids, ids.bool(), targets, None, 1, 1.0)
    found = Loss(config, TASKS[multi_label], targets, 2)(logits, given)
    if multi_label:  # a distribution for each label; the mean is over labels
        yes = logits.double().sigmoid()
        p, q = torch.stack([yes, 1 - yes], dim=2)
        gold = -(p[0, 0] * p[1, 1] * q[0, 0] * q[1, 1]).log() / 2
        labels = 2
    else:
        p, q = logits.double().softmax(dim=1)
        gold = -(p[0] * q[0]).log() / 2
        labels = 1
    apart = ((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / 2
    hand = (gold + 0.7 * apart) / labels
    assert float(found.detach()) == pytest.approx(float(hand.detach()), rel=1e-5)
    ours, theirs = (torch.autograd.grad(value, logits)[0] for value in (found, hand))
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7)  # float32 beside float64
