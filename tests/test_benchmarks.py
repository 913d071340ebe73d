"""Promises about benchmarks/ and the pages it makes; nothing is measured here."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(
    path.name
    for path in (ROOT / "benchmarks").glob("*.py")
    if '__name__ == "__main__"' in path.read_text()
)
PAGES = sorted((ROOT / "docs").glob("*.json"))
MAKEFILE = (ROOT / "Makefile").read_text()
COMMANDS = {"python " + line for line in re.findall(r"\$\(BIN\)/python (benchmarks/.*)", MAKEFILE)}
# Scripts that make no page, and why.
BY_HAND = {
    "large_look.py": "needs a folder with 5 GB of room; prints one figure",
    "many_stacks.py": "prints one ratio, for whoever changes what a Segmenter keeps",
    "threshold.py": "chooses the parameters of a card, before a model is bundled",
    "two_commits.py": "compares two checkouts that somebody names",
}
HELP = """
import contextlib, io, json, runpy, sys
sys.path.insert(0, sys.argv[1])
found = {}
for script in sys.argv[2:]:
    sys.argv = [script, "--help"]
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_path(f"{sys.path[0]}/{script}", run_name="__main__")
        found[script] = "did not end"
    except SystemExit as end:
        found[script] = out.getvalue() if not end.code else f"ended with {end.code}"
    except BaseException as error:
        found[script] = repr(error)
