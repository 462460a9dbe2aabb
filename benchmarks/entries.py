"""The rows of the big table: every embedding with every encoder, and layers removed."""

import itertools

from benchmarks.untrained import SHAPES, Entry

_WIDTH = 300
_WORDS = {
    "glove-cnn": "GloVe-CNN",
    "densenet-cnn": "GloVe DenseNet-CNN",
    "densenet-dsa": "GloVe DenseNet-DSA",
}
_TITLES = {
    "bert": "BERT-base",
    "spanbert": "SpanBERT-base",
    "roberta": "RoBERTa-base",
    "albert": "ALBERT-base-v2",
    "bart": "BART-base",
    "electra": "ELECTRA-base",
    "distilbert": "DistilBERT-base",
    "mpnet": "MPNet-base",
}
_HEADS = {"cnn": "CNN", "cls": "CLS"}
_REMOVED = (4, 6, 8)


def _entries() -> dict[str, Entry]:
    """Return every pair of the registries, then BERT-base with fewer layers."""
    found = {name: Entry(f"{title} {_WIDTH}d", name, _WIDTH) for name, title in _WORDS.items()}
    for head, name in _HEADS.items():
        found[f"minilm-{head}"] = Entry(f"MiniLM {name}", f"bert-{head}")
    for (family, title), (head, name) in itertools.product(_TITLES.items(), _HEADS.items()):
        entry = Entry(f"{title} {name}", f"{family}-{head}", shape=SHAPES[family])
        found[f"{family}-{head}"] = entry
    for count, (head, name) in itertools.product(_REMOVED, _HEADS.items()):
        kept = SHAPES["bert"]["num_hidden_layers"] - count
        found[f"bert-{head}-minus-{count}"] = Entry(
            f"BERT-base {name}, {count} layers removed",
            f"bert-{head}",
            shape=SHAPES["bert"] | {"num_hidden_layers": kept},
        )
    return found


ENTRIES = _entries()
