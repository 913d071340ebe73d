"""Images that `cellrt segment` segments, one or a folder of them, with networks loaded once."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from cellrt.cli.console import printable
from cellrt.cli.segment_report import print_plan, print_result, tell_engine
from cellrt.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

    from cellrt.cli.reporting import JsonEvents, Terminal
    from cellrt.cli.turn import Turn
    from cellrt.runtime.cell_size.common import Kind
    from cellrt.runtime.grid.scale import CellScale
    from cellrt.runtime.image.volume import Volume
    from cellrt.runtime.job import Options
    from cellrt.runtime.network.engines.tensorrt.bundle import Bundle
    from cellrt.runtime.network.loaded import LoadedModel

Rest = Optional[Callable[[], None]]  # noqa: UP045 (evaluated on Python 3.10)
"""What is left to do of an image, where anything is."""

SESSIONS = 4
"""Shapes of tiles whose networks stay compiled for the next image of a folder."""

SMALL = 1 << 22
"""Pixels of an image that may be finished while the next one is in memory, too."""


@dataclass(frozen=True)
class Asked:
    """What the command line says, but for the image: `known` of it, and `options` of the run."""

    model: str | None
    engine_file: str | None
    views: bool
    words: list[str]
    known: dict[str, Any]
    options: dict[str, Any]
    output: str | None
    overwrite: bool
    extras: list[str]
    preview: bool
    dry_run: bool
    quiet: bool
    verbose: bool


class Networks:
    """Models with their engines: each is loaded for the first image that needs it."""

    def __init__(
        self, asked: Asked, events: JsonEvents | Terminal, held: ExitStack, keep: int = 0
    ) -> None:
        self._asked, self._events, self._held, self._keep = asked, events, held, keep
        self._loaded: dict[str | None, tuple[LoadedModel, Options]] = {}

    def of(self, stack: str) -> tuple[LoadedModel, Options]:
        """The network for an image, with the options of its run; refuses those that do not fit.

        A machine that lacks an engine comes last: what is wrong with the words of the command is
        mended faster.
        """
        from cellrt.runtime.preparation import default_model

        asked = self._asked
        name = asked.model
        if asked.engine_file is None and name is None:
            name = default_model(stack, **asked.known)
        if name not in self._loaded:
            self._loaded[name] = self._load(name, stack)
        return self._loaded[name]

    def _load(self, name: str | None, stack: str) -> tuple[LoadedModel, Options]:
        from cellrt.runtime.decoding.parameters import split_settings
        from cellrt.runtime.decoding.registry import decoder_for
        from cellrt.runtime.job import Options
        from cellrt.runtime.model.file import open_model
        from cellrt.runtime.preparation import check, load
        from cellrt.runtime.results.save import check_extras, foresee_place

        asked = self._asked
        bundle: Bundle | None = None
        if name is None:
            from cellrt.runtime.network.engines.tensorrt.bundle import open_bundle

            assert asked.engine_file is not None
            bundle = self._held.enter_context(open_bundle(asked.engine_file))
            model = bundle.model
        else:
            model = open_model(name)
            if asked.model is None and model.card.planar:
                self._events.note(f"one slice: the model is {model.card.name}")
        if asked.views:
            model = model.in_views()
        family = decoder_for(model.card, asked.options["decoder"])
        options = Options(
            **asked.options, decoder_parameters=split_settings(asked.words, family.parameters)
        )
        # What can be refused is refused before a large file is read.
        check_extras(asked.extras, family.name)
        foresee_place(stack, asked.output, overwrite=asked.overwrite)
        choice = None if bundle is None else bundle.choose()
        network = load(model, options, choice=choice, keep=self._keep)
        check(network, options)
        return network, options


def segment_all(
    images: list[Path], networks: Networks, asked: Asked, events: JsonEvents | Terminal
) -> None:
    """Segment one image after the other; what cannot be read or written keeps none from its turn.

    Cells of small images are assembled, measured and written while the network looks at the next
    image. Whoever watches is told of one after the other all the same.

    Raises
    ------
    InputError
        At the end, where images were left out; each has been told of by then.
    """
    from concurrent.futures import ThreadPoolExecutor

    from cellrt.cli.turn import Turn
    from cellrt.errors import InputError, ResourceError, one_line

    sizes = _common_sizes(images, networks, asked, events)
    left_out: list[str] = []

    def attempt(image: Path, turn: Turn, work: Callable[[], Rest]) -> Rest:
        try:
            return work()
        except (InputError, ResourceError) as error:
            turn.come()
            left_out.append(image.name)
            print(printable(f"cellrt: {one_line(str(error))}"), file=sys.stderr)
            return None

    def nothing() -> None: ...

    finished: Callable[[], object] = nothing
    with ThreadPoolExecutor(1, thread_name_prefix="finish") as thread:
        for number, image in enumerate(images, 1):
            turn = Turn(events, after=finished)
            turn.note(f"image {number} of {len(images)}: {one_line(image.name)}")
            segment = partial(segment_one, str(image), networks, asked, events, turn, sizes)
            rest = attempt(image, turn, segment)
            if rest is not None:
                finished = thread.submit(attempt, image, turn, rest).result
        finished()
    if left_out:
        raise InputError(
            f"{len(left_out)} of {counted(len(images), 'image')} could not be segmented, as told "
            f"above: {', '.join(left_out[:5])}{', ...' if len(left_out) > 5 else ''}"
        )


def _common_sizes(
    images: list[Path], networks: Networks, asked: Asked, events: JsonEvents | Terminal
) -> dict[Kind, CellScale]:
    """The cell sizes that images of one slice have in common; see `cell_size.common`."""
    from cellrt.errors import InputError, ResourceError
    from cellrt.runtime.cell_size.common import common_sizes, kind_of, own_diameter, spread
    from cellrt.runtime.image.reading import read
    from cellrt.runtime.progress import StageClock

    if asked.options["diameter"] is not None:
        return {}
    found = []
    for number in spread(len(images)):
        try:  # what is wrong with an image is said when it has its turn
            network, options = networks.of(str(images[number]))
            volume = read(str(images[number]), **asked.known)
            if volume.is_2d:
                diameter = own_diameter(volume, network, options, StageClock(events))
                if diameter is not None:
                    found.append((kind_of(volume, network), diameter))
        except (InputError, ResourceError):
            continue
    sizes = common_sizes(found, len(images))
    for (model, shape, _), scale in sizes.items():
        events.note(
            f"cell diameter of images of {shape[1]} x {shape[2]} pixels for {model}: "
            f"{scale.diameter_pixels:.3g} pixels, {scale.diameter_origin}"
        )
    return sizes


def segment_one(
    stack: str,
    networks: Networks,
    asked: Asked,
    events: JsonEvents | Terminal,
    turn: Turn | None = None,
    sizes: Mapping[Kind, CellScale] | None = None,
) -> Rest:
    """Segment one image and write its results, or print the plan.

    Parameters
    ----------
    stack : str
    networks : Networks
    asked : Asked
    events : JsonEvents or Terminal
    turn : Turn, optional
        Of an image of several, the one before which may still be being finished.
    sizes : mapping of kind to CellScale, optional
        The cell sizes that images of the run have in common.

    Returns
    -------
    callable or None
        What is left to do of a small image that has a turn, and need not be done at once.
    """
    from contextlib import ExitStack

    from cellrt.compile_ahead import compile_ahead
    from cellrt.runtime.cell_size.common import kind_of
    from cellrt.runtime.image.reading import read
    from cellrt.runtime.preparation import prepare
    from cellrt.runtime.progress import StageClock
    from cellrt.runtime.results import table
    from cellrt.runtime.results.preview import page
    from cellrt.runtime.results.save import (
        Outputs,
        foresee_outputs_of,
        outputs_of,
        write_results,
    )
    from cellrt.runtime.run import begin, finish

    clock = StageClock(turn or events)
    with ExitStack() as held:
        network, options = networks.of(stack)
        outputs: list[Outputs] = []
        planned: dict[str, Path] = {}

        def hold_outputs(volume: Volume) -> None:
            if turn is not None and not _is_small(volume):
                turn.come()  # large ones are in memory one at a time, and are watched
            wanted: dict[str, Any] = {"overwrite": asked.overwrite, "extras": asked.extras}
            if asked.dry_run:
                planned.update(foresee_outputs_of(volume, asked.output, **wanted))
                return
            outputs.append(held.enter_context(outputs_of(volume, asked.output, **wanted)))

        with clock.stage("read"):
            volume = read(stack, **asked.known, before_voxels=hold_outputs)
        if not asked.dry_run:
            works = [table.warm_up, page.warm_up] if asked.preview else [table.warm_up]
            held.enter_context(compile_ahead(*works))
        guess = sizes.get(kind_of(volume, network)) if sizes else None
        job = prepare(volume, network, options, clock, guess)
        if asked.verbose:
            tell_engine(network.choice, clock.progress)
        fields = None if asked.dry_run else begin(job, clock)
        if turn is not None:
            turn.come()
        if fields is None:
            print_plan(job, planned["labels"], events)
            return None
        rest = held.pop_all()

    def end() -> None:
        with rest:
            result = finish(fields, clock)
            paths = write_results(result, outputs[0], clock, preview=asked.preview)
        print_result(result, paths, events, quiet=asked.quiet)

    if turn is not None and _is_small(volume):
        return end
    end()
    return None


def _is_small(volume: Volume) -> bool:
    return volume.is_2d and math.prod(volume.shape) <= SMALL
