"""What Office's files are: zip archives, measured before anything is unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

from daram.errors import DocumentError, DocumentTooLarge
from daram.text.load import LoadLimits

_MOST_PARTS: Final = 100_000
_OLE: Final = bytes.fromhex("d0cf11e0a1b11ae1")  # of old documents, and around encrypted ones
_READ_WHOLE: Final = (".xml", ".rels")


def check(path: Path, name: str, limits: LoadLimits, *, streamed: tuple[str, ...] = ()) -> None:
    """Raise where the archive is broken, encrypted, or unpacks to more than the limits.

    ``streamed``: the beginnings of those parts that their reader takes piece by piece. The sizes are those that the
    archive's directory states; ``zipfile`` reads no more of a part than that.
    """
    with path.open("rb") as file:
        if file.read(len(_OLE)) == _OLE:
            raise DocumentError(name, "is encrypted, or of an Office before 2007; save it anew, without a password")
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DocumentError(name, "is damaged, or no file of this kind (it is not a zip archive)") from error
    if len(parts) > _MOST_PARTS or sum(part.file_size for part in parts) > limits.unpacked:
        raise DocumentTooLarge(name, f"it unpacks to more than {limits.unpacked:,} bytes or {_MOST_PARTS:,} parts")
    for part in parts:
        if part.flag_bits & 1:
            raise DocumentError(name, "is encrypted; save it without a password")
        read = part.filename.endswith(_READ_WHOLE) and not part.filename.startswith(streamed or ("\x00",))
        if read and part.file_size > limits.whole:
            raise DocumentTooLarge(name, f"{part.filename} unpacks to {part.file_size:,} bytes")
