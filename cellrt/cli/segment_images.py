"""Images that `cellrt segment` segments, one or a folder of them, with networks loaded once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellrt.cli.segment_report import print_plan, print_result, tell_engine
from cellrt.wording import counted

if TYPE_CHECKING:
    from contextlib import ExitStack

    from cellrt.cli.reporting import JsonEvents, Terminal
    from cellrt.runtime.job import Options
    from cellrt.runtime.network.engines.choice import EngineChoice
    from cellrt.runtime.network.loaded import LoadedModel

SESSIONS = 4
"""Shapes of tiles whose networks stay compiled for the next image of a folder."""


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
        """The network for an image, with the options of its run; refuses those that do not fit."""
        from cellrt.runtime.preparation import default_model

        asked = self._asked
        name = asked.model
        if asked.engine_file is None and name is None:
            name = default_model(stack, **asked.known)
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str | None) -> tuple[LoadedModel, Options]:
        from cellrt.runtime.decoding.parameters import split_settings
        from cellrt.runtime.decoding.registry import decoder_for
        from cellrt.runtime.job import Options
        from cellrt.runtime.model.file import open_model
        from cellrt.runtime.preparation import check, load
        from cellrt.runtime.results.save import check_extras

        asked = self._asked
        choice: EngineChoice | None = None
        if name is None:
            from cellrt.runtime.network.engines.tensorrt.bundle import open_bundle

            assert asked.engine_file is not None
            bundle = self._held.enter_context(open_bundle(asked.engine_file))
            model, choice = bundle.model, bundle.choose()
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
        network = load(model, options, choice=choice, keep=self._keep)
        check_extras(asked.extras, check(network, options).name)
        return network, options


def segment_all(
    images: list[Path], networks: Networks, asked: Asked, events: JsonEvents | Terminal
) -> None:
    """Segment one image after the other; what cannot be read or written keeps none from its turn.

    Raises
    ------
    InputError
        At the end, where images were left out; each has been told of by then.
    """
    import sys

    from cellrt.cli.console import printable
    from cellrt.errors import InputError, ResourceError, one_line

    left_out = []
    for number, image in enumerate(images, 1):
        events.note(f"image {number} of {len(images)}: {one_line(image.name)}")
        try:
            segment_one(str(image), networks, asked, events)
        except (InputError, ResourceError) as error:
            left_out.append(image.name)
            print(printable(f"cellrt: {one_line(str(error))}"), file=sys.stderr)
    if left_out:
        raise InputError(
            f"{len(left_out)} of {counted(len(images), 'image')} could not be segmented, as told "
            f"above: {', '.join(left_out[:5])}{', ...' if len(left_out) > 5 else ''}"
        )


def segment_one(
    stack: str, networks: Networks, asked: Asked, events: JsonEvents | Terminal
) -> None:
    """Segment one image and write its results, or print the plan."""
    from contextlib import ExitStack

    from cellrt.compile_ahead import compile_ahead
    from cellrt.runtime.image.reading import read
    from cellrt.runtime.image.volume import Volume
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

    clock = StageClock(events)
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
        job = prepare(volume, network, options, clock)
        if asked.verbose:
            tell_engine(network.choice, events)
        if asked.dry_run:
            print_plan(job, planned["labels"], events)
            return
        result = run(job, clock)
        paths = write_results(result, outputs[0], clock, preview=asked.preview)
    print_result(result, paths, events, quiet=asked.quiet)
