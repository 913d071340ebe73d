"""Pack what a check on a bare GPU machine without network has to bring along.

Such a machine (x86-64, one H100 or H200, CUDA 13, Python 3.12) has PyTorch, CUDA's libraries and
what comes with them, but not what cellrt is measured with: OpenVINO, ONNX Runtime for CUDA,
pydantic, MONAI, Cellpose's dynamics, and a numpy with which numba-cuda compiles. Files reach it in
transfers of limited size, so what such a check never loads stays behind: other devices' plugins,
foreign frontends, tests, headers, and GPU code for other cards.

    python benchmarks/device_check/prepare.py FOLDER

downloads the wheels with pip and fills two folders, each of which can travel alone:

``FOLDER/base``
    everything but ONNX Runtime (34 MB);
``FOLDER/ort``
    onnxruntime-gpu without the GPU code of transformers (20 MB; with it, ``--whole``, 59 MB).

A folder holds an archive (in parts, where it is larger than ``--part-mb``), ``manifest.json`` and
``unpack.py``. There, with nothing but Python's standard library::

    python3 FOLDER/base/unpack.py /tmp/site && python3 FOLDER/ort/unpack.py /tmp/site
    export PYTHONPATH=/tmp/site

GPU code
--------
A library of CUDA kernels holds them once for each kind of card, as containers of entries, each a
header and a payload that mostly is compressed. Of each container the entry that the card would
load is kept. Of the others the payload is overwritten with zeros, which pack to nothing: nothing
moves, and a driver, which chooses by the headers, has no reason to read them.

Kernels of transformers are the bulk even so. Such an entry is also labelled as being for another
kind of card: to the driver it is code that this card has none of, as the library has for older
cards by itself. A call of it fails for want of a kernel image; loading the library does not.

Needs pip, and zstandard to read which kernels an entry holds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

MB = 1_000_000
BASE = [
    "numpy==2.4.6",  # the newest with which numba-cuda compiles
    "numba-cuda==0.30.4",
    "openvino==2026.4.1",
    "pydantic==2.14.3",
    "pydantic-core==2.50.4",
    "annotated-types==0.8.0",
    "typing-inspection==0.4.5",
    "typing-extensions==4.16.0",
    "monai==1.6.1",
    "cellpose==4.2.1.1",
    "fastremap==1.21.0",
    "fill-voids==2.1.2",
    "edt==3.1.2",
    "platformdirs==4.14.8",
]
ORT = ["onnxruntime-gpu==1.31.1"]
PLATFORMS = [
    "manylinux_2_28",
    "manylinux_2_27",
    "manylinux_2_24",
    "manylinux_2_17",
    "manylinux2014",
]
LEFT_OUT = [
    "*.a",
    "*.pyi",
    "*/licenses/*",
    "numpy/*.h",
    "numpy/*/tests/*",
    "cellpose/gui/*",
    "openvino/cmake/*",
    "openvino/include/*",
    "openvino/tools/*",
    "openvino/torch/*",
    "openvino/libs/cache.json",  # of the GPU plugin
    "openvino/libs/*_auto*_plugin.so",
    "openvino/libs/*_hetero_plugin.so",
    "openvino/libs/*_gpu_plugin.so",
    "openvino/libs/*_npu_plugin.so",
    "openvino/libs/libopenvino_c.so*",
    *(
        f"openvino/{place}"
        for name in ("gguf", "jax", "paddle", "pytorch", "tensorflow", "tensorflow_lite")
        for place in (f"libs/libopenvino_{name}_frontend.so*", f"frontend/{name}/*")
    ),
    "onnxruntime/quantization/*",
    "onnxruntime/tools/*",
    "onnxruntime/transformers/*",
    "onnxruntime/ThirdPartyNotices.txt",
    "onnxruntime/capi/libonnxruntime.so*",  # for programs in C; Python's module holds it as well
    "onnxruntime/capi/libonnxruntime_providers_tensorrt.so",
]

# Parts of (mangled) names of kernels that no convolutional network calls.
OF_TRANSFORMERS = (
    b"cutlass",
    b"flash_fwd",
    b"kernel_mha",
    b"attention_kernel",
    b"masked_multihead",
    b"3llm7kernels",
    b"9fused_moe",
    b"9deep_gemm",
    b"SaveNoSpeechProbs",
)
SECTIONS = (b".nv_fatbin", b"__nv_relfatbin")
CONTAINER = struct.Struct("<IHHQ")  # magic, version, bytes of this header, bytes of all entries
MAGIC = 0xBA55ED50
ENTRY = struct.Struct("<HHIQI8xI")  # kind, version, bytes: header, payload, compressed; SM
SM_AT = 28
PTX, CUBIN = 1, 2
NO_SM_90 = 75  # a kind of card whose code one of SM 9.0 cannot run


@dataclass(frozen=True)
class Entry:
    """One kind of card's code in a container; places and lengths in bytes, in the file."""

    kind: int
    sm: int
    header: int
    payload: int
    length: int
    compressed: int


def containers(data: bytes | bytearray, start: int, stop: int) -> Iterator[list[Entry]]:
    """Entries of each container between two places.

    Raises
    ------
    ValueError
        Where something else lies there.
    """
    while start < stop:
        if not any(data[start : start + 8]):
            start += 8
            continue
        magic, _, header, length = CONTAINER.unpack_from(data, start)
        if magic != MAGIC or start + header + length > stop:
            raise ValueError(f"no container of GPU code at byte {start}")
        at, start = start + header, start + header + length
        entries = []
        while at < start:
            kind, _, header, length, compressed, sm = ENTRY.unpack_from(data, at)
            entries.append(Entry(kind, sm, at, at + header, length, compressed))
            at += header + length
        if at != start:
            raise ValueError(f"entries of a container of GPU code end at byte {at}, not {start}")
        yield entries
        start += -start % 8  # where the next may begin


