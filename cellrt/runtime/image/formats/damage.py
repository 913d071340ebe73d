"""Errors of file libraries, told apart from our own."""

from __future__ import annotations

from cellrt.errors import InputError, in_parentheses


def damaged(name: str, detail: str) -> InputError:
    """Return the error for a file that cannot be whole.

    Parameters
    ----------
    name : str
        Of the file.
    detail : str
        What the library said, or what was found.
    """
    return InputError(
        f"{name} is truncated or damaged{in_parentheses(detail)}; copy or save it again"
    )


def raised_in(error: BaseException, *packages: str) -> bool:
    """Whether an exception comes out of one of these packages, or of what they called.

    Libraries raise exceptions of any kind on damaged files. Where one was raised tells those from
    our own mistakes, which must not be blamed on the file.
    """
    trace = error.__traceback__
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0] in packages:
            return True
        trace = trace.tb_next
    return False
