"""Which documents of a collection are meant: conditions on what their metadata says.

A search with a filter looks at the documents that pass it as if there were no others: they are chosen first, by their
ids, and the engine ranks their passages alone. That costs a look at what is said of every document in the collection
(not at its passages): see docs/explanation/retrieval.md.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from daram.errors import InvalidInput
from daram.knowledge.base import Library, documents_of
from daram.store.documents import Attribute, Only, Scope

Passes = Callable[[Mapping[str, Attribute]], bool]

_ORDER: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
_KINDS: Final = ("eq", "ne", *_ORDER, "in", "nin")
_MOST: Final = 100
_DEPTH: Final = 8
_PAGE: Final = 500


def compiled(given: object, field: str = "filters") -> Passes:
    """The filter as a function of a document's metadata. Raises ``InvalidInput`` that names what is wrong in it.

    ``{"type": "eq" | "ne" | "gt" | "gte" | "lt" | "lte" | "in" | "nin", "key": …, "value": …}``, or
    ``{"type": "and" | "or", "filters": […]}``. What a document does not say equals nothing, and is in nothing.
    """
    return _compiled(given, field, _DEPTH, [_MOST])


async def matching(store: Library, scopes: Sequence[Scope], passes: Passes) -> Only:
    """The ids of the documents in these collections that pass."""
    found: dict[Scope, list[str]] = {}
    for scope in scopes:
        ids = found.setdefault(scope, [])
        ids += [document.id async for document in documents_of(store, scope, _PAGE) if passes(document.metadata)]
    return found


def _compiled(given: object, field: str, depth: int, left: list[int]) -> Passes:
    if not isinstance(given, Mapping):
        raise InvalidInput(field, "must be an object")
    left[0] -= 1
    if left[0] < 0:
        raise InvalidInput(field, f"holds more than {_MOST} conditions")
    kind = given.get("type")
    if kind in ("and", "or"):
        _only_keys(given, {"type", "filters"}, field)
        parts = given.get("filters")
        if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
            raise InvalidInput(f"{field}.filters", "must be an array of at least one filter")
        if not depth:
            raise InvalidInput(field, f"is nested more than {_DEPTH} deep")
        each = [_compiled(part, f"{field}.filters[{i}]", depth - 1, left) for i, part in enumerate(parts)]
        together = all if kind == "and" else any
        return lambda said: together(passes(said) for passes in each)
    if kind not in _KINDS:
        raise InvalidInput(f"{field}.type", f"must be one of {', '.join((*_KINDS, 'and', 'or'))}, not {kind!r:.40}")
    _only_keys(given, {"type", "key", "value"}, field)
    key = given.get("key")
    if not isinstance(key, str) or not key:
        raise InvalidInput(f"{field}.key", "must be a string that is not empty")
    return _comparison(str(kind), key, given.get("value"), f"{field}.value")


def _comparison(kind: str, key: str, value: object, field: str) -> Passes:
    if kind in ("in", "nin"):
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > _MOST:
            raise InvalidInput(field, f"must be an array of at most {_MOST} strings, numbers or truth values")
        wanted = [_plain(one, f"{field}[{i}]") for i, one in enumerate(value)]

        def is_in(said: Mapping[str, Attribute]) -> bool:
            return key in said and any(_equal(said[key], one) for one in wanted)

        return is_in if kind == "in" else lambda said: not is_in(said)
    one = _plain(value, field)
    if kind in ("eq", "ne"):
        is_equal: Passes = lambda said: key in said and _equal(said[key], one)  # noqa: E731
        return is_equal if kind == "eq" else lambda said: not is_equal(said)
    if isinstance(one, bool):
        raise InvalidInput(field, "must be a number or a string: truth values have no order")
    compare = _ORDER[kind]

    def in_order(said: Mapping[str, Attribute]) -> bool:
        there = said.get(key)
        if there is None or isinstance(there, bool) or isinstance(there, str) != isinstance(one, str):
            return False
        return compare(there, one)

    return in_order


def _plain(value: object, field: str) -> Attribute:
    if not isinstance(value, str | int | float):
        raise InvalidInput(field, "must be a string, a number, true or false")
    return value


def _equal(a: Attribute, b: Attribute) -> bool:
    """1 and 1.0 are one number; neither is ``true``."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _only_keys(given: Mapping[Any, Any], known: set[str], field: str) -> None:
    if unknown := sorted(str(key) for key in given.keys() - known):
        raise InvalidInput(f"{field}.{unknown[0]:.64}", "is not known here")
