"""Kernels that another process compiles, in processes of their own, as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# What this process compiles itself while another one may do it, and what it was told.
USE = """
import json, sys
from numba.core import event
from cellrt.compile_ahead import compile_ahead
from cellrt.compiled import announced, complaint
from cellrt.runtime.results.table import warm_up
{before}
said = []
with event.install_recorder("numba:compile") as events, announced(said.append):
    with compile_ahead(apart=[warm_up]) as ready:
        ready()
print(json.dumps({{"compiled": len(events.buffer), "said": said, "complaint": complaint()}}))
"""


def use(folder, before="", **options):
    """Run it in a new process with an own cache; return what it says."""
    script = folder / "use.py"
    script.write_text(USE.format(before=before), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache")},
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


TWO_CORES = """
import cellrt.compile_ahead as a
from cellrt.limits import Cores
a.usable_cores = lambda: Cores({cores}, "a test")
"""


def test_another_process_compiles_and_this_one_loads(tmp_path):
    first = use(tmp_path, TWO_CORES.format(cores=2))
    assert first["compiled"] == 0
    assert first["said"] == ["compiling for this processor, once: it takes some seconds"]
    assert list(tmp_path.rglob("cellrt.runtime.results.label_sums.*.kernel"))
    second = use(tmp_path, TWO_CORES.format(cores=2) + "a.subprocess.Popen = None")
    assert second == {"compiled": 0, "said": [], "complaint": ""}


@pytest.mark.parametrize(
    "before",
    [
        TWO_CORES.format(cores=1) + "a.subprocess.Popen = None",
        TWO_CORES.format(cores=2) + "sys.frozen = True; a.subprocess.Popen = None",
        TWO_CORES.format(cores=2) + "known = warm_up; warm_up = lambda: known()",
        TWO_CORES.format(cores=2) + "known = warm_up\ndef warm_up(): known()",
        TWO_CORES.format(cores=2) + "sys.executable = '/no/python'",
        TWO_CORES.format(cores=2) + "a._OTHER_PROCESS = 'raise SystemExit(3)'",
        TWO_CORES.format(cores=2) + "a._OTHER_PROCESS = 'import time; time.sleep(60)'\n"
        "a._MOST_SECONDS = 0.5",
    ],
    ids=["one core", "frozen", "a lambda", "of a script", "no python", "a failure", "it hangs"],
)
def test_where_another_process_is_of_no_help_this_one_compiles(tmp_path, before):
    found = use(tmp_path, before)
    assert found["compiled"] > 0
    assert found["said"]
    assert found["complaint"] == ""


def test_where_kernels_cannot_be_kept_no_process_is_started(tmp_path):
    (tmp_path / "cache").write_text("no folder")
    found = use(tmp_path, TWO_CORES.format(cores=2) + "a.subprocess.Popen = None")
    assert found["compiled"] > 0
    assert "cannot be kept" in found["complaint"]


def test_modules_are_those_of_this_process_and_no_files_of_the_working_folder(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "pickle.py").write_text("open('ran', 'w')")
    assert use(tmp_path, TWO_CORES.format(cores=2), cwd=work)["compiled"] == 0
    assert [path.name for path in work.iterdir()] == ["pickle.py"]


ENDED_EARLY = """
import os, pathlib, time
path = pathlib.Path("number")
a._OTHER_PROCESS = "import os, time; open('number', 'w').write(str(os.getpid())); time.sleep(60)"
try:
    with compile_ahead(apart=[warm_up]):
        while not (path.exists() and path.read_text()):
            time.sleep(0.01)
        raise KeyError("the run")
except KeyError as error:
    assert error.args == ("the run",)
left = len(list(pathlib.Path("cache").rglob("*.kernel")))
assert left <= 1, f"{left} kernels were compiled after the error"
a._OTHER_PROCESS = ""
"""


@pytest.mark.skipif(os.name != "posix", reason="asks for a process by its number")
def test_an_error_in_the_block_ends_the_other_process_and_the_compiling_here(tmp_path):
    use(tmp_path, TWO_CORES.format(cores=2) + ENDED_EARLY, cwd=tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "number").read_text()), 0)
