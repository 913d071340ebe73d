"""All images of a folder, several small ones at a time."""

from __future__ import annotations

import math
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from cellrt.cli.console import printable
from cellrt.cli.segment_images import Asked, Networks, segment_one
from cellrt.cli.turn import Turn
from cellrt.endings import interrupted
from cellrt.wording import counted

if TYPE_CHECKING:
    from cellrt.cli.reporting import JsonEvents, Terminal
    from cellrt.runtime.cell_size.common import Kind
    from cellrt.runtime.grid.scale import CellScale
    from cellrt.runtime.model.card import ModelCard
    from cellrt.runtime.plan import Plan

Begun = tuple[Path, Turn, Optional[Future[Callable[[], None]]]]  # noqa: UP045 (evaluated on 3.10)
"""An image, its events, and its work where that is done apart."""

SESSIONS = 4
"""Shapes of tiles whose networks stay compiled for the next image."""

SMALL = 1 << 22
"""Pixels of an image that is computed beside others."""

MOST_AT_ONCE = 8
"""Images at a time on machines with many cores, of which each then has several."""

SHARE_OF_MEMORY = 0.5
"""Of what is free at first, for all images that are computed at a time."""


@dataclass(frozen=True)
class _Seen:
    """What is known of an image before its turn.

    ``small`` ones are computed beside others. ``difference`` is that of
    :func:`cellrt.runtime.results.earlier.difference`.
    """

    small: bool = False
    difference: str | None = None


class Room:
    """Memory that images share which are computed at a time; one has room in any case.

    Parameters
    ----------
    most : float
        Bytes.
    """

    def __init__(self, most: float) -> None:
        self._most, self._taken, self._changed = most, 0.0, threading.Condition()

    @contextmanager
    def of(self, needed: float) -> Iterator[None]:
        """Wait until so many bytes are left, and take them for the block."""
        needed = min(needed, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._taken + needed <= self._most)
            self._taken += needed
        try:
            yield
        finally:
            with self._changed:
                self._taken -= needed
                self._changed.notify_all()


