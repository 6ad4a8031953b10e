"""Search: the terms of a message as they are stored, and queries on them.

A message's terms (``daram.text.analyzer``) are kept in a ``tsvector`` without positions. Every term begins with four
characters made from its owner's key, so that the entries of the GIN index are one owner's alone: a search, also one by
the beginning of a word, costs nothing by what others wrote. (Two owners may share the four characters: whose a message
is, its conversation tells.) One more term stands for the conversation.

Without positions an index cannot tell that two character pairs follow one another: messages that have all pairs of a
CJK word are looked at again here, by the analyzer itself, which is the reference.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from functools import lru_cache
from typing import Final

from daram import ids
from daram.store.primitives import Ref
from daram.text.analyzer import Query, Word, index_terms, loose_terms, matches, parse_query

# PostgreSQL's bound for one tsvector is 2**20 - 1 bytes: a message with more terms is found by the first of them.
MAX_BYTES: Final = 1_000_000
# Of more messages than that, a word says little: see search_any.
COMMON: Final = 2_000


@lru_cache(maxsize=4096)
def _owner(owner: str) -> str:
    return urlsafe_b64encode(ids.owner_key(owner)[:3]).decode()


# "§" keeps it out of reach of what users write: the analyzer makes no term that has it.
def _conversation(ref: Ref) -> str:
    return f"{_owner(ref.owner)}§{urlsafe_b64encode(ref.key[:9]).decode()}"


def terms(ref: Ref, text: str) -> str | None:
    """The terms of one message, each once, separated by spaces; None where there is nothing to find."""
    found = dict.fromkeys(index_terms(text).split(" ")) if text else {}
    found.pop("", None)
    if not found:
        return None
    between = " " + _owner(ref.owner)
    joined = _conversation(ref) + between + between.join(found)
    if len(joined) > MAX_BYTES // 4 and len(joined.encode()) > MAX_BYTES:
        joined = joined.encode()[:MAX_BYTES].decode(errors="ignore").rpartition(" ")[0]
    return joined


class Search:
    """A query in one owner's messages, or in one conversation (``within``)."""

    def __init__(self, owner: str, query: str, within: Ref | None) -> None:
        self._owner = _owner(owner)
        self._fence = "" if within is None else f"{quoted(_conversation(within))} & "
        self.parsed: Query = parse_query(query)
        self.checked = any(len(word.terms) > 1 for word in self.parsed.words)

    def all_words(self) -> str:
        """A tsquery for messages that have every word."""
        return self._fence + " & ".join(self._word(word) for word in self.parsed.words)

    def any_word(self) -> list[str]:
        """A tsquery for each of the words and character pairs of which any will do."""
        return [self._fence + self._term(term, prefix) for term, prefix in loose_terms(self.parsed)]

    def has_all_words(self, text: str) -> bool:
        """Whether a message that the index gave for ``all_words`` has them indeed."""
        return not self.checked or matches(self.parsed, index_terms(text).split(" "))

    def _word(self, word: Word) -> str:
        return " & ".join(self._term(term, word.kind == "prefix") for term in word.terms)

    def _term(self, term: str, prefix: bool) -> str:
        return quoted(self._owner + term) + (":*" if prefix else "")


def quoted(term: str) -> str:
    """A lexeme of a tsquery's text: quotation marks and backslashes are written twice in it."""
    return "'" + term.replace("\\", "\\\\").replace("'", "''") + "'"
