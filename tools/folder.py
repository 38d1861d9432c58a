"""Files of a folder by the names a model gives; a name never leads outside."""

import os
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

_LISTED = 30
_SEARCHED = 5_000


def find_file(folder: Path, name: str, suffixes: Collection[str]) -> Path:
    """Return the file `name` of `folder`; a name without a folder may also be that of one file further down.

    ValueError says what is wrong with the name, or lists what is there.
    """
    relative = _checked(name)
    root = folder.resolve()
    try:
        path = (root / relative).resolve()
    except (OSError, RuntimeError):  # a symbolic link that leads to itself
        raise ValueError(f"{name!r} cannot be opened") from None
    if not path.is_relative_to(root):
        raise ValueError(f"{name!r} leads outside the folder")
    if path.is_file():
        return path
    names = list(islice(_names(root, suffixes), _SEARCHED))
    same = [other for other in names if PurePosixPath(other).name == name]
    if len(same) == 1:
        return root / same[0]
    raise ValueError(
        f"There is no {name!r}. {_listing(names)}" if not same else f"{name!r} could be {', '.join(same)}."
    )


def _checked(name: str) -> PurePosixPath:
    relative = PurePosixPath(name)
    if not name.isprintable() or "\\" in name or relative.is_absolute() or not relative.parts:
        raise ValueError(f"{name[:100]!r} is not a file name; give one such as 'notes.md' or 'folder/notes.md'")
    if any(part.startswith(".") for part in relative.parts):
        raise ValueError(f"{name[:100]!r} is not allowed: no part of a name may begin with a dot")
    if len(relative.parts) > 20 or any(len(part.encode()) > 255 for part in relative.parts):
        raise ValueError("the file name is too long")
    return relative


def _names(root: Path, suffixes: Collection[str]) -> Iterator[str]:
    """Walk the readable files, hidden ones and links to folders left out."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        for file in sorted(files):
            path = Path(folder, file)
            if not file.startswith(".") and path.suffix.lower() in suffixes and path.resolve().is_relative_to(root):
                yield path.relative_to(root).as_posix()


def _listing(names: list[str]) -> str:
    if not names:
        return "The folder holds none."
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"There are: {', '.join(names[:_LISTED])}{more}."
