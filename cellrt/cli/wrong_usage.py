"""The answer to words that the command line does not understand: one line, and what to type."""

from __future__ import annotations

import difflib
import itertools
import math
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any

from cellrt.wording import a_loop

_OUTPUT = "is -o FOLDER/ here"
_THRESHOLD = "is --param foreground_threshold=0.5 here, a probability from 0 to 1"
_NOT_NEEDED = "is not needed: {}"
_ONE_STACK = _NOT_NEEDED.format(
    "name the stack, as in `cellrt segment stack.tif`; a loop of the shell takes a folder's"
)
# Options of Cellpose and StarDist by their names there, and what became of them here.
_ELSEWHERE = {
    "pretrained_model": "is --model here; `cellrt models` lists those there are",
    "model_type": "is --model here; `cellrt models` lists those there are",
    "do_3d": _NOT_NEEDED.format(
        "stacks are segmented in 3D, by a model of single slices with --views"
    ),
    "stitch_threshold": "is --slices --stitch 0.25 here, for models of single slices; others find "
    "cells in 3D",
    "flow_threshold": "is --param max_flow_error=0.4 here, of the decoder flows",
    "cellprob_threshold": _THRESHOLD + " and not its logit",
    "prob_thresh": _THRESHOLD,
    "nms_thresh": _NOT_NEEDED.format("every voxel belongs to one cell, so no cells overlap"),
    "niter": _NOT_NEEDED.format("every flow is followed to its end"),
    "diam_mean": _NOT_NEEDED.format(
        "the model knows its own size; --diameter gives that of the cells in the image"
    ),
    "chan": "is --channel here, a number counted from 1, or a name",
    "chan2": _NOT_NEEDED.format("the models take one channel; --channel chooses it"),
    "use_gpu": _NOT_NEEDED.format(
        "the best engine that loads is taken; `cellrt doctor` lists them and --engine chooses"
    ),
    "gpu": _NOT_NEEDED.format(
        "the best engine that loads is taken; `cellrt doctor` lists them and --engine chooses"
    ),
    "gpu_device": _NOT_NEEDED.format(
        "all GPUs share the work; the variable CUDA_VISIBLE_DEVICES leaves some out"
    ),
    "image_path": _ONE_STACK,
    "dir": _ONE_STACK,
    "input": _ONE_STACK,
    "save_tif": _NOT_NEEDED.format("labels are always written as TIFF"),
    "save_png": _NOT_NEEDED.format("the preview is always a PNG; --no-preview leaves it out"),
    "savedir": _OUTPUT,
    "outdir": _OUTPUT,
    "batch_size": _NOT_NEEDED.format("it follows from the free memory"),
    "n_tiles": _NOT_NEEDED.format("tiles follow from the memory; --tile Z Y X sets their size"),
    "no_norm": _NOT_NEEDED.format(
        "the models need it; --intensity LOW HIGH sets the grey values that become 0 and 1"
    ),
    "norm_percentile": "is --intensity LOW HIGH here, the grey values themselves",
    "exclude_on_edges": _NOT_NEEDED.format(
        "the column touches_border of the table says which cells the image cuts"
    ),
    "no_npy": _NOT_NEEDED.format("no .npy is written"),
}

