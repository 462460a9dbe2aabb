"""What training minimises: loss on labels, distance to a teacher, agreement of two passes."""

from torch import Tensor

from model_src.config import Config
from train.batches import Batch
from train.task import Task


class Loss:
    """The task's loss with label smoothing, class weights, distillation (arXiv 1503.02531), R-Drop.

    R-Drop (arXiv 2106.14448) passes each batch twice, each time with another dropout, and draws
    the two answers together: ``passes`` says how often to repeat the rows of a batch.
    """

    def __init__(self, config: Config, task: Task, targets: Tensor, num_labels: int) -> None:
        """Weigh labels by their frequency in ``targets`` where ``class_weights`` asks for it."""
        self.config, self.task = config, task
        self.passes = 2 if config.r_drop else 1
        self.weights = task.weights(targets, num_labels) if config.class_weights else None

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean over rows; ``logits`` ``[passes * batch, labels]`` fp32.

        With two passes it is the mean of both, so that ``r_drop`` is half of the paper's alpha.
        """
        if self.passes == 1:
            return self._one(logits, batch)
        first, second = logits.chunk(2)
        loss = (self._one(first, batch) + self._one(second, batch)) / 2
        apart = self.task.distance(first, second) + self.task.distance(second, first)
        return loss + self.config.r_drop * apart / 2

    def _one(self, logits: Tensor, batch: Batch) -> Tensor:
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
