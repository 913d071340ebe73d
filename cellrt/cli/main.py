"""The ``cellrt`` command: registers the subcommands and turns errors into one line and a code.

Exit codes: 0 done, 1 a bug in cellrt, 2 wrong usage, 3 unusable input, 4 an engine that cannot be
had, 5 too little memory or disk, or standard output could not be written, 130 interrupted.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from cellrt._version import __version__
from cellrt.cli.benchmark import benchmark
from cellrt.cli.build import build
from cellrt.cli.console import make_printable, output_error, printable
from cellrt.cli.decode import decode
from cellrt.cli.doctor import doctor
from cellrt.cli.encode import encode
from cellrt.cli.evaluate import evaluate
from cellrt.cli.export import export
from cellrt.cli.models import models
from cellrt.cli.segment import segment
from cellrt.cli.simulate import simulate
from cellrt.cli.train import train
from cellrt.cli.wrong_usage import explain
from cellrt.endings import end_on_signals, interrupted, run_is_over
from cellrt.errors import CellrtError, ResourceError, one_line

INTERRUPTED = 130
INTERRUPTION = "interrupted; nothing unfinished was left"
UNPRINTED = "what was printed is lost, results in files are there"


class _Command(TyperCommand):
    """A command whose help is written in letters that the terminal has."""

    def get_help(self, ctx: Any) -> str:
        """Text of ``--help``."""
        return printable(super().get_help(ctx))


class _Group(TyperGroup):
    """All commands."""

    def get_help(self, ctx: Any) -> str:
        """Text of ``--help``."""
        return printable(super().get_help(ctx))


app = typer.Typer(
    name="cellrt",
    cls=_Group,
    help="3D cell segmentation where the microscope is.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS = (
    *(segment, models, doctor, build, benchmark, simulate, train, export, evaluate),
    *(encode, decode),
)
for command in _COMMANDS:
    app.command(cls=_Command)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cellrt {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the full traceback of an error.")
    ] = False,
) -> None:
    """3D cell segmentation where the microscope is."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the documented code."""
    make_printable()
    end_on_signals()
    words = list(sys.argv[1:] if arguments is None else arguments)
    # People add --debug at the end of the line that failed, wherever the parser would want it.
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    code = _run(words, debug=debug)
    error = output_error()
    if error is not None and code == 0:
        message = f"standard output cannot be written ({error.strerror}); {UNPRINTED}"
        code = _fail(words, message, ResourceError.exit_code, debug=debug)
    if arguments is None:
        # The process ends, and all memory goes back with it. To look through what libraries hold
        # for cycles once more takes 0.3 s.
        gc.freeze()
    sys.exit(code)


def _run(words: list[str], *, debug: bool) -> int:
    """Run one command line; return its exit code."""
    try:
        try:
            code = app(words, prog_name="cellrt", standalone_mode=False)
        finally:
            run_is_over()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except CellrtError as error:
        return _fail(words, error.message, error.exit_code, debug=debug)
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit):
            # What the parser makes of a broken pipe, which is none of standard output's.
            if not isinstance(error.__context__, OSError):
                raise
            error = error.__context__
        if interrupted(error):
            return _fail(words, INTERRUPTION, INTERRUPTED, debug=debug)
        # Errors of the parser itself: an unknown option, a missing argument, a wrong type.
        misunderstood = explain(error, words)
        if misunderstood is not None:
            return _fail(words, misunderstood, 2, debug=debug)
        shortage = _shortage(error)
        if shortage is not None:
            return _fail(words, shortage, ResourceError.exit_code, debug=debug)
        return _fail(
            words,
            f"internal error: {type(error).__name__}: {error}; "
            "run the command again with --debug and report the traceback",
            1,
            debug=debug,
        )
    if code == INTERRUPTED:  # which is also what the parser makes of Ctrl-C, without a word
        return _fail(words, INTERRUPTION, code, debug=debug)
    return code if isinstance(code, int) else 0


def _shortage(error: Exception) -> str | None:
    """What ran out, where an error comes from that and nothing nearer to it said so."""
    from cellrt.disk_room import refuse_no_room
    from cellrt.limits import check_process_limits, means_no_memory, out_of_memory

    try:
        if isinstance(error, OSError):
            name = error.filename
            refuse_no_room(
                error, Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None
            )
        if means_no_memory(error):
            return out_of_memory()
        check_process_limits()  # too low a limit makes libraries say anything
    except ResourceError as found:
        return found.message
    return None


def _fail(words: list[str], message: str, code: int, *, debug: bool) -> int:
    """Print an error as one line, after its traceback when that was asked for."""
    if debug and sys.exc_info()[0] is not None:
        import traceback

        traceback.print_exc()
    line = one_line(" ".join(message.split()))
    print(f"cellrt: {line}", file=sys.stderr)
    if "--json" in words:
        import json

        print(json.dumps({"event": "error", "message": line, "exit_code": code}), flush=True)
    return code


if __name__ == "__main__":
    main()
