"""Which releases of a framework an adapter works with: said in one line where it is imported, not by what breaks."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from daram.errors import MissingExtra, UnsupportedVersion


def require(what: str, module: str, distribution: str, extra: str, *, oldest: str, below: str) -> None:
    """See that ``oldest <= release < below`` of a framework is installed: those that ``make adapters-matrix`` tries.

    ``what``: the adapter, as the error names it. Raises ``MissingExtra`` where there is none, ``UnsupportedVersion``.
    """
    try:
        found = version(distribution) if find_spec(module) is not None else None
    except (PackageNotFoundError, ModuleNotFoundError):  # a part of a package whose whole is not there
        found = None
    if found is None:
        raise MissingExtra(what, extra)
    if not _release(oldest) <= _release(found) < _release(below):
        raise UnsupportedVersion(what, distribution, found, f">={oldest},<{below}", extra)


def _release(text: str) -> tuple[int, ...]:
    """The numbers in front; what is behind them (rc1, .dev0, +local) belongs to that release. ``5.0`` is ``5``."""
    numbers = [int(number) for number in re.match(r"\d+(\.\d+)*", text)[0].split(".")]  # type: ignore[index]  # every version begins so
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