print(json.dumps(found))
"""


def scripts_of_makefile():
    return {shlex.split(command)[1].removeprefix("benchmarks/") for command in COMMANDS}


def test_every_script_explains_itself_without_measuring():
    # One process for all of them: importing torch takes longer than everything else.
    folder = str(ROOT / "benchmarks")
    done = subprocess.run(
        [sys.executable, "-c", HELP, folder, *SCRIPTS],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(SCRIPTS)
    wrong = {name: text for name, text in found.items() if not text.startswith("usage: " + name)}
    assert not wrong


def test_every_script_is_run_by_make_or_says_why_not():
    assert scripts_of_makefile().isdisjoint(BY_HAND)
    assert scripts_of_makefile() | set(BY_HAND) == set(SCRIPTS)


def test_no_module_of_the_benchmarks_is_left_unused():
    texts = {path.stem: path.read_text() for path in (ROOT / "benchmarks").glob("*.py")}
    unused = [
        name
        for name in texts
        if f"{name}.py" not in SCRIPTS
        and not any(re.search(rf"^\s*from {name} import", text, re.M) for text in texts.values())
    ]
    assert not unused


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages_name_the_command_and_the_commit_that_made_them(path):
    made_by = json.loads(path.read_text())["made_by"]
    page = path.with_suffix(".md").read_text()
    assert f"`{made_by['command']}`" in page
    assert f"commit {made_by['commit']}" in page
    assert made_by["machine"] in page
    # Some scripts measure a part anew and keep the rest, or a model that is not bundled yet, or
    # fewer stacks, which the page says; `make` runs what is for a GPU on any CPU.
    command = re.split(" --(only|model|stacks) ", made_by["command"])[0]
    script = command.partition(" --repeats")[0]
    assert {command, script, f"{script} --cpu"} & COMMANDS


def test_pages_that_say_a_benchmark_made_them_have_their_figures():
    made = {
        path.stem
        for path in (ROOT / "docs").glob("*.md")
        if re.match(r"# .*\n\n`python benchmarks/", path.read_text())
    }
    assert made == {path.stem for path in PAGES}


def test_pages_of_benchmarks_are_in_the_documentation():
    listed = (ROOT / "mkdocs.yml").read_text()
    assert not [path.stem for path in PAGES if f": {path.stem}.md" not in listed]


def test_written_pages_name_what_made_them(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
from pathlib import Path
import report
report.DOCS = Path({str(tmp_path)!r})
sys.argv = ["benchmarks/some.py", "--only", "two words"]
report.write("page", "Title", "Text.\\n", [1.5])
assert report.figures("page") == [1.5]
assert report.figures("none") is None
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
    made_by = json.loads((tmp_path / "page.json").read_text())["made_by"]
    assert made_by["command"] == "python benchmarks/some.py --only 'two words'"
    assert re.fullmatch(r"unknown|[0-9a-f]{7,}(-dirty)?", made_by["commit"])
    page = (tmp_path / "page.md").read_text()
    assert page.startswith(f"# Title\n\n`{made_by['command']}`, commit {made_by['commit']}, ")
    assert page.endswith("\n\nText.\n")


def test_a_changed_tree_is_called_dirty_but_for_pages(tmp_path):
    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    def commit():
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
            f"import report; from pathlib import Path; report.ROOT = Path({str(tmp_path)!r})\n"
            "print(report.commit())"
        )
        words = [sys.executable, "-c", code]
        return subprocess.run(words, check=True, cwd=ROOT, capture_output=True, text=True).stdout

    for name in ("cellrt", "docs", "recipes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("a")
    git("init")
    git("add", ".")
    git("commit", "-m", "a")
    (tmp_path / "docs" / "page.md").write_text("b")
    (tmp_path / "recipes" / "nuclei.scores.json").write_text("b")
    assert re.fullmatch(r"[0-9a-f]{7,}\n", commit())
    (tmp_path / "cellrt" / "new.py").write_text("b")
    assert commit().endswith("-dirty\n")


def test_another_cellrt_than_the_one_beside_is_not_measured(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    for name in ("bundled.py", "report.py", "halo.py"):
        (tmp_path / "benchmarks" / name).write_text((ROOT / "benchmarks" / name).read_text())
    done = subprocess.run(
        [sys.executable, tmp_path / "benchmarks" / "halo.py", "--help"],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "python finds cellrt in" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("others", "words"), [(0.02, "; 2% of"), (0.4, "no measure"), (None, "")])
def test_pages_say_when_the_machine_did_other_work(monkeypatch, others, words):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from report import head

    made_by = {"command": "a", "commit": "b", "date": "c", "machine": "d"}
    line = head({**made_by, "share_of_others": others})
    assert words in line
    assert ("no measure" in line) == (others == 0.4)


def test_a_wide_field_around_a_crowded_stack_stays_small(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import accidents

    monkeypatch.setattr(accidents, "LARGEST_FIELD", 1e6)
    labels = np.ones((40, 40, 40), np.int32)
    labels[:, ::10] = 0
    (wide,) = (accident for accident in accidents.ACCIDENTS if accident.background)
    image, truth = wide.play(labels.astype(np.uint16), labels, np.random.default_rng(0))
    assert image.shape == truth.shape
    assert image.size < 1.3e6
    # No cell is cut: how many of a tissue's are found changes with that, and not with the field.
    assert np.count_nonzero(truth) == np.count_nonzero(labels)
    labels[:, :, 4:] = 0
    labels[:, 4:] = 0
    _, truth = wide.play(labels.astype(np.uint16), labels, np.random.default_rng(0))
    assert 0.001 < np.mean(truth > 0) < 0.003


def test_every_accident_can_happen_to_tissue_without_background(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import accidents

    rng = np.random.default_rng(0)
    image = rng.poisson(100, (12, 24, 24)).astype(np.uint16)
    labels = np.repeat(np.arange(1, 13, dtype=np.int32), 24 * 24).reshape(image.shape)
    sparse = np.where(labels > 6, labels, 0)
    for truth in (labels, sparse):
        for accident in accidents.ACCIDENTS:
            if not accident.background:
                changed, left = accident.play(image, truth, rng)
                assert changed.shape == left.shape
                assert np.isfinite(changed.astype(float)).all()


def test_what_became_of_true_cells_is_counted(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from boxplots import judge

    truth = np.zeros((1, 6, 40), np.int32)
    for number in range(5):
        truth[0, 1:5, 8 * number : 8 * number + 7] = number + 1
    found = np.zeros_like(truth)
    found[truth == 1] = 1
    found[0, 1:5, 8:11], found[0, 1:5, 11:15] = 2, 3  # halves of the second
    found[0, 1:5, 16:31] = 4  # the third and the fourth
    found[0, 0, 0] = 5  # a speck in no cell
    found[0, 1, 0] = 6  # and one in the first, too small for a piece
    judged = judge(found, truth, False)
    assert (judged.missed, judged.split, judged.merged, judged.found) == (1, 1, 2, 6)
    assert judged.dice[0] == pytest.approx(54 / 55)
    assert judged.dice[4] == 0
    assert judge(found, truth, True).found == 5
    exact = judge(truth, truth, False)
    assert (exact.missed, exact.split, exact.merged, exact.found) == (0, 0, 0, 5)
    assert (exact.dice == 1).all()


def test_methods_without_their_model_can_be_told_where_it_is(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import argparse

    from boxplots import METHODS, _model, chosen_stacks

    assert _model("nuclei-stardist=a=b.onnx") == ("nuclei-stardist", "a=b.onnx")
    for wrong in ("nuclei-stardist", "nonsense=a.onnx"):
        with pytest.raises(argparse.ArgumentTypeError, match="no NAME=FILE with one of membranes"):
            _model(wrong)
    assert {stack.model for _, stack in chosen_stacks(None, 2)} <= set(METHODS)
    assert [setting for setting, _ in chosen_stacks(["paper"], 2)] == 2 * [
        "simulated nuclei, the paper's setting"
    ]


def test_cells_in_two_parts_above_each_other_are_split_along_z(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from along_z import split_along_z, with_gaps

    truth = np.zeros((20, 30, 30), int)
    truth[4:16, 5:15, 5:15], truth[4:16, 5:15, 15:25] = 1, 2
    above, beside, gap = truth.copy(), truth.copy(), truth.copy()
    above[10:][truth[10:] == 1] = 3
    beside[:, :, :10][truth[:, :, :10] == 1] = 3
    gap[9][truth[9] == 1] = 0
    assert [split_along_z(labels, truth, 1.0) for labels in (truth, above, beside)] == [0, 1, 0]
    assert [with_gaps(labels) for labels in (truth, above, gap)] == [0, 0, 1]
