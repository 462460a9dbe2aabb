"""What training minimises: cross-entropy on the labels, mixed with a teacher's answers."""

import torch
from torch import Tensor
from torch.nn import functional

from model_src.config import Config
from train.batches import Batch


class Loss:
    """Cross-entropy with label smoothing, class weights and distillation (arXiv 1503.02531)."""

    def __init__(self, config: Config, targets: Tensor, num_labels: int) -> None:
        """Weigh labels by the inverse of their frequency in ``targets`` where asked."""
        self.config = config
        self.weights = torch.ones(num_labels)
        if config.class_weights:
            counts = torch.bincount(targets, minlength=num_labels)
            self.weights = len(targets) / (num_labels * counts.clamp(min=1))

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean over rows; ``logits`` ``[batch, labels]`` fp32."""
        rows = functional.cross_entropy(
            logits,
            batch.targets,
            weight=self.weights.to(logits.device),
            label_smoothing=self.config.label_smoothing,
            reduction="none",
        )
        if batch.soft is None:
            return rows.mean()
        share, heat = self.config.distill_weight, self.config.distill_temperature
        taught = functional.kl_div(
            (logits / heat).log_softmax(dim=1),
            (batch.soft / heat).log_softmax(dim=1),
            reduction="batchmean",
            log_target=True,
        )
        # heat² keeps the size of the gradients the same for every temperature (section 2 there)
        return share * heat**2 * taught + (1 - share) * rows.mean()