# Options of several numbers: how many, what they are, and an example.
_NUMBERS = {
    "--voxel-size": (3, "three numbers, Z Y X in µm, of one slice too", "0.5 0.2 0.2"),
    "--tile": (3, "three whole numbers, Z Y X in voxels", "64 64 64"),
    "--shape": (3, "three whole numbers, Z Y X in voxels", "64 128 128"),
    "--intensity": (2, "two numbers, the grey values of background and of a cell", "120 800"),
}
_UM_PER_UNIT = {"nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "mm": 1e3}
_NUMERIC = re.compile(r"[\d.,;x*()\[\]]*(nm|[uµμ]m|mm)?", re.IGNORECASE)
_LENGTH = re.compile(r"([\d.,])(nm|[uµμ]m|mm)\b", re.IGNORECASE)


# What the parser says of words that it has no place for.
_EXTRA = re.compile(r"unexpected extra argument\S* \((?P<words>.*)\)$", re.S)
_NO_COMMAND = re.compile(r"^No such command (['\"])(?P<word>.*)\1\.", re.S)
# A command line that is longer is not repeated.
_LONGEST_LINE = 120


def explain(error: Exception, words: Sequence[str]) -> str | None:
    """Say what the parser did not understand; None where the error is none of the parser's.

    Parameters
    ----------
    error : Exception
        What the parser raised.
    words : sequence of str
        The command line.
    """
    describe = getattr(error, "format_message", None)
    if describe is None:
        return None
    context: Any = getattr(error, "ctx", None)
    command = getattr(context, "command_path", None) or _command(words)
    kind = type(error).__name__
    if kind == "NoSuchOption":
        options = context.command.params
        known = [name for one in options for name in (*one.opts, *one.secondary_opts)]
        for word in words:
            if word.startswith("-") and os.path.exists(word):
                here = _quoted(os.path.join(os.curdir, word))
                return f"the file {word} is taken for options; write {here}"
        return _with_hint(unknown_option(str(getattr(error, "option_name", "")), known), command)
    complaint = str(getattr(error, "message", ""))
    if found := _EXTRA.search(complaint):
        return _too_many(found["words"], command, context, words)
    if found := _NO_COMMAND.search(complaint):
        answer = _no_command(found["word"], words)
        if answer is not None:
            return answer
    parameter: Any = getattr(error, "param", None)
    names = list(getattr(parameter, "opts", ())) or [str(getattr(error, "option_name", ""))]
    if kind == "MissingParameter":
        missing = " or ".join(names) if names[0].startswith("-") else names[0].upper()
        usage = " ".join([command, *_arguments(context)])
        return _with_hint(f"{missing} is missing in `{usage}`", command)
    given = [following for name in names if (following := _given(name, words)) is not None]
    if given and names[0] in _NUMBERS:
        return _several_numbers(names[0], given[-1], words)
    if given and not given[-1]:
        return _with_hint(f"{names[0]} needs a value", command)
    if given:
        return _with_hint(_one_value(names[0], given[-1][0], complaint), command)
    return _with_hint(_sentence(str(describe())), command)


def _too_many(extra: str, command: str, context: Any, words: Sequence[str]) -> str:
    """Say how many files a command takes, or what may have been meant by a word too many."""
    usage = " ".join([command, *_arguments(context)])
    first = next((word for word in words if f"{extra} ".startswith(f"{word} ")), extra)
    if command.endswith(" segment") and _is_stack(first):
        return f"`{usage}` takes one stack, and {first} is one more; {a_loop()}"
    return _with_hint(f"{first!r} is one word too many for `{usage}`", command)


def _no_command(word: str, words: Sequence[str]) -> str | None:
    """What was meant where a file stands in the place of a command; None where that is unclear."""
    if word in ("help", "version"):
        return f"there is no command {word}; did you mean `cellrt --{word}`?"
    if word.endswith(".toml"):
        meant = "train"
    elif _is_stack(word):
        meant = "segment"
    else:
        return None
    line = " ".join(map(_quoted, words))
    shown = line if len(line) < _LONGEST_LINE else _quoted(word)
    return f"{word} is no command; did you mean `cellrt {meant} {shown}`?"


def _is_stack(word: str) -> bool:
    """Whether a word looks like an image, whether it is there or not."""
    from cellrt.runtime.image.formats import known_suffixes, split_address

    file, _ = split_address(word)
    return file.lower().endswith(known_suffixes()) or os.path.exists(file)


def _quoted(word: str) -> str:
    """A word as it is typed in this system's shell."""
    return subprocess.list2cmdline([word]) if os.name == "nt" else shlex.quote(word)


def unknown_option(name: str, known: Iterable[str]) -> str:
    """What an option is called here, or that it is not needed, or the one most alike.

    Parameters
    ----------
    name : str
        As it was written.
    known : iterable of str
        The options that there are.

    Examples
    --------
    >>> unknown_option("--dry_run", ["--dry-run", "--diameter"])
    'there is no option --dry_run; did you mean --dry-run?'
    >>> unknown_option("--do_3D", ["--diameter", "--model"])
    '--do_3D is not needed: stacks are segmented in 3D, by a model of single slices with --views'
    """
    options = {option for option in known if option.startswith("--")}
    hyphens = name.lower().replace("_", "-")
    answer = _ELSEWHERE.get(hyphens.lstrip("-").replace("-", "_"))
    if answer is not None and "--model" in options and hyphens not in options:
        return f"{name} {answer}"
    alike = difflib.get_close_matches(hyphens[2:], sorted(option[2:] for option in options), 1)
    return f"there is no option {name}" + (f"; did you mean --{alike[0]}?" if alike else "")


def _given(option: str, words: Sequence[str]) -> list[str] | None:
    """Words that follow an option up to the next one; None where it is not there."""
    for at, word in enumerate(words):
        if word == option:
            rest = list(words[at + 1 :])
            end = next((i for i, w in enumerate(rest) if re.match(r"--?[a-zA-Z]", w)), len(rest))
            return rest[:end]
        if option.startswith("--") and word.startswith(f"{option}="):
            return [word.partition("=")[2], *(_given(option, [option, *words[at + 1 :]]) or [])]
    return None


def _several_numbers(option: str, given: Sequence[str], words: Sequence[str]) -> str:
    """Ask for the numbers that an option takes, written as they were meant where that is clear."""
    count, expected, example = _NUMBERS[option]
    # Other words of the command line may stand behind the numbers.
    numeric = list(itertools.takewhile(_NUMERIC.fullmatch, given))
    meant = _meant(numeric, count, whole="whole" in expected)
    shown = " ".join(given[:count]) or "nothing"
    if option == "--shape" and any(kind in words for kind in ("bacteria", "worms")):
        example = "1 256 256"
    advice = f"write {option} {' '.join(meant)}" if meant else f"an example: {option} {example}"
    return f"{option} takes {expected}, not {shown!r}; {advice}"


def _meant(given: Sequence[str], count: int, *, whole: bool) -> list[str] | None:
    """Numbers in other people's ways to write them: commas, decimal commas, ``x``, units."""
    text = _LENGTH.sub(r"\1 \2 ", " ".join(given)).split()
    units = {word.lower() for word in text if word.lower() in _UM_PER_UNIT}
    plain = [word for word in text if word.lower() not in _UM_PER_UNIT]
    if len(units) > 1:
        return None
    if len(plain) == count and all(re.fullmatch(r"\d+,\d+", word) for word in plain):
        parts = [word.replace(",", ".") for word in plain]
    else:
        split = [part for word in plain for part in re.split(r"[,;x*\[\]()]+", word) if part]
        parts = [part for part in split if _is_number(part)]
        if len(parts) != len(split):
            return None
    if len(parts) != count or (whole and not all(part.isdecimal() for part in parts)):
        return None
    factor = _UM_PER_UNIT[units.pop()] if units else 1.0
    return parts if factor == 1 else [f"{float(part) * factor:g}" for part in parts]


def _one_value(option: str, given: str, complaint: str) -> str:
    """Say why a value is none, and how it would be one."""
    if "number" not in complaint and "integer" not in complaint and "float" not in complaint:
        return f"{option} is {given!r}: {_sentence(complaint).replace('input should', 'it should')}"
    expected = "a whole number" if "integer" in complaint else "a number"
    meant = re.sub(r"(?<=\d)\s*(px|pixels?|voxels?)$", "", given)
    meant = meant.replace(",", ".") if meant.count(",") == 1 else meant
    whole = expected == "a number" or meant.isdecimal()
    advice = f"; write {option} {meant}" if whole and meant != given and _is_number(meant) else ""
    return f"{option} is {given!r}; expected {expected}{advice}"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _command(words: Sequence[str]) -> str:
    """The command that was called, for errors of the parser that do not know it."""
    names = [word for word in words if not word.startswith("-")]
    return f"cellrt {names[0]}" if names else "cellrt"


def _arguments(context: Any) -> list[str]:
    """The positional arguments of a command, in capitals."""
    return [
        str(parameter.name).upper()
        for parameter in context.command.params
        if not parameter.opts[0].startswith("-")
    ]


def _sentence(text: str) -> str:
    """Somebody else's sentence as a part of ours."""
    words = text.strip().rstrip(".")
    return words[:1].lower() + words[1:]


def _with_hint(message: str, command: str) -> str:
    hint = f"`{command} --help` lists the options"
    return f"{message} {hint}" if message.endswith("?") else f"{message}; {hint}"
