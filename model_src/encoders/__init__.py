"""The table of encoders: hidden states and a mask in, one vector a sentence out."""

from collections.abc import Callable

from model_src.config import Config
from model_src.encoders.cls import ClsEncoder
from model_src.encoders.cnn import CnnEncoder
from model_src.encoders.densenet import DensenetCnnEncoder, DensenetDsaEncoder
from model_src.interfaces import Embedding, Encoder

ENCODERS: dict[str, Callable[[Config, Embedding], Encoder]] = {
    "cnn": CnnEncoder,
    "densenet-cnn": DensenetCnnEncoder,
    "densenet-dsa": DensenetDsaEncoder,
    "cls": ClsEncoder,
}
