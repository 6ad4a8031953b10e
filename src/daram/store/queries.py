"""SQL and Lua live in files beside their engine; this reads them."""

from __future__ import annotations

import re
from hashlib import sha256
from importlib.resources import files

import msgspec

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_queries(package: str, file: str = "queries.sql") -> dict[str, str]:
    """The named queries of a file: each begins with a line ``-- name: this_name`` and ends at the next."""
    parts = _NAME.split(files(package).joinpath(file).read_text("utf-8"))
    return {name: text.strip().rstrip(";") for name, text in zip(parts[1::2], parts[2::2], strict=True)}


class Migration(msgspec.Struct, frozen=True):
    """One numbered step of a schema; ``checksum`` is the SHA-256 of its text."""

    number: int
    name: str
    sql: str
    checksum: str


def load_migrations(package: str) -> list[Migration]:
    """The files ``NNNN_name.sql`` of a package, in order and without a gap."""
    found = []
    for entry in sorted(files(package).iterdir(), key=lambda e: e.name):
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", entry.name):
            sql = entry.read_text("utf-8")
            found.append(Migration(int(match[1]), match[2], sql, sha256(sql.encode()).hexdigest()))
    if [m.number for m in found] != list(range(1, len(found) + 1)):
        raise RuntimeError(f"the migrations in {package} are not numbered 1 to {len(found)}")
    return found
