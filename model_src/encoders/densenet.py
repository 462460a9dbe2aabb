"""The densely connected encoders: a dense block of convolutions, then TextCNN or DSA."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_src.config import Config
from model_src.encoders.cnn import MaskedConvolutions
from model_src.encoders.dsa import DynamicSelfAttention
from model_src.interfaces import Embedding, Encoder


class DenseNet(nn.Module):
    """Columns of convolutions, each fed with all before it in its column (arXiv 1808.07383, 3.2).

    ``densenet_kernels`` has a row a depth and an entry a column; the last features of all columns
    and the input are joined by a convolution of width 1.
    """

    def __init__(
        self, config: Config, in_size: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        """Take the kernels and the filters from ``config``."""
        super().__init__()
        first, more = config.densenet_first_num_filters, config.densenet_num_filters
        self.depth = len(config.densenet_kernels)
        ins = [in_size, *(first + more * i for i in range(self.depth - 1))]
        outs = [first, *[more] * (self.depth - 1)]
        columns = list(zip(*config.densenet_kernels, strict=True))
        # column after column
        self.convolutions = nn.ModuleList(
            nn.Conv1d(a, b, kernel, padding=kernel // 2)
            for column in columns
            for a, b, kernel in zip(ins, outs, column, strict=True)
        )
        joined = in_size + outs[-1] * len(columns)
        self.join = nn.Conv1d(joined, config.densenet_last_num_filters, 1)
        self.activation = activation
        self.out_size = config.densenet_last_num_filters

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Map hidden ``[batch, seq, in]`` and mask ``[batch, seq]`` to ``[batch, seq, out]``."""
        real = mask[:, None, :].to(hidden.dtype)
        channels = hidden.transpose(1, 2) * real
        lasts = [channels]
        for start in range(0, len(self.convolutions), self.depth):
            found: list[Tensor] = []
            for convolution in self.convolutions[start : start + self.depth]:
                # Masked again at every depth: a window at the end must see zeros, as when alone.
                source = torch.cat(found, dim=1) if found else channels
                found.append(self.activation(convolution(source)) * real)
            lasts.append(found[-1])
        joined: Tensor = functional.relu(self.join(torch.cat(lasts, dim=1)))
        return joined.transpose(1, 2)


class DensenetCnnEncoder(Encoder):
    """A dense block, then masked convolutions."""

    def __init__(self, config: Config, embedding: Embedding) -> None:
        """Take all sizes from ``config``."""
        super().__init__()
        self.densenet = DenseNet(config, embedding.hidden_size, functional.relu)
        width = self.densenet.out_size
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.convolve = MaskedConvolutions(width, config.num_filters, config.kernel_sizes)
        self.out_norm = nn.LayerNorm(self.convolve.out_size)
        self.out_size = self.convolve.out_size

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Map hidden ``[batch, seq, hidden]`` and mask ``[batch, seq]`` to ``[batch, out]``."""
        dense = self.dropout(self.norm(self.densenet(hidden, mask)))
        vector: Tensor = self.out_norm(self.convolve(dense, mask))
        return vector


class DensenetDsaEncoder(Encoder):
    """A dense block, then dynamic self-attention and one hidden layer."""

    def __init__(self, config: Config, embedding: Embedding) -> None:
        """Take all sizes from ``config``."""
        super().__init__()
        self.densenet = DenseNet(config, embedding.hidden_size, functional.leaky_relu)
        width = self.densenet.out_size
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.attend = DynamicSelfAttention(
            width, config.dsa_num_attentions, config.dsa_dim, config.dsa_r
        )
        self.attend_norm = nn.LayerNorm(self.attend.out_size)
        self.hidden = nn.Linear(self.attend.out_size, config.fc_hidden_size)
        self.out_norm = nn.LayerNorm(config.fc_hidden_size)
        self.out_size = config.fc_hidden_size

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Map hidden ``[batch, seq, hidden]`` and mask ``[batch, seq]`` to ``[batch, out]``."""
        dense = self.dropout(self.norm(self.densenet(hidden, mask)))
        attended = self.dropout(self.attend_norm(self.attend(dense, mask)))
        vector: Tensor = self.out_norm(self.hidden(attended))
        return vector
