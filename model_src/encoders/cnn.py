"""The convolutional encoder (TextCNN, Kim 2014, arXiv 1408.5882), masked."""

import torch
from torch import Tensor, nn

from model_src.config import Config
from model_src.interfaces import Encoder


class CnnEncoder(Encoder):
    """Convolutions of several widths, the maximum over real positions, one hidden layer.

    A window starts at every real token and sees zeros past the last one, so a sentence shorter
    than the widest kernel works and padding never changes an answer.
    """

    def __init__(self, config: Config, hidden_size: int) -> None:
        """Make ``num_filters`` filters of each of ``kernel_sizes``."""
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(hidden_size, config.num_filters, size) for size in config.kernel_sizes
        )
        self.widest = max(config.kernel_sizes)
        self.dropout = nn.Dropout(config.dropout)
        self.hidden = nn.Linear(
            config.num_filters * len(config.kernel_sizes), config.fc_hidden_size
        )
        self.out_size = config.fc_hidden_size

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Map hidden ``[batch, seq, hidden]`` and mask ``[batch, seq]`` to ``[batch, out]``."""
        real = mask[:, None, :].to(hidden.dtype)
        channels = nn.functional.pad(hidden.transpose(1, 2) * real, (0, self.widest - 1))
        pooled = []
        for convolution in self.convolutions:
            # [batch, filters, seq]: after relu nothing is below 0, so 0 never wins over a value
            features = torch.relu(convolution(channels))[:, :, : mask.shape[1]] * real
            pooled.append(features.amax(dim=2))
        return torch.relu(self.hidden(self.dropout(torch.cat(pooled, dim=1))))
