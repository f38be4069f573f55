"""What the file descriptors of a process point at."""

from __future__ import annotations

from pathlib import Path


def open_files(process: Path = Path("/proc/self")) -> list[str]:
    """Names of files, sockets and the like; a SQLite connection shows as its database file.

    None if the process has ended or is not ours to look into.
    """
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return []
    targets = [target_of(descriptor) for descriptor in descriptors]
    return [target for target in targets if target is not None]


def target_of(descriptor: Path) -> str | None:
    try:
        return str(descriptor.readlink())
    except OSError:
        return None  # closed meanwhile, as the one is that listed the others
