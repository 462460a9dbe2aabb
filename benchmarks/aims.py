"""The models whose speed is measured, and how fast each shall be."""

from dataclasses import dataclass

from benchmarks.untrained import SHAPES, Entry

# Beside the formats: the model padded to n_ctx, as the original ran it, and the model as trained.
PADDED, EAGER = "padded", "eager"


@dataclass(frozen=True)
class Aim:
    """How many times faster than padded one sentence, and than eager a batch, shall be answered."""

    entry: Entry
    alone: float
    batched: float = 0


def _words(title: str, config: str, width: int) -> Entry:
    return Entry(f"{title}, {width} wide", config, width)


AIMS = {
    "glove-cnn-300": Aim(_words("GloVe-CNN", "glove-cnn", 300), 15),
    "glove-cnn-100": Aim(_words("GloVe-CNN", "glove-cnn", 100), 9),
    "densenet-cnn-300": Aim(_words("DenseNet-CNN", "densenet-cnn", 300), 10),
    "densenet-dsa-300": Aim(_words("DenseNet-DSA", "densenet-dsa", 300), 14),
    "minilm-cls": Aim(Entry("MiniLM CLS", "bert-cls"), 20, batched=4),
    "bert-base-cls": Aim(Entry("BERT-base CLS", "bert-cls", shape=SHAPES["bert"]), 15),
}