def loaded(entries: list[Entry], sm: int) -> Entry | None:
    """The entry that a card loads: machine code of its generation, else PTX that it can compile."""
    fits = [entry for entry in entries if entry.sm <= sm]
    code = [e for e in fits if e.kind == CUBIN and e.sm // 10 == sm // 10]
    return max(code or [e for e in fits if e.kind == PTX], key=lambda e: e.sm, default=None)


def keep_one_card(data: bytearray, sm: int, unused: tuple[bytes, ...] = ()) -> tuple[int, int]:
    """Overwrite, in a shared library of CUDA kernels, the code that one kind of card never runs.

    Parameters
    ----------
    data
        A 64-bit ELF file; changed in place, its length and everything but GPU code kept.
    sm
        The card: 90 for SM 9.0.
    unused
        Parts of names of kernels that nobody will call: an entry with one of them goes as well.

    Returns
    -------
    kept, removed
        Bytes of payload.
    """
    kept = removed = 0
    for start, stop in gpu_sections(data):
        for entries in containers(data, start, stop):
            used = loaded(entries, sm)
            if used is not None and unused and _holds(data, used, unused):
                struct.pack_into("<I", data, used.header + SM_AT, NO_SM_90)
                used = None
            for entry in entries:
                if entry is used:
                    kept += entry.length
                else:
                    data[entry.payload : entry.payload + entry.length] = bytes(entry.length)
                    removed += entry.length
    return kept, removed


def gpu_sections(data: bytes | bytearray) -> list[tuple[int, int]]:
    """Where GPU code begins and ends in an ELF file (64 bit, little endian)."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count, names_at = struct.unpack_from("<HHH", data, 58)
    found = [struct.unpack_from("<I20xQQ", data, table + i * size) for i in range(count)]
    names = found[names_at][1]
    return [
        (begin, begin + length)
        for name, begin, length in found
        if data[names + name : data.index(0, names + name)] in SECTIONS
    ]


def _holds(data: bytearray, entry: Entry, names: tuple[bytes, ...]) -> bool:
    code = bytes(data[entry.payload : entry.payload + (entry.compressed or entry.length)])
    if entry.compressed:
        import zstandard

        code = zstandard.ZstdDecompressor().decompressobj().decompress(code)
    return any(name in code for name in names)


def download(packages: list[str], folder: Path) -> list[Path]:
    """Wheels for Python 3.12 on x86-64, by pip, without what they ask for."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    for name in PLATFORMS:
        command += ["--platform", f"{name}_x86_64"]
    subprocess.run([*command, "--dest", str(folder), *packages], check=True)
    return sorted(folder.glob("*.whl"))


def files_of(wheel: Path, whole: bool) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of what travels of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if ".data/" in name:
                raise ValueError(f"{wheel.name} holds {name}, which unpacking would misplace")
            if name.endswith("/") or any(fnmatch(name, pattern) for pattern in LEFT_OUT):
                continue
            data = archive.read(name)
            if name.endswith("libonnxruntime_providers_cuda.so"):
                library = bytearray(data)
                kept, removed = keep_one_card(library, 90, () if whole else OF_TRANSFORMERS)
                print(f"{name}: GPU code {kept / MB:.1f} MB kept, {removed / MB:.1f} MB removed")
                data = bytes(library)
            yield name, data


def pack(wheels: list[Path], folder: Path, part_bytes: int, whole: bool) -> None:
    """Fill a folder that unpacks itself; `whole` keeps the GPU code of transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("site.tar.xz*"):
        old.unlink()
    packed = BytesIO()
    filters = [
        {"id": lzma.FILTER_X86},  # most of it is machine code
        {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME},
    ]
    with (
        lzma.open(packed, "wb", filters=filters) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for wheel in wheels:
            for name, data in files_of(wheel, whole):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, BytesIO(data))
    content = packed.getvalue()
    parts = {}
    for i, start in enumerate(range(0, len(content), part_bytes)):
        name = f"site.tar.xz.{i}"
        (folder / name).write_bytes(content[start : start + part_bytes])
        parts[name] = hashlib.sha256(content[start : start + part_bytes]).hexdigest()
    manifest = {"wheels": [wheel.name for wheel in wheels], "sha256": parts}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    shutil.copy(Path(__file__).with_name("unpack.py"), folder / "unpack.py")
    print(f"{folder}: {len(content) / MB:.1f} MB in {len(parts)} part(s)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Pack what a check on a bare GPU machine without network brings along."
    )
    parser.add_argument("folder", type=Path, help="filled with base/ and ort/")
    parser.add_argument("--part-mb", type=int, default=45, help="largest file (45)")
    parser.add_argument("--whole", action="store_true", help="keep the kernels of transformers")
    parser.add_argument("--only", choices=["base", "ort"], help="make one of both")
    options = parser.parse_args()
    if options.only != "base" and not options.whole and find_spec("zstandard") is None:
        parser.error("zstandard is not installed; run `pip install zstandard`, or add --whole")
    for name, packages in {"base": BASE, "ort": ORT}.items():
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as wheels:
                pack(
                    download(packages, Path(wheels)),
                    options.folder / name,
                    options.part_mb * MB,
                    options.whole,
                )


if __name__ == "__main__":
    main()
