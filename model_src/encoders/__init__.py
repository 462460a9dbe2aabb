"""The table of encoders: hidden states and a mask in, one vector a sentence out."""

from model_src.encoders.cls import ClsEncoder
from model_src.encoders.cnn import CnnEncoder

ENCODERS = {"cnn": CnnEncoder, "cls": ClsEncoder}
