"""Put a trained adapter into the package: its GGUF file, its manifest and its model card.

    python packaging/adapter.py FOLDER ADAPTER.gguf MEASURED.md [EARLIER-MANIFEST...]

MEASURED.md is what was measured of it, and takes the place of the card's last section, which says
that nothing was. Where the training went on from another one, the manifests of those before it are
kept beside its own, oldest first.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

PACKAGED = Path(__file__).parent.parent / "src" / "ringfence" / "adapters" / "packaged"
LAST = "## What this does not say"
# Twelve megabytes, the most that an adapter may add to the package.
MOST = 12_000_000


def main() -> None:
    """Write the three files."""
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    folder, weights, measured, *earlier = map(Path, sys.argv[1:])
    card, found, _ = (folder / "README.md").read_text("utf-8").partition(LAST)
    if not found:
        sys.exit(f"{folder}/README.md: has no section {LAST!r}; is it of ringfence train?")
    if weights.stat().st_size > MOST:
        sys.exit(f"{weights}: {weights.stat().st_size:,} bytes, at most {MOST:,}")
    PACKAGED.mkdir(exist_ok=True)
    # Read before anything is written: the packaged manifest may be among them.
    before = [manifest.read_bytes() for manifest in earlier]
    for old in PACKAGED.glob("manifest-*.json"):
        old.unlink()
    for number, manifest in enumerate(before, 1):
        (PACKAGED / f"manifest-{number}.json").write_bytes(manifest)
    shutil.copyfile(weights, PACKAGED / "adapter.gguf")
    shutil.copyfile(folder / "manifest.json", PACKAGED / "manifest.json")
    (PACKAGED / "README.md").write_text(card + measured.read_text("utf-8"), "utf-8")
    print(f"wrote {PACKAGED}: {weights.stat().st_size / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
