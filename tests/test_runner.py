"""The verb that runs all tests: neither of its two processes fails unseen or outlives it."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts import test
from tests.conftest import ROOT

GOOD, BAD = ["this"], ["json.tool", "nowhere.json"]


@pytest.mark.parametrize(
    ("module", "beside", "failed"),
    [
        (GOOD, GOOD, []),
        (BAD, GOOD, [BAD]),
        (GOOD, BAD, [BAD]),
        (GOOD, None, []),
        (BAD, None, [BAD]),
    ],
)
def test_a_failure_in_either_process_fails_the_whole_and_is_named(
    capfd: pytest.CaptureFixture[str],
    module: list[str],
    beside: list[str] | None,
    failed: list[list[str]],
) -> None:
    code = test._run(module, beside)
    out, err = capfd.readouterr()
    assert bool(code) == bool(failed)
    assert re.findall("^failed: (.*)$", out, re.MULTILINE) == [" ".join(each) for each in failed]
    said = (out + err).count("Namespaces are one honking great idea") + (out + err).count("No such")
    assert said == 1 + bool(beside)


def test_the_files_beside_need_no_part_that_the_others_share() -> None:
    for name in test._BESIDE:
        text = (ROOT / "tests" / f"test_{name}.py").read_text(encoding="utf-8")
        assert not re.search(r"\b(tiny|multi|model_store|live): ", text)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_both_and_tells_what_the_second_said(signum: signal.Signals) -> None:
    mark = f"61.25{signum:d}"
    sleep = ["timeit", "-n", "1", "-s", "import time; print('began', flush=True)"]
    sleep.append(f"time.sleep({mark})")
    code = (
        "from scripts import __main__, test\n"
        "__main__._listen()\n"
        f"test._run({sleep}, beside={sleep})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout
        assert any(line.strip() == b"began" for line in process.stdout)
        deadline = time.monotonic() + 20
        while len(sleepers(mark)) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)  # the second has begun, too
        process.send_signal(signum)
        said = process.stdout.read()
    assert process.returncode
    assert b"began" in said.splitlines()
    assert not sleepers(mark)


def sleepers(mark: str) -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"time.sleep({mark})" in line and "scripts" not in line:
            found.append(line)
    return found
