"""What tells files of weights from others of the same name, without reading them."""

from __future__ import annotations

import hashlib
from pathlib import Path


def stamp(*paths: Path | None) -> str:
    """Digest of where files lie, how large they are and when they were changed; 32 hex digits.

    Gigabytes are not read for it: a file that was written again counts as another.

    Args:
        *paths: files, or folders, which count with all files in them; None is left out.

    Raises:
        OSError: nothing is there.
    """
    digest = hashlib.sha256()
    for path in paths:
        if path is None:
            continue
        whole = path.resolve()
        files = sorted(f for f in whole.rglob("*") if f.is_file()) if whole.is_dir() else [whole]
        for file in files:
            told = file.stat()
            digest.update(f"{file}\0{told.st_size}\0{told.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
