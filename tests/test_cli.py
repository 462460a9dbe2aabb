"""The front door: every verb explains itself, and a mistake gets one sentence, not a traceback."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.launch import KEEP
from model_src.backends import FORMATS
from scripts import __main__ as front
from scripts import predict
from scripts.__main__ import VERBS
from serving.choose import AIMS
from serving.server import Server
from tests.conftest import ROOT, SERVED, Models, cli


def test_the_front_door_lists_the_verbs_and_takes_no_time() -> None:
    times = []
    for _ in range(4):
        began = time.perf_counter()
        overview = cli()
        times.append(time.perf_counter() - began)
    assert min(times) < 1
    assert overview.returncode == 0
    assert all(f"\n  {name} " in overview.stdout for name in VERBS)
    assert cli("--help").stdout == overview.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb: str) -> None:
    done = cli(verb, "--help")
    assert done.returncode == 0
    assert f"example:\n  ./iclassifier {verb}" in done.stdout


MISTAKES = [
    (["tran"], "unknown verb 'tran'; did you mean 'train'"),
    (["train", "--dta_dir", "x"], "did you mean '--data_dir'"),
    (["train", "--data_dir", "x", "--epohc", "3"], "unknown option --epohc of ./iclassifier train"),
    (["train"], "--data_dir"),
    (["train", "--data_dir", "nowhere"], "there is no data directory nowhere"),
    (["train", "--config", "glove-cn", "--data_dir", "x"], "did you mean 'config-glove-cnn.json'"),
    (["prepare"], "give --dataset NAME, or --data_dir DIR"),
    (["prepare", "--dataset", "movie_review"], "did you mean 'movie_reviews'"),
    (["prepare", "--input", "nowhere.csv", "--data_dir", "x"], "there is no file nowhere.csv"),
    (["evaluate", "--model_path", "nowhere", "--data_dir", "x"], "no model or export directory"),
    (["export", "--model_path", "nowhere"], "no model or export directory nowhere"),
    (["archive", "--model_path", "nowhere"], "no model or export directory nowhere"),
    (["predict", "great"], "give either --model_path DIR or --url URL"),
    (["predict", "--url", "http://x", "a"], "is no http://host:port/predictions/NAME"),
    (["serve", "begin"], "invalid choice: 'begin'"),
    (["serve", "status", "--run_dir", "nowhere"], "no server of nowhere runs"),
    (["quickstart", "now"], "unexpected argument 'now'"),
    (["quickstart", "--sentences", "0"], "0 is no count of 1 or more"),
    (["predict", "--model_path", "x", "--batch_size", "-1", "a"], "-1 is no count of 1 or more"),
    (["serve", "start", "--inference_port", "99999"], "99999 is no port"),
    (["predict", "--model_path", "x", "--input", "/proc/self/mem"], "no model or export directory"),
]


# What is refused without torch, whose import takes a second, and many on a busy machine.
QUICK = [mistake for mistake in MISTAKES if mistake[0][0] in {"train", "export", "evaluate"}]
QUICK += [mistake for mistake in MISTAKES if mistake[0][0] in {"predict", "archive", "serve"}]
QUICK += [(["search", "--config", "glove-cn", "--data_dir", "x"], "did you mean 'config-glove")]
QUICK += [(["search", "--data_dir", "nowhere"], "there is no data directory nowhere")]


@pytest.mark.parametrize(("arguments", "said"), QUICK, ids=lambda value: str(value)[:40])
def test_what_can_be_refused_waits_for_no_heavy_import(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "refused.py").write_text(
        "import sys\n"
        "from scripts import __main__ as front\n"
        "code = front.main(sys.argv[1:])\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules or not code)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "refused", *arguments],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said in done.stderr
    assert done.returncode == 0


def test_an_unknown_format_names_the_nearest(tiny: Models) -> None:
    done = cli("export", "--model_path", tiny.models["glove", "cnn"], "--format", "int9")
    assert "did you mean 'int8'" in done.stderr


def test_the_help_of_export_names_every_format_and_aim() -> None:
    said = "".join(cli("export", "--help").stdout.split())  # lines are broken at hyphens, too
    summaries = [f"{name}: {entry.summary}" for name, entry in FORMATS.items()]
    assert all(summary.replace(" ", "") in said for summary in summaries)
    assert all(name in said for name in AIMS)


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_answered_with_one_sentence(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = cli(*arguments, cwd=tmp_path)
    assert done.returncode in {1, 2}
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not any(tmp_path.iterdir())


def test_predict_reads_arguments_files_and_standard_input(tiny: Models, tmp_path: Path) -> None:
    lines = ["great superb brilliant", "awful, it was boring", "  superb\tand lovely "]
    (tmp_path / "in.txt").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    model = ["predict", "--model_path", tiny.exports[SERVED[0]]]
    by_argument = cli("predict", lines[0], *model[1:], *lines[1:])
    by_file = cli(*model, "--input", tmp_path / "in.txt")
    by_pipe = cli(*model, input="\n".join(lines))
    assert by_argument.stdout == by_file.stdout == by_pipe.stdout
    rows = [line.split("\t") for line in by_argument.stdout.splitlines()]
    assert [row[:2] for row in rows] == [
        ["great superb brilliant", "good"],
        ["awful, it was boring", "bad"],
        ["superb and lovely", "good"],
    ]
    assert "answered 3 sentences" in by_argument.stderr


def test_predict_answers_the_same_from_a_server(tiny: Models, live: Server) -> None:
    texts = ["great film", "awful"]
    offline = cli(
        "predict", "--model_path", tiny.exports[SERVED[0]], "--output_format", "jsonl", *texts
    )
    address = ["--url", live.url(SERVED[0]), "--key_file", live.key_file]
    served = cli("predict", *address, "--output_format", "jsonl", *texts)
    for a, b in zip(offline.stdout.splitlines(), served.stdout.splitlines(), strict=True):
        known, got = json.loads(a), json.loads(b)
        assert known["text"] == got["text"]
        assert abs(known["score"] - got["score"]) <= 1e-5


def test_predict_names_the_line_it_cannot_label(tiny: Models) -> None:
    done = cli("predict", "--model_path", tiny.exports[SERVED[0]], input="great\n\nawful\n")
    assert done.returncode == 1
    assert "standard input, line 2: the text is empty" in done.stderr


def test_predict_ends_quietly_when_its_reader_leaves(tiny: Models) -> None:
    predict = f"{ROOT}/iclassifier predict --model_path {tiny.exports[SERVED[0]]}"
    done = subprocess.run(
        ["bash", "-c", f"yes great | head -2000 | {predict} | head -1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("great\tgood")
    assert "Traceback" not in done.stderr


def test_evaluate_keeps_the_lines_of_the_original(tiny: Models, data_dir: Path) -> None:
    model = tiny.models["glove", "cnn"]
    done = cli("evaluate", "--model_path", model, "--data_dir", data_dir)
    assert done.returncode == 0, done.stderr
    assert "[Accuracy] : " in done.stdout
    assert "[Elapsed Time] : " in done.stdout
    lines = (model / "test.pred.tsv").read_text(encoding="utf-8").splitlines()
    assert (
        len(lines)
        == json.loads((model / "metrics.json").read_text())["test"]["report"]["sentences"]
    )
    assert all(len(line.split("\t")) == 4 for line in lines)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_a_full_memory_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def full(_: object) -> None:
        raise error

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(predict, "run", full)
    assert front.main(["predict", "--model_path", "m", "text"]) == 1
    assert capsys.readouterr().err == "error: the memory is full: lower batch_size or n_ctx\n"


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(predict, "run", broken)
    with pytest.raises(RuntimeError, match="a fault"):
        front.main(["predict", "--model_path", "m", "text"])


def test_an_unreadable_file_is_one_sentence(tiny: Models) -> None:
    done = cli("predict", "--model_path", tiny.exports[SERVED[0]], "--input", "/proc/self/mem")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_byte_order_mark_on_standard_input_is_no_word(tiny: Models) -> None:
    model = ["predict", "--model_path", tiny.exports[SERVED[0]]]
    assert cli(*model, input="\ufeffgreat\n").stdout == cli(*model, "great").stdout


def test_a_folder_with_a_users_files_is_not_replaced(tmp_path: Path) -> None:
    source = tmp_path / "train.csv"
    rows = "".join(f"a sentence {i},{'xy'[i % 2]}\n" for i in range(40))
    source.write_text("text,label\n" + rows, encoding="utf-8")
    inside = cli("prepare", "--input", source, "--data_dir", tmp_path)
    assert "which prepare replaces" in inside.stderr
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine", encoding="utf-8")
    beside = cli("prepare", "--input", source, "--data_dir", tmp_path / "other")
    assert "notes.txt would be lost" in beside.stderr
    made = tmp_path / "made"
    for _ in range(2):  # what prepare wrote it may write again
        assert cli("prepare", "--input", source, "--data_dir", made).returncode == 0
    with (made / "test.tsv").open("a", encoding="utf-8") as stream:
        stream.write("my own line\tx\n")
    edited = cli("prepare", "--input", source, "--data_dir", made)
    assert "test.tsv would be lost" in edited.stderr
    assert "my own line" in (made / "test.tsv").read_text(encoding="utf-8")
    assert source.exists()


def test_skip_bad_drops_and_counts(tmp_path: Path) -> None:
    source = tmp_path / "all.csv"
    rows = "".join(f"a sentence {i},{'xy'[i % 2]}\n" for i in range(40))
    source.write_text("text,label\n" + rows + ",x\n", encoding="utf-8")
    options = ["prepare", "--input", source, "--data_dir", tmp_path / "made"]
    refused = cli(*options)
    assert "line 42: the text is empty" in refused.stderr
    assert not (tmp_path / "made").exists()
    done = cli(*options, "--skip_bad")
    assert "dropped 1: the text is empty" in done.stdout
    assert "train:     32 sentences (x 16, y 16)" in done.stdout


def test_the_front_door_works_through_a_link_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(ROOT / "iclassifier")
    done = subprocess.run(
        [tmp_path / "link"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "usage: ./iclassifier VERB" in done.stdout


@pytest.mark.parametrize("name", [None, *KEEP])
@pytest.mark.parametrize("value", ["65536", ""])
def test_a_verb_keeps_the_memory_it_frees_unless_told_otherwise(
    tmp_path: Path, name: str | None, value: str
) -> None:
    """Else a large batch asks the kernel for its pages anew; nothing leaves glibc as it is."""
    own = {name: value} if name else {}
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.symlink_to("/usr/bin/env")
    (tmp_path / "requirements.txt").touch()
    done = hashlib.sha256().hexdigest() + f"  -\n{python.resolve()}\n"
    (tmp_path / ".venv" / ".installed").write_text(done, encoding="utf-8")
    door = tmp_path / "iclassifier"
    # env takes no module, but says what a verb would find.
    door.write_text((ROOT / door.name).read_text(encoding="utf-8").replace(" -m scripts", ""))
    door.chmod(0o755)
    env = {"PATH": os.environ["PATH"]} | own
    said = subprocess.run([door], env=env, capture_output=True, text=True, check=True).stdout
    found = dict(line.split("=", 1) for line in said.splitlines() if line.startswith("MALLOC"))
    assert found == {key: kept for key, kept in (KEEP | own).items() if kept}


def test_a_terminal_that_closes_ends_a_verb_unless_nohup_was_said(tmp_path: Path) -> None:
    (tmp_path / "hung.py").write_text(
        "import os, signal, sys\n"
        "from scripts import __main__ as front, predict\n"
        "predict.run = lambda args: os.kill(os.getpid(), signal.SIGHUP)\n"
        "sys.exit(front.main(['predict', '--model_path', 'm', 'text']))\n",
        encoding="utf-8",
    )
    for words, code in (["env", "--default-signal=HUP"], 130), (["nohup"], 0):
        done = subprocess.run(
            [*words, sys.executable, "-m", "hung"],
            timeout=30,
            env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr


@pytest.mark.parametrize(
    "moment",
    [
        # Python 3.11 would kill itself with SIGINT after the clean end.
        "exec('stop()')",
        # Python drops what a destructor raises.
        "type('Owner', (), {'__del__': stop})() and None or sleep(20)",
        # Python 3.11 makes a RuntimeError of what comes while a class is made,
        "made()",
        # and we an error of the user's, as if a file were broken.
        "loaded()",
    ],
    ids=["exec", "destructor", "class", "class, taken for a broken file"],
)
def test_an_interruption_ends_as_any_other_wherever_it_comes(tmp_path: Path, moment: str) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import sys\n"
        "from time import sleep\n"
        "def stop(*_): raise KeyboardInterrupt\n"
        "from scripts import __main__ as front, predict\n"
        "from model_src.errors import BundleError\n"
        "def made(): type('Of', (), {'one': type('One', (), {'__set_name__': stop})()})\n"
        "def loaded():\n"
        "    try: made()\n"
        "    except RuntimeError: raise BundleError('cannot be loaded') from None\n"
        "sys.unraisablehook = front._again\n"
        f"predict.run = lambda args: {moment}\n"
        "sys.exit(front.main(['predict', '--model_path', 'm', 'text']))\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"],
        timeout=30,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert "interrupted; nothing half done is left" in done.stderr
