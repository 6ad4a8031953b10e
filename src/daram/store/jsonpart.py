"""Parts that hold any value of JSON's, also what a store does not take as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from daram.errors import InvalidInput
from daram.model import Part
from daram.store import validate

_TEXT: Final = "$json"


def json_part(type: str, value: dict[str, Any], what: str, *, default: Callable[[Any], Any] | None = None) -> Part:
    """A part of that type with the value; tuples become lists. ``default``: as of ``json.dumps``.

    What no store takes in a part's data (lone surrogates, whole numbers of more than 64 bits, more than 32 levels) goes
    in as text. ``what`` names the argument where this raises ``InvalidInput``: JSON cannot say it.
    """
    try:
        text = json.dumps(value, default=default, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(what, f"has what JSON cannot say: {error}") from None
    part = Part(type=type, data=json.loads(text))
    if _TEXT not in part.data:
        try:
            validate.parts((part,), what)
            return part
        except InvalidInput:
            pass
    return Part(type=type, data={_TEXT: text})


def json_of(part: Part) -> dict[str, Any]:
    """The value of a part that ``json_part`` made."""
    text = part.data.get(_TEXT)
    found: dict[str, Any] = part.data if text is None else json.loads(text)
    return found
