"""What training minimises: the loss on the labels, mixed with the distance to a teacher."""

from torch import Tensor

from model_src.config import Config
from train.batches import Batch
from train.task import Task


class Loss:
    """The task's loss with label smoothing, class weights and distillation (arXiv 1503.02531)."""

    def __init__(self, config: Config, task: Task, targets: Tensor, num_labels: int) -> None:
        """Weigh labels by their frequency in ``targets`` where ``class_weights`` asks for it."""
        self.config, self.task = config, task
        self.weights = task.weights(targets, num_labels) if config.class_weights else None

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean over rows; ``logits`` ``[batch, labels]`` fp32."""
        config = self.config
        share = config.distill_weight if batch.soft is not None else 0.0
        loss = logits.new_zeros(())
        if share < 1:
            weights = None if self.weights is None else self.weights.to(logits.device)
            gold = self.task.loss(logits, batch.targets, config.label_smoothing, weights)
            loss = loss + (1 - share) * gold
        if batch.soft is not None:
            heat = config.distill_temperature
            # heat² keeps the size of the gradients the same for every temperature (section 2)
            loss = loss + share * heat**2 * self.task.distance(logits / heat, batch.soft / heat)
        return loss
