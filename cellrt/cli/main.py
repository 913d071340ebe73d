"""The ``cellrt`` command: registers the subcommands and turns errors into one line and a code.

Exit codes: 0 done, 1 a bug in cellrt, 2 wrong usage, 3 unusable input, 4 an engine that cannot be
had, 5 too little memory or disk, 130 interrupted.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from cellrt._version import __version__
from cellrt.cli.benchmark import benchmark
from cellrt.cli.build import build
from cellrt.cli.doctor import doctor
from cellrt.cli.evaluate import evaluate
from cellrt.cli.export import export
from cellrt.cli.models import models
from cellrt.cli.segment import segment
from cellrt.cli.simulate import simulate
from cellrt.cli.train import train
from cellrt.errors import CellrtError, one_line

INTERRUPTED = 130
INTERRUPTION = "interrupted; nothing unfinished was left"

app = typer.Typer(
    name="cellrt",
    help="3D cell segmentation where the microscope is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (segment, models, doctor, build, benchmark, simulate, train, export, evaluate):
    app.command(no_args_is_help=command not in (models, doctor, build))(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cellrt {__version__}")
        raise typer.Exit


@app.callback()
def _options(
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the documented code."""
    # Names of files may hold bytes that are no text; showing one must not end a run.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="surrogateescape")
    words = list(sys.argv[1:] if arguments is None else arguments)
    # People add --debug at the end of the line that failed, wherever the parser would want it.
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    sys.exit(_run(words, debug=debug))


def _run(words: list[str], *, debug: bool) -> int:
    """Run one command line; return its exit code."""
    try:
        code = app(words, prog_name="cellrt", standalone_mode=False)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except CellrtError as error:
        return _fail(words, str(error), error.exit_code, debug=debug)
    except MemoryError:
        return _fail(
            words,
            "out of memory; close other programs, crop the stack, or give a larger --diameter",
            5,
            debug=debug,
        )
    except BrokenPipeError:
        return 0
    except Exception as error:
        if _interrupted(error):
            return _fail(words, INTERRUPTION, INTERRUPTED, debug=debug)
        # Errors of the parser itself: an unknown option, a missing argument, a wrong type.
        describe = getattr(error, "format_message", None)
        if describe is not None:
            return _fail(words, f"{describe()} See `cellrt --help`.", 2, debug=debug)
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


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C came first: inside of a lock, say, another error follows it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


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
