"""What every embedding and every encoder offers the classifier."""

from torch import nn


class Embedding(nn.Module):
    """Called with ids and mask ``[batch, seq]``; returns ``[batch, seq, hidden_size]``."""

    hidden_size: int


class Encoder(nn.Module):
    """Called with ``[batch, seq, hidden]`` and a mask; returns ``[batch, out_size]``.

    Positions that the mask hides must not change the result.
    """

    out_size: int
