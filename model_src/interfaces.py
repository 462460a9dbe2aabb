"""What every embedding and every encoder offers the classifier."""

from torch import nn


class Embedding(nn.Module):
    """Called with ids and mask ``[batch, seq]``; returns ``[batch, seq, hidden_size]``.

    Positions that the mask hides must not change the others. A lean form returns ``[batch, 1,
    hidden_size]`` where the encoder needs no other position.
    """

    hidden_size: int
    # Whether the last real position stands for the sentence (a decoder's), or the first.
    summary_last = False

    def lookups(self) -> list[tuple[nn.Module, int]]:
        """Return what turns ids into vectors, each with the positions by which it sees them later.

        Each maps int64 ``[batch, seq]`` to ``[batch, seq, size]``, once a call.
        """
        raise NotImplementedError


class Encoder(nn.Module):
    """Called with ``[batch, seq, hidden]`` and a mask; returns ``[batch, out_size]``.

    Positions that the mask hides must not change the result.
    """

    out_size: int
