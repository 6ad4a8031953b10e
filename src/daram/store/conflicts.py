"""What engines say when they refuse: the same words everywhere."""

from __future__ import annotations

from daram.errors import Conflict


def exists(id: str) -> Conflict:
    """``create`` with an id that is in use."""
    return Conflict(f"conversation {id!r} exists already; get it, or use another id")


def not_as_expected(id: str, have: int | str, expect: int | str) -> Conflict:
    """``expect`` names another version or etag than the conversation has."""
    kind = "version" if isinstance(expect, int) else "etag"
    return Conflict(f"conversation {id!r} has {kind} {have!r}, not {expect!r}; read it again and repeat the change")


def id_is_taken(message_id: str) -> Conflict:
    """The id of a message stands for something else already: other content, another place, half of a batch."""
    return Conflict(
        f"message {message_id!r} is in this conversation already, with other content or in another place; "
        "a retry must repeat the batch as it was, a new message needs a new id"
    )


def answer_id_is_taken(answer_id: str) -> Conflict:
    """``answer_id`` is the id of a message or of another answer."""
    return Conflict(f"answer {answer_id!r} is in this conversation already; use a new id")


def record_not_as_expected(namespace: str, key: str) -> Conflict:
    """``expect`` names another etag than the record has."""
    return Conflict(f"record {key!r} in {namespace!r} is not as expected; read it again and repeat the change")


def not_as_loaded(id: str, have: str | None, expect: str | None) -> Conflict:
    """A load finds another conversation in its place than its caller saw there."""
    if expect is None:
        return exists(id)
    return Conflict(f"conversation {id!r} {'is gone' if have is None else 'was changed'}; read it again and repeat")


def document_not_as_expected(id: str) -> Conflict:
    """``expect`` names another etag than the document has."""
    return Conflict(f"document {id!r} is not as expected; read it again and repeat the change")


def revision_is_published(id: str, revision: str) -> Conflict:
    """Staging under the revision that is found already."""
    return Conflict(f"document {id!r} has published the revision {revision!r}; stage its passages under a new one")


def passages_are_missing(id: str, wanted: int, there: int) -> Conflict:
    """A document is to be loaded whose passages were not staged, or only in part."""
    return Conflict(f"document {id!r} has {wanted:,} passages, but {there:,} were staged; stage them all again")