class Folder:
    """Images of one run.

    Each of the small ones is computed by one of several threads from the file to the results, with
    its share of the cores for the network: then no core waits for another. Whoever watches is told
    of one image after the other all the same. Large ones have all cores, one at a time.

    Images whose results are there, of the same model, options and version, are left as they are: so
    a run that was interrupted goes on. Others whose results are there are told of.

    Parameters
    ----------
    images : list of Path
    asked : Asked
    events : JsonEvents or Terminal
    held : ExitStack
        Keeps what networks hold until the end of the run.
    """

    def __init__(
        self, images: list[Path], asked: Asked, events: JsonEvents | Terminal, held: ExitStack
    ) -> None:
        from cellrt.limits import free_memory, usable_cores
        from cellrt.runtime.machine.driver import nvidia_gpus

        self._images, self._asked, self._events = images, asked, events
        # Decoders that use a GPU have been tried by one thread at a time only.
        most = 1 if asked.dry_run or nvidia_gpus()[0] else MOST_AT_ONCE
        self._at_once = min(usable_cores().number, most, len(images))
        self._networks = Networks(
            asked, events, held, keep=SESSIONS, at_once=self._at_once, tell=self._tell
        )
        self._alone = self._networks
        if self._at_once > 1:
            self._alone = Networks(asked, events, held, keep=SESSIONS, tell=lambda card: None)
        self._room = Room(SHARE_OF_MEMORY * free_memory().free)
        self._sizes: dict[Kind, CellScale] = {}

    def segment(self) -> None:
        """Segment all; what cannot be read or written keeps none of the others from its turn.

        Raises
        ------
        InputError
            At the end, where images were left out; each has been told of by then.
        """
        from cellrt.errors import InputError, ResourceError, one_line

        left_out: list[str] = []
        done = 0
        seen = {image: self._look(image) for image in self._images}
        there = [image.name for image in self._images if seen[image].difference == ""]
        pool = ThreadPoolExecutor(self._at_once, thread_name_prefix="image")
        try:
            if len(there) < len(self._images):
                self._sizes = self._common_sizes(pool)
            for image, turn, work in self._begun(pool, seen):
                turn.come()
                try:
                    tell = (
                        self._segment(image, turn, seen[image]) if work is None else work.result()
                    )
                except (InputError, ResourceError) as error:
                    left_out.append(image.name)
                    why = seen[image].difference
                    words = one_line(error.message) + (f" ({why})" if why else "")
                    print(printable(f"cellrt: {words}"), file=sys.stderr)
                else:
                    done += 1
                    tell()
        finally:
            pool.shutdown(cancel_futures=True)
            if interrupted(sys.exc_info()[1]) and not self._asked.dry_run:
                ready = f"{done + len(there)} of {counted(len(self._images), 'image')}"
                self._events.note(f"{ready} were done; the same command goes on with the others")
        told = self._tell_all(done, there, left_out)
        if left_out:
            raise InputError(
                f"{len(left_out)} of {counted(len(self._images), 'image')} were left out, "
                f"as told above: {', '.join(left_out[:5])}{', ...' if len(left_out) > 5 else ''}; "
                f"{told}"
            )

    def _tell(self, card: ModelCard) -> None:
        """Say for which images a model was chosen that nobody named."""
        images = "images of one slice" if card.planar else "stacks"
        self._events.note(f"{images}: the model is {card.name}")

    def _tell_all(self, done: int, there: list[str], left_out: list[str]) -> str:
        """Say how many images were done; return the words."""
        from cellrt.cli.reporting import JsonEvents

        words = counted(done, "image") + (" planned" if self._asked.dry_run else " done")
        if there:
            words += f", {len(there)} {'was' if len(there) == 1 else 'were'} there already"
        if isinstance(self._events, JsonEvents):
            self._events.emit("folder", done=done, there=there, left_out=left_out)
        elif not self._asked.quiet and not left_out:
            print(words)
        return words

    def _look(self, image: Path) -> _Seen:
        """Look at all of an image but its voxels, and at results that are there."""
        from cellrt.errors import InputError, ResourceError
        from cellrt.runtime.image.reading import glance
        from cellrt.runtime.preparation import make_decoder
        from cellrt.runtime.results.earlier import difference
        from cellrt.runtime.results.names import result_paths

        asked = self._asked
        try:  # what is wrong with an image is said when it has its turn
            network, options = self._networks.of(str(image))
            volume = glance(str(image), **asked.known)
            found = None
            if not asked.overwrite:
                paths = result_paths(volume, asked.output, asked.extras)
                if not asked.preview:
                    del paths["preview"]
                decoder = make_decoder(network, options)
                found = difference(paths, volume, network.model, options, decoder)
        except (InputError, ResourceError):
            return _Seen()
        return _Seen(volume.is_2d and math.prod(volume.shape) <= SMALL, found)

    def _begun(self, pool: ThreadPoolExecutor, seen: Mapping[Path, _Seen]) -> Iterator[Begun]:
        """Images that are not done, in their order, while the next ones are computed.

        The first one has nothing beside it: with it, what all need is loaded, and compiled on a
        machine's first run.
        """
        from cellrt.errors import one_line

        begun: deque[Begun] = deque()
        first = True
        for number, image in enumerate(self._images, 1):
            if seen[image].difference == "":
                continue
            name = one_line(image.name)
            # The line that names the image is not printed then, and warnings of images look alike.
            turn = Turn(self._events, f"{name}: " if self._asked.quiet else "")
            turn.note(f"image {number} of {len(self._images)}: {name}")
            work = None
            if seen[image].small and not first and not self._asked.dry_run:
                work = pool.submit(self._segment, image, turn, seen[image])
            first = False
            begun.append((image, turn, work))
            if work is None or len(begun) > self._at_once + 1:
                yield begun.popleft()
        yield from begun

    def _segment(self, image: Path, turn: Turn, seen: _Seen) -> Callable[[], None]:
        from cellrt.runtime.plan import BASE_BYTES

        def room(plan: Plan) -> AbstractContextManager[object]:
            return self._room.of(plan.memory_bytes - BASE_BYTES)

        return segment_one(
            str(image),
            self._networks if seen.small else self._alone,
            self._asked,
            self._events,
            progress=turn,
            sizes=self._sizes,
            room=room if seen.small else nullcontext,
        )

    def _common_sizes(self, pool: ThreadPoolExecutor) -> dict[Kind, CellScale]:
        """The cell sizes that images of one slice have in common; see `cell_size.common`."""
        from cellrt.runtime.cell_size.common import common_sizes, spread

        if self._asked.options["diameter"] is not None:
            return {}
        searched = [(self._images[n], Turn(self._events)) for n in spread(len(self._images))]
        if searched:
            shown = counted(len(self._images), "image")
            self._events.note(f"looking at the cells' size in {len(searched)} of {shown}")
        found = []
        for image, turn in searched[:1]:  # with it, what all need is loaded
            turn.come()
            found.append(self._own_diameter(image, turn, {}))
        near = dict(filter(None, found))
        works = [pool.submit(self._own_diameter, *each, near) for each in searched[1:]]
        for (_, turn), work in zip(searched[1:], works, strict=True):
            turn.come()
            found.append(work.result())
        sizes = common_sizes(filter(None, found), len(self._images))
        for (model, shape, _), scale in sizes.items():
            self._events.note(
                f"cell diameter of images of {shape[1]} x {shape[2]} pixels for {model}: "
                f"{scale.diameter_pixels:.3g} pixels, {scale.diameter_origin}"
            )
        return sizes

    def _own_diameter(
        self, image: Path, turn: Turn, near: Mapping[Kind, float]
    ) -> tuple[Kind, float] | None:
        """What one image's cells say, searched from what others of its kind do.

        Nothing where it has more than one slice.
        """
        from cellrt.errors import InputError, ResourceError
        from cellrt.runtime.cell_size.common import kind_of, own_diameter
        from cellrt.runtime.image.reading import read
        from cellrt.runtime.progress import StageClock

        try:  # what is wrong with an image is said when it has its turn
            network, options = self._networks.of(str(image))
            volume = read(str(image), **self._asked.known)
            if not volume.is_2d:
                return None
            kind = kind_of(volume, network)
            diameter = own_diameter(volume, network, options, StageClock(turn), near.get(kind))
        except (InputError, ResourceError):
            return None
        return None if diameter is None else (kind, diameter)
