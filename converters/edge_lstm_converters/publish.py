"""A folder gets all files of a conversion, or none, and stays as it was when anything fails."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from edge_lstm.errors import OutputError
from edge_lstm.files import make_folder

Publish = Callable[[dict[str, Path]], dict[str, Path]]
"""From drafts, files or folders, to where they are after the move."""


@contextmanager
def all_or_nothing(folder: Path) -> Iterator[tuple[Path, Publish]]:
    """Yield a draft folder, and a function that moves its files to ``folder``.

    Whatever goes wrong, an interruption too, ``folder`` is left as it was found.
    """
    whole = folder.resolve()
    made = [path for path in (whole, *whole.parents) if not path.exists()]
    draft: Path | None = None
    try:
        make_folder(folder)
        draft = Path(tempfile.mkdtemp(prefix=".edge-lstm-", dir=folder))
        yield draft, lambda files: _publish(files, folder)
        made = []
    except OSError as error:
        text = str(error)
        if isinstance(error, OutputError) and str(draft) not in text:
            raise
        # A draft is nobody's file: the message names the folder instead.
        reason = text.rpartition("written: ")[2] if isinstance(error, OutputError) else ""
        reason = reason or (error.strerror or text).lower()
        raise OutputError(f"{folder}: cannot be written: {reason}") from error
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


def files_of(path: Path) -> list[Path]:
    """Return a file, or all files of a folder, in order."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def file_bytes(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in files_of(path))


def _publish(drafts: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Move every draft into ``folder``, or none; return where they are.

    A folder's files are moved one by one: what its user has put beside them stays.
    """
    moves = [
        (file, folder / file.relative_to(draft.parent))
        for draft in drafts.values()
        for file in files_of(draft)
    ]
    for _, path in moves:
        if path.is_dir():
            raise OutputError(f"{path}: cannot be written: is a folder")
    undo: list[Callable[[], object]] = []
    try:
        for draft, path in moves:
            for missing in [p for p in reversed(path.parents) if not p.exists()]:
                undo.append(missing.rmdir)
                make_folder(missing)
            kept = draft.with_name(draft.name + ".before")
            if path.exists():
                shutil.copy2(path, kept)
                undo.append(partial(kept.replace, path))
            else:
                undo.append(partial(path.unlink, missing_ok=True))
            draft.replace(path)
    except BaseException:
        for step in reversed(undo):
            with contextlib.suppress(OSError):
                step()
        raise
    return {kind: folder / draft.name for kind, draft in drafts.items()}
