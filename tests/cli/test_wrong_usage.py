"""One line for whatever is typed wrong, and what to type instead."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cellrt.cli.main import app
from cellrt.cli.wrong_usage import _ELSEWHERE
from cellrt.errors import InputError
from cellrt.runtime.image.formats import parse_address

COMMANDS = sorted(command.callback.__name__ for command in app.registered_commands)
ELSEWHERE = [
    "--do_3D",
    "--pretrained_model",
    "--flow_threshold",
    "--cellprob_threshold",
    "--diam_mean",
    "--chan",
    "--chan2",
    "--use_gpu",
    "--gpu_device",
    "--image_path",
    "--dir",
    "--save_tif",
    "--savedir",
    "--stitch_threshold",
    "--niter",
    "--batch_size",
    "--no_norm",
    "--norm_percentile",
    "--exclude_on_edges",
    "--no_npy",
    "--prob_thresh",
    "--nms_thresh",
    "--n_tiles",
    "--outdir",
]


def refused(done):
    """The one line of a wrong usage."""
    assert done.code == 2, done.err
    assert done.out == ""
    line = done.err.rstrip("\n")
    assert line.startswith("cellrt: ")
    assert "\n" not in line
    return line


def test_the_command_alone_shows_its_help(cellrt):
    done = cellrt()
    assert done.code == 0
    assert done.err == ""
    assert "Commands:" in done.out
    assert len(done.out.splitlines()) > 10


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_has_help(cellrt, command, option):
    done = cellrt(command, option)
    assert done.code == 0
    assert done.out.startswith(f"Usage: cellrt {command}")


@pytest.mark.parametrize(
    ("command", "missing"),
    [("segment", "STACK"), ("evaluate", "LABELS"), ("train", "RECIPE"), ("export", "SOURCE")],
)
def test_what_is_missing_is_named_in_one_line(cellrt, command, missing):
    line = refused(cellrt(command))
    assert missing in line
    assert f"`cellrt {command} --help`" in line
    assert len(line) < 200


@pytest.mark.parametrize("option", ELSEWHERE)
def test_options_of_other_programs_are_answered(cellrt, option):
    line = refused(cellrt("segment", "stack.tif", option, "1"))
    assert re.search(rf"{option} is (not needed: |-)", line), line


def test_every_answer_leads_to_an_option_there_is(cellrt):
    known = set(re.findall(r"--[a-z][a-z-]+", cellrt("segment", "-h").out))
    known |= {"--min-size", "--max-size"}
    for answer in _ELSEWHERE.values():
        assert set(re.findall(r"--[a-z][a-z-]+", answer)) <= known, answer
        for setting in re.findall(r"--param ([a-z_]+)=", answer):
            assert f"{setting}=" in cellrt("segment", "--param", "help").out


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("--dry_run", "--dry-run"),
        ("--no_preview", "--no-preview"),
        ("--voxelsize", "--voxel-size"),
        ("--Diameter", "--diameter"),
        ("--over_write", "--overwrite"),
        ("--anisotrophy", "--anisotropy"),
    ],
)
def test_an_unknown_option_leads_to_the_one_most_alike(cellrt, wrong, right):
    assert f"did you mean {right}?" in refused(cellrt("segment", "stack.tif", wrong, "1"))


def test_a_file_that_begins_with_a_dash_is_told_how_to_be_named(cellrt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("-dash.png").touch()
    assert "write ./-dash.png" in refused(cellrt("segment", "-dash.png")).replace("\\", "/")


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["--voxel-size", "1"], "Z Y X in µm"),
        (["--voxel-size", "1,0.5,0.5"], "write --voxel-size 1 0.5 0.5"),
        (["--voxel-size", "1.0,0.5,0.5", "-q"], "write --voxel-size 1.0 0.5 0.5"),
        (["--voxel-size", "0,5", "0,2", "0,2"], "write --voxel-size 0.5 0.2 0.2"),
        (["--voxel-size=1,2,2"], "write --voxel-size 1 2 2"),
        (["--voxel-size", "0.5um", "0.2um", "0.2um"], "write --voxel-size 0.5 0.2 0.2"),
        (["--voxel-size", "300nm", "100nm", "100nm"], "write --voxel-size 0.3 0.1 0.1"),
        (["--voxel-size", "0.5x0.2x0.2µm"], "write --voxel-size 0.5 0.2 0.2"),
        (["--voxel-size", "0,5", "0.2", "0.2"], "an example: --voxel-size"),
        (["--voxel-size", "a", "b", "c"], "an example: --voxel-size"),
        (["--tile", "64"], "Z Y X in voxels"),
        (["--tile", "64,96,96"], "write --tile 64 96 96"),
        (["--tile", "64.5", "1", "1"], "three whole numbers"),
        (["--intensity", "120"], "two numbers"),
        (["--intensity", "120,800"], "write --intensity 120 800"),
        (["--diameter", "16px"], "write --diameter 16"),
        (["--diameter", "16,5"], "write --diameter 16.5"),
        (["--diameter", "large"], "expected a number"),
        (["--diameter", "16um"], "expected a number;"),
        (["--diameter"], "needs a value"),
        (["--halo", "1.5"], "expected a whole number"),
    ],
)
def test_numbers_are_asked_for_by_name_and_shown_as_they_are_typed(cellrt, words, advice):
    line = refused(cellrt("segment", "stack.tif", *words))
    assert advice in line
    assert words[0].partition("=")[0] in line


def test_the_shape_of_a_simulated_stack_too(cellrt, tmp_path):
    line = refused(cellrt("simulate", "nuclei", "-o", tmp_path, "--shape", "64x96x96"))
    assert "write --shape 64 96 96" in line


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--diameter", ["nan", "inf", "-inf", "0", "-3", "1e-9"]),
        ("--anisotropy", ["nan", "inf", "0", "-1", "1e9"]),
        ("--halo", ["-1"]),
        ("--tile", ["0 8 8", "-8 8 8"]),
        ("--intensity", ["nan 5", "0 inf", "9 2", "5 5"]),
        ("--max-size", ["0", "-1", "nan"]),
        ("--voxel-size", ["0 1 1", "nan 1 1", "inf 1 1", "-1 1 1", "1e9 1 1", "300 100 100"]),
    ],
)
def test_impossible_numbers_are_refused_before_the_stack_is_read(cellrt, tmp_path, option, values):
    import numpy as np

    np.save(tmp_path / "a.npy", np.zeros((4, 16, 16), np.uint8))
    for value in values:
        done = cellrt("segment", tmp_path / "a.npy", option, *value.split())
        assert done.code in (2, 3), (value, done.err)
        line = done.err.splitlines()[-1]
        assert line.startswith("cellrt: ")
        assert option.lstrip("-") in line
        assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_what_is_no_number_is_not_miscounted(cellrt, tmp_path):
    import numpy as np

    np.save(tmp_path / "a.npy", np.zeros((4, 16, 16), np.uint8))
    done = cellrt("segment", tmp_path / "a.npy", "--intensity", "nan", "5")
    assert "--intensity is nan 5; expected finite numbers" in done.err


def test_a_diameter_beyond_the_image_is_refused(cellrt, tmp_path):
    import numpy as np

    np.save(tmp_path / "a.npy", np.zeros((4, 16, 16), np.uint8))
    done = cellrt("segment", tmp_path / "a.npy", "--diameter", "1e9")
    assert done.code == 2
    assert "16 pixels" in done.err


@pytest.mark.parametrize(
    ("words", "example"),
    [
        (["-m", "nuclei", "--param", "list"], "such as --param step="),
        (["-m", "nuclei", "--param", "foreground_threshold"], "--param foreground_threshold="),
        (["-m", "nuclei", "--param", "max_flow_error"], "--param max_flow_error="),
        (["-m", "membranes-3dcellseg", "--param", "min_area"], "--param min_area="),
    ],
)
def test_the_example_of_a_parameter_is_one_of_the_decoders(cellrt, words, example):
    line = refused(cellrt("segment", "a.tif", *words))
    assert example in line
    assert "--param help" in line


def test_parameters_are_listed_without_a_stack(cellrt):
    done = cellrt("segment", "--param", "help", "--model", "membranes-3dcellseg")
    assert done.code == 0, done.err
    assert "min_area=" in done.out


def test_the_last_line_is_short_and_verbose_says_why(cellrt, tmp_path):
    import json

    import numpy as np

    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.integers(0, 99, (8, 24, 24)).astype(np.uint8))
    words = ("segment", tmp_path / "a.npy", "--diameter", "16", "--overwrite")
    done = cellrt(*words)
    assert done.code == 0, done.err
    assert re.fullmatch(r"\d+ cells? in [\d.]+ s with openvino \(\w+\)", done.out.splitlines()[0])
    assert "skipped" not in done.out + done.err
    done = cellrt(*words, "--verbose")
    assert "skipped: " in done.err
    record = json.loads((tmp_path / "a.run.json").read_text(encoding="utf-8"))
    assert "tensorrt" in record["engine"]["skipped"]


@pytest.mark.parametrize(
    "words",
    [
        ("build", "nuclei", "--workspace", "inf"),
        ("build", "nuclei", "--workspace", "nan"),
        ("train", "recipe.toml", "--max-minutes", "inf"),
        ("train", "recipe.toml", "--max-minutes", "nan"),
        ("simulate", "nuclei", "-o", "folder", "--diameter", "1e9"),
        ("simulate", "nuclei", "-o", "folder", "--diameter", "nan"),
        ("simulate", "nuclei", "-o", "folder", "--shape", "0", "9", "9"),
        ("evaluate", "a.tif", "b.tif", "--threshold", "much"),
    ],
)
def test_numbers_of_other_commands_that_make_no_sense(cellrt, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    done = cellrt(*words)
    assert done.code == 2, done.err
    assert done.err.startswith("cellrt: ")
    assert done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "address",
    ["https://host.org/a.tif", "http://h/a.tif", "s3://b/a.zarr:raw", "gs://b/a.npy", "FTP://h/a"],
)
def test_a_url_is_to_be_downloaded_first(cellrt, tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    url = address.removesuffix(":raw")
    np.save("a.npy", np.zeros((4, 16, 16), np.uint8))
    for words in (
        ("segment", address),
        ("segment", "a.npy", "-m", url),
        ("evaluate", address, "a.npy"),
        ("evaluate", "a.npy", address),
        ("train", url),
        ("benchmark", address),
    ):
        done = cellrt(*words)
        assert done.code == 3, (words, done.err)
        line = done.err.splitlines()[-1]
        assert re.match(rf"cellrt: {url}(:raw)? is a URL, .*download it first", line), words
    done = cellrt("segment", "a.npy", "-o", f"{url}.tif", "-q")
    assert done.code == 3
    assert "upload it afterwards" in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_the_url_of_a_file_is_its_path(cellrt, tmp_path):
    done = cellrt("segment", f"file://{tmp_path}/a.tif")
    assert done.code == 3
    assert f"give the path alone: {tmp_path}/a.tif" in done.err
    assert f"file://{tmp_path}/a.tif is a URL" in done.err  # as it was typed
    with pytest.raises(InputError, match=f"^file://{tmp_path}/a.tif is a URL"):
        parse_address(Path(f"file://{tmp_path}/a.tif"))


@pytest.mark.parametrize("unseen", ["\u202e", "\u2066", "\u200f", "\ufeff", "\u2028", "\x1b"])
def test_characters_of_names_that_are_not_seen_are_shown(cellrt, tmp_path, unseen):
    path = tmp_path / f"a{unseen}fit.npy"
    assert unseen not in cellrt("segment", path).err
    np.save(path, np.zeros((4, 16, 16), np.uint8))
    done = cellrt("segment", path, "--diameter", 16, "--dry-run")
    assert done.code == 0
    assert unseen not in done.out + done.err
    assert unseen.encode("unicode_escape").decode() in done.out


def test_names_in_scripts_that_join_letters_stay_as_they_are(cellrt, tmp_path):
    name = "\u0646\u0645\u0648\u0646\u0647\u200c\u0647\u0627.tif"
    assert name in cellrt("segment", tmp_path / name).err


def test_several_stacks_take_a_loop(cellrt, tmp_path):
    names = [f"{tmp_path}/{number}.tif" for number in range(300)]
    line = refused(cellrt("segment", *names))
    assert "takes one stack" in line
    assert names[1] in line
    assert "cellrt segment" in line.partition("for many")[2]
    assert len(line) < 400
    for pattern in ("*.tif", "stack?.h5:raw", f"{tmp_path}/*"):
        done = cellrt("segment", pattern, "-q")
        assert done.code == 2, done.err
        assert "is a pattern" in done.err
        assert "for many" in done.err
    line = refused(cellrt("segment", "stack.tif", "2"))
    assert "'2' is one word too many for `cellrt segment STACK`" in line


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["stack.tif"], "`cellrt segment stack.tif`"),
        (["my stack.TIF", "--diameter", "16"], "`cellrt segment 'my stack.TIF' --diameter 16`"),
        (["a.h5:raw"], "`cellrt segment a.h5:raw`"),
        (["recipe.toml"], "`cellrt train recipe.toml`"),
        (["help"], "`cellrt --help`"),
        (["version"], "`cellrt --version`"),
        (["segmnt", "a.tif"], "'segment'"),
    ],
)
def test_a_command_that_was_forgotten(cellrt, words, meant):
    line = refused(cellrt(*words))
    assert f"id you mean {meant}?" in line


def test_an_example_of_a_shape_is_one_that_the_command_takes(cellrt, tmp_path):
    line = refused(cellrt("simulate", "bacteria", "-o", tmp_path, "--shape", 64, 64))
    numbers = line.partition("an example: --shape ")[2].split()
    assert cellrt("simulate", "bacteria", "-o", tmp_path, "--shape", *numbers).code == 0


def test_slices_and_views_exclude_each_other(cellrt, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((8, 32, 32), np.uint8))
    line = refused(cellrt("segment", tmp_path / "a.npy", "-m", "nuclei2d", "--slices", "--views"))
    assert "leave one of them out" in line
