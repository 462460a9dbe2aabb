"""Dynamic self-attention (arXiv 1808.07383): attention whose query is found by iteration."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class DynamicSelfAttention(nn.Module):
    """Several attentions at once; each refines its query ``iterations`` times, like routing."""

    def __init__(self, in_size: int, attentions: int, size: int, iterations: int) -> None:
        """Make ``attentions`` projections to ``size`` values each."""
        super().__init__()
        self.project = nn.Linear(in_size, attentions * size)
        self.attentions, self.size, self.iterations = attentions, size, iterations
        self.out_size = attentions * size

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Map hidden ``[batch, seq, in]`` and mask ``[batch, seq]`` to ``[batch, out]``."""
        projected = functional.leaky_relu(self.project(hidden))
        # every token as each attention sees it: [batch, seq, attentions, size]
        x: Tensor = projected.reshape(*projected.shape[:2], self.attentions, self.size)
        hide = ~mask[:, :, None]
        weights = torch.zeros_like(x[..., 0])  # [batch, seq, attentions], before softmax
        z = x[:, 0]
        for _ in range(self.iterations):
            attention = weights.masked_fill(hide, float("-inf")).softmax(dim=1)
            z = torch.tanh((attention[..., None] * x).sum(dim=1))  # [batch, attentions, size]
            weights = weights + (x * z[:, None]).sum(dim=3)
        return z.flatten(1)
