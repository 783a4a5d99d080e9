"""Results on disk as they come, so that a long computation that was stopped goes on where it was."""

import json
from typing import Any

from scalevae_jax.runtime import storage
from scalevae_jax.runtime.storage import Path


def read(path: Path) -> list[Any]:
    """The whole lines of a file of JSON lines, none where there is no file. A line torn by a kill, and whatever follows
    it, is dropped."""
    lines = []
    if path.exists():
        for text in path.read_bytes().decode("utf-8", "replace").splitlines(keepends=True):
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
            if not text.endswith("\n"):
                lines.pop()
    return lines


class Journal:
    """A file of JSON lines. The first names what is computed; a file that names something else is begun anew."""

    def __init__(self, path: Path, identity: dict[str, Any], writing: bool = True):
        lines = read(path)
        self.entries: list[Any] = lines[1:] if lines[:1] == [identity] else []
        self._file = None
        if not writing:  # another process does
            return
        storage.write(path, "".join(json.dumps(line) + "\n" for line in (identity, *self.entries)))
        self._file = path.open("a", encoding="utf-8")

    def write(self, entry: Any) -> None:
        """One more entry, on disk when this returns unless the machine itself fails."""
        self.entries.append(entry)
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Leave the file for another time."""
        if self._file is not None:
            self._file.close()
