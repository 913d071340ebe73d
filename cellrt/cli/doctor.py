"""``cellrt doctor``: what is in this machine, which engines load, and what to do about the rest."""

from __future__ import annotations

from typing import Annotated

import typer

from cellrt.wording import counted


def doctor(
    model: Annotated[
        str, typer.Option("--model", help="Model to check the engines with, bundled or a file.")
    ] = "nuclei",
    engine: Annotated[
        str | None,
        typer.Option(help="Check this engine only, and exit with 4 unless it works."),
    ] = None,
    build: Annotated[
        bool, typer.Option("--build", help="Build missing engines to check them: minutes each.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Check this machine: hardware, driver, engines, and whether they compute what they should."""
    import dataclasses
    import json as json_text

    from cellrt._version import __version__
    from cellrt.compiled import keeping
    from cellrt.errors import EngineError
    from cellrt.runtime.decoding.flows.gpu_or_cpu import place_to_decode
    from cellrt.runtime.machine.hardware import this_machine
    from cellrt.runtime.machine.preflight import preflight
    from cellrt.runtime.model.file import open_model
    from cellrt.runtime.network.engines.check import check_builders, check_engines
    from cellrt.runtime.network.engines.ladder import engine_named, in_short, in_vain

    file = open_model(model)
    machine = this_machine()
    findings = preflight()
    checks, builders = check_engines(file, build=build, only=engine), check_builders()
    decoder = place_to_decode()
    _, kernels = keeping()
    working = [check for check in checks if check.works]
    if json:
        found = {
            "cellrt": __version__,
            "machine": dataclasses.asdict(machine),
            "preflight": [dataclasses.asdict(finding) for finding in findings],
            "model": file.card.name,
            "engines": [dataclasses.asdict(check) for check in checks],
            "builders": [dataclasses.asdict(check) for check in builders],
            "decoder": dataclasses.asdict(decoder),
            "kernels": kernels,
            "will_use": working[0].name if working else None,
        }
        print(json_text.dumps(found, indent=1))
    else:
        instructions = ", ".join(machine.instructions) or "instructions not known"
        print(f"cellrt {__version__}, Python {machine.python}, {machine.system}")
        print(f"CPU      {machine.cpu}, {counted(machine.cores, 'core')} usable, {instructions}")
        if machine.cores_source != "the machine":
            print(f"         the number of cores is that of {machine.cores_source}")
        print(
            f"memory   {machine.free_memory_bytes / 1e9:.1f} of "
            f"{machine.memory_limit_bytes / 1e9:.1f} GB free ({machine.memory_source})"
        )
        for gpu in machine.gpus or (machine.gpu_note,):
            print(f"GPU      {gpu}")
        for finding in findings:
            print(f"  {finding.subject:16} {'ok' if finding.fine else '--'} {finding.detail}")
        print(f"engines, best first, checked with model {file.card.name}:")
        for check in checks:
            state = "--" if not check.works else "ok" if check.tried else "??"
            print(f"  {check.name:16} {state} {check.detail}")
            if check.works and check.tried:
                print(
                    f"{'':19}{check.precision}, {check.voxels_per_second / 1e6:.2g} million "
                    f"voxels/s; differs from the model's card by {check.difference:.1g}"
                )
        print("engines for GPUs, which `cellrt build` makes:")
        for check in builders:
            print(f"  {check.name:16} {'ok' if check.works else '--'} {check.detail}")
        print(f"kernels: {kernels}")
        print(f"cells are decoded on: {decoder.device} ({decoder.reason})")
        if working:
            first = "" if working[0].tried else ", and build its engine first"
            name = working[0].name
            asked = "" if engine is None else f" --engine {name}"
            print(f"`cellrt segment{asked}` will use {name}{first}.")
    if working:
        return
    if engine is not None:
        raise in_vain(engine_named(engine), checks[0].detail)
    reasons = in_short([(check.name, check.detail) for check in checks])
    raise EngineError(f"no engine works here ({reasons})")
