"""The convolutional encoder (TextCNN, Kim 2014, arXiv 1408.5882), masked."""

import torch
from torch import Tensor, nn

from model_src.config import Config
from model_src.interfaces import Embedding, Encoder


class MaskedConvolutions(nn.Module):
    """Convolutions of several widths and the maximum of each filter over real positions.

    A window starts at every real token and sees zeros past the last one, so a sentence shorter
    than the widest kernel works and padding never changes an answer.
    """

    def __init__(self, in_size: int, num_filters: int, kernel_sizes: list[int]) -> None:
        """Make ``num_filters`` filters of each of ``kernel_sizes``."""
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(in_size, num_filters, size) for size in kernel_sizes
        )
        self.widest = max(kernel_sizes)
        self.out_size = num_filters * len(kernel_sizes)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Map hidden ``[batch, seq, in]`` and mask ``[batch, seq]`` to ``[batch, out]``."""
        real = mask[:, None, :].to(hidden.dtype)
        channels = nn.functional.pad(hidden.transpose(1, 2) * real, (0, self.widest - 1))
        pooled = []
        for convolution in self.convolutions:
            # [batch, filters, seq]: after relu nothing is below 0, so 0 never wins over a value
            features = torch.relu(convolution(channels))[:, :, : mask.shape[1]] * real
            pooled.append(features.amax(dim=2))
        return torch.cat(pooled, dim=1)


class CnnEncoder(Encoder):
    """Masked convolutions and one hidden layer."""

    def __init__(self, config: Config, embedding: Embedding) -> None:
        """Take ``num_filters``, ``kernel_sizes`` and ``fc_hidden_size`` from ``config``."""
        super().__init__()
        width = embedding.hidden_size
        self.convolve = MaskedConvolutions(width, config.num_filters, config.kernel_sizes)
        self.dropout = nn.Dropout(config.dropout)
        self.hidden = nn.Linear(self.convolve.out_size, config.fc_hidden_size)
        self.out_size = config.fc_hidden_size

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Map hidden ``[batch, seq, hidden]`` and mask ``[batch, seq]`` to ``[batch, out]``."""
        return torch.relu(self.hidden(self.dropout(self.convolve(hidden, mask))))
