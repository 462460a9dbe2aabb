"""A config is typed, and a mistake in it is named with the nearest right thing."""

import dataclasses
import json
from pathlib import Path

import pytest

from model_src.classifier import Classifier, family_of
from model_src.config import Config
from model_src.errors import ConfigError
from scripts.__main__ import main
from tests.conftest import PAIRS, ROOT, tiny_config
from train.pretrained import PRETRAINED


def load(tmp_path: Path, more: dict[str, object], **overrides: str) -> Config:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"emb_class": "glove", "enc_class": "cnn"} | more), encoding="utf-8")
    return Config.load(path, overrides)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.json")), ids=lambda p: p.stem)
def test_every_shipped_config_loads_and_names_a_known_pair(path: Path) -> None:
    family_of(Config.load(path))


def test_every_pair_has_a_config_and_spanbert_as_well() -> None:
    configs = [Config.load(path) for path in (ROOT / "configs").glob("*.json")]
    assert {(config.emb_class, config.enc_class) for config in configs} == set(PAIRS)
    assert {"config-spanbert-cls.json", "config-spanbert-cnn.json", "config-glove-cnn.json"} <= {
        path.name for path in (ROOT / "configs").glob("*.json")
    }


def test_a_config_survives_being_written_and_read(tmp_path: Path) -> None:
    bert = {"emb_class": "bert", "bert_do_lower_case": True, "lr": 1}
    config = load(tmp_path, bert, bert_remove_layers="8,9")
    (tmp_path / "again.json").write_text(config.to_json(), encoding="utf-8")
    assert Config.load(tmp_path / "again.json") == config
    assert config.bert_remove_layers == [8, 9]


@pytest.mark.parametrize(
    ("more", "overrides", "said"),
    [
        ({"num_filter": 3}, {}, "did you mean 'num_filters'?"),
        ({}, {"bach_size": "3"}, "did you mean 'batch_size'?"),
        ({"epoch": "8"}, {}, "epoch from .* is '8', but must be of type int"),
        ({"epoch": True}, {}, "must be of type int"),
        ({}, {"epoch": "eight"}, "epoch from the command line is 'eight'"),
        ({}, {"lowercase": "maybe"}, "must be of type bool"),
        ({"kernel_sizes": [2, "3"]}, {}, "must be of type"),
        ({"dropout": 1.5}, {}, "dropout is 1.5, but must be in"),
        ({"batch_size": 0}, {}, "must be at least 1"),
        ({"kernel_sizes": []}, {}, "kernel_sizes"),
        ({"lr": 0}, {}, "must be above 0"),
        ({}, {"lr": "inf"}, "must be above 0 and finite"),
        ({}, {"lr": "nan"}, "must be above 0 and finite"),
        ({"max_grad_norm": -1}, {}, "must be above 0"),
        ({"weight_decay": -1}, {}, "must be 0 or more"),
        ({"lr_decay_steps": 0}, {}, "must be at least 1"),
        ({"seed": 2**70}, {}, "seed is"),
        ({"word_dropout": 1.0}, {}, "word_dropout is 1.0, but must be in"),
        ({"r_drop": -1.0}, {}, "r_drop is -1.0, but must be 0 or more"),
        ({"distill_weight": 1.1}, {}, "distill_weight is 1.1, but must be in"),
        ({"gradient_accumulation_steps": 0}, {}, "must be at least 1"),
        ({}, {"amp_dtype": "bf16"}, "amp_dtype is bf16, but must be bfloat16 or float16"),
    ],
)
def test_a_wrong_value_is_named(
    tmp_path: Path, more: dict[str, object], overrides: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, more, **overrides)


def test_a_missing_file_or_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "config-glove.json").write_text('{"emb_class": "glove"}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"did you mean 'config-glove.json'"):
        Config.load(tmp_path / "config-glov.json")
    with pytest.raises(ConfigError, match="lacks the key 'enc_class'"):
        Config.load(tmp_path / "config-glove.json")


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (("glov", "cnn"), "did you mean 'glove'"),
        (("bert", "cnm"), "did you mean 'cnn'"),
        (("glove", "cls"), "glove has no encoder 'cls'"),
    ],
)
def test_an_unknown_pair_is_named(tmp_path: Path, pair: tuple[str, str], said: str) -> None:
    config = load(tmp_path, {"emb_class": pair[0], "enc_class": pair[1]})
    with pytest.raises(ConfigError, match=said):
        family_of(config)


@pytest.mark.parametrize(("name", "encoder"), PAIRS)
def test_a_key_is_refused_for_exactly_the_models_that_do_not_read_it(
    name: str, encoder: str, vectors: Path, checkpoints: dict[str, Path]
) -> None:
    read: set[str] = set()

    class Spy(Config):
        def __getattribute__(self, key: str) -> object:
            read.add(key)
            return super().__getattribute__(key)

    plain = tiny_config(name, encoder, vectors, checkpoints.get(name, vectors))
    spy = Spy(**dataclasses.asdict(plain))
    read.clear()
    start = PRETRAINED[name](spy, ["a text"])
    Classifier(spy, start.shape, 2)
    owned = {f.name for f in dataclasses.fields(Config) if f.metadata.get("readers")}
    accepted = {key for key in owned if not refused(plain, key)}
    keys = {f.name for f in dataclasses.fields(Config)}
    assert read & keys == accepted | {"emb_class", "enc_class", "n_ctx", "dropout"}


def refused(config: Config, key: str) -> bool:
    try:
        config.refuse_idle([key], "a test")
    except ConfigError:
        return True
    return False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["glove-cnn", "--dsa_r", "3"], "dsa_r from the command line is for densenet-dsa only"),
        (["bert-cls", "--num_filters=8"], "no effect on bert, cls: leave it out"),
        (["glove-cnn", "--enc_class", "densenet_dsa", "--dsa_r", "3"], "mean 'densenet-dsa'"),
    ],
)
@pytest.mark.parametrize("verb", [["train"], ["search"], ["search", "--space", "lr=1e-4,1e-3"]])
def test_an_option_without_effect_is_refused(
    capsys: pytest.CaptureFixture[str],
    data_dir: Path,
    verb: list[str],
    options: list[str],
    said: str,
) -> None:
    assert main([*verb, "--config", *options, "--data_dir", str(data_dir)]) == 1
    assert said in capsys.readouterr().err
