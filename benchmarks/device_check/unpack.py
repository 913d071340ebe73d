"""Unpack the folder this file lies in, as `prepare.py` filled it: ``python3 unpack.py SITE``.

SITE is then named in PYTHONPATH. Every part is held against its checksum first.
"""

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path


def main() -> None:
    here, site = Path(__file__).resolve().parent, Path(sys.argv[1])
    content = b""
    for name, expected in json.loads((here / "manifest.json").read_text())["sha256"].items():
        part = (here / name).read_bytes()
        if hashlib.sha256(part).hexdigest() != expected:
            sys.exit(f"{here / name} is not what was packed; transfer it again")
        content += part
    site.mkdir(parents=True, exist_ok=True)
    # Pythons before 3.11.4 and 3.10.12 know no filters; what was packed has passed its checksum.
    safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:xz") as archive:
        archive.extractall(site, **safe)


if __name__ == "__main__":
    main()
