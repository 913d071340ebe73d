"""An image that `cellrt segment` segments, with networks that are loaded once for all of a run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellrt.cli.segment_report import print_plan, print_result, tell_engine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

    from cellrt.cli.reporting import JsonEvents, Terminal
    from cellrt.runtime.cell_size.common import Kind
    from cellrt.runtime.grid.scale import CellScale
    from cellrt.runtime.image.volume import Volume
    from cellrt.runtime.job import Options
    from cellrt.runtime.model.card import ModelCard
    from cellrt.runtime.network.engines.tensorrt.bundle import Bundle
    from cellrt.runtime.network.loaded import LoadedModel
    from cellrt.runtime.plan import Plan
    from cellrt.runtime.progress import Progress


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
    """Models with their engines: each is loaded for the first image that needs it.

    Parameters
    ----------
    asked : Asked
    events : JsonEvents or Terminal
    held : ExitStack
        Keeps what they hold.
    keep, at_once : int
        As for `LoadedModel`.
    tell : callable, optional
        Told the card of a model that nobody named; by default this is noted of one slice.
    """

    def __init__(
        self,
        asked: Asked,
        events: JsonEvents | Terminal,
        held: ExitStack,
        *,
        keep: int = 0,
        at_once: int = 1,
        tell: Callable[[ModelCard], None] | None = None,
    ) -> None:
        self._asked, self._events, self._held = asked, events, held
        self._tell = tell or self._tell_of_one
        self._keep, self._at_once = keep, at_once
        self._loaded: dict[str | None, tuple[LoadedModel, Options]] = {}
        self._lock = threading.Lock()

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
        with self._lock:
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
            if asked.model is None:
                self._tell(model.card)
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
        network = load(model, options, choice=choice, keep=self._keep, at_once=self._at_once)
        check(network, options)
        return network, options

    def _tell_of_one(self, card: ModelCard) -> None:
        if card.planar:
            self._events.note(f"one slice: the model is {card.name}")


def segment_one(
    stack: str,
    networks: Networks,
    asked: Asked,
    events: JsonEvents | Terminal,
    *,
    progress: Progress | None = None,
    sizes: Mapping[Kind, CellScale] | None = None,
    room: Callable[[Plan], AbstractContextManager[object]] = lambda plan: nullcontext(),
) -> Callable[[], None]:
    """Segment one image and write its results, or plan it.

    Parameters
    ----------
    stack : str
    networks : Networks
    asked : Asked
    events : JsonEvents or Terminal
        Who is told of the result.
    progress : Progress, optional
        Who is told of all before it; `events` by default.
    sizes : mapping of kind to CellScale, optional
        The cell sizes that images of the run have in common.
    room : callable
        Gives what is held while something big is computed.

    Returns
    -------
    callable
        Tells of the result, or of the plan.
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
    from cellrt.runtime.run import run

    clock = StageClock(progress or events)
    with ExitStack() as held:
        network, options = networks.of(stack)
        outputs: list[Outputs] = []
        planned: dict[str, Path] = {}

        def hold_outputs(volume: Volume) -> None:
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
        if asked.dry_run:
            return partial(print_plan, job, planned["labels"], events)
        with room(job.plan):
            result = run(job, clock)
            paths = write_results(result, outputs[0], clock, preview=asked.preview)
    return partial(print_result, result, paths, events, quiet=asked.quiet)
