"""A trained classifier as exports compute it: equal answers from less work."""

from collections.abc import Callable, Collection
from copy import deepcopy
from functools import partial

from torch import nn

from model_src.classifier import Classifier
from model_src.embeddings.transformer import BartEmbedding, TransformerEmbedding
from model_src.encoders.cls import ClsEncoder
from model_src.encoders.cnn import MaskedConvolutions
from model_src.encoders.densenet import DenseNet
from model_src.encoders.dsa import DynamicSelfAttention
from model_src.lean.bart import LeanBart, lean_bart
from model_src.lean.convolutions import LeanConvolutions, LeanDenseNet, LeanDsa
from model_src.lean.transformer import lean_transformer

# The parts that have a lean form beside transformers.
LEAN: dict[type[nn.Module], Callable[..., nn.Module]] = {
    MaskedConvolutions: LeanConvolutions,
    DenseNet: LeanDenseNet,
    DynamicSelfAttention: LeanDsa,
}
# What runtimes may compute better as it was trained: see ``keep`` of ``lean``.
CONVOLUTIONS = (DenseNet, MaskedConvolutions)


def lean(
    classifier: Classifier, *, keep: Collection[type[nn.Module]] = (), padded: bool = True
) -> Classifier:
    """Return a copy in evaluation mode that maps ids and mask to the same logits.

    It works on the meta device too, to build the skeleton that weights are loaded into. Parts of
    the types ``keep`` stay as they were trained. What never meets a padded sentence need not be
    ``padded``: it takes the mask for all true.
    """
    copy = deepcopy(classifier).eval()
    first = isinstance(copy.encoder, ClsEncoder)
    makers = LEAN | {
        TransformerEmbedding: partial(lean_transformer, first=first),
        BartEmbedding: partial(lean_bart, last=first),
    }
    for name, module in list(copy.named_modules()):
        if type(module) in makers and type(module) not in keep:
            copy.set_submodule(name, makers[type(module)](module, padded=padded))
    if isinstance(copy.encoder, ClsEncoder) and isinstance(copy.embedding, LeanBart):
        copy.encoder.last = False  # of each sentence there is no other state
    return copy
