"""``python -m cellrt`` is the ``cellrt`` command."""

from cellrt.cli.main import main

main()
