"""The course of training for TensorBoard."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from train.loop import Entry


class Board:
    """Called with each line of the history; every number of it becomes a curve."""

    def __init__(self, log_dir: Path) -> None:
        """Write events into ``log_dir``."""
        self.log_dir = str(log_dir)

    def __call__(self, entry: Entry) -> None:
        """Add one epoch; the file is whole after each, so an interruption loses none."""
        # Opened anew: nothing is left open when training ends or is interrupted.
        with SummaryWriter(self.log_dir) as writer:
            for name in sorted(entry.keys() - {"epoch"}):
                writer.add_scalar(name, entry[name], entry["epoch"])
