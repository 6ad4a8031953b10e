"""Search terms for every script, the same for every engine: what is written into an index and what is asked of it.

The engines' own tokenizers cannot find Korean, Japanese or Chinese words (they split at spaces, or ask for three
characters), so the text is made into terms here and the index only splits at spaces (SQLite FTS5 ``tokenize='ascii'``,
PostgreSQL ``'simple'``):

* scripts written without spaces between all words (Hangul, Han, Kana, Thai, Lao, Khmer, Burmese) become overlapping
  character pairs, and the last character of a run by itself, so that every substring of a run can be found;
* all other words stay whole and are found by their beginnings; accents, vowel points and width variants are folded;
* identifiers are found by their parts too: ``foo_bar`` is two words, ``camelCase`` also the word ``case``;
* each emoji is a term.

Terms consist of letters, digits, marks and emoji only, so they need no escaping in any index. Nothing here raises,
whatever the text holds (NUL, lone surrogates, bidirectional controls).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import islice
from operator import add
from typing import Final, Literal, NamedTuple, TypeVar

T = TypeVar("T")

MAX_TERM: Final = 64
"""Longer words are cut to this many characters, in the index and in queries alike."""
MAX_PARTS: Final = 8
"""So many parts of one identifier are terms besides the whole."""
MAX_WORDS: Final = 64
MAX_LOOSE_TERMS: Final = 192
"""A query keeps at most this many words, and asks for at most this many terms of which any may match: those of its
beginning and its end, where a person asks what he wants to know about the text that he pasted between."""

# Han, Kana, Bopomofo, Hangul and its Jamo; then the scripts of South-East Asia that put no space between words.
_CJK_RANGES: Final = (
    "\u1100-\u11ff\u3005-\u3007\u3021-\u3029\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb"
    "\uf900-\ufaff\U00020000-\U000323af"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1050-\u108f\u1780-\u17d3"
)
# Marks that belong inside a word once accents and vowel points are folded: the vowel signs of the Indian scripts.
_MARKS: Final = "\u0900-\u0963\u0966-\u0dff\u0f71-\u0f84"
_EMOJI: Final = "\u2600-\u27bf\U0001f000-\U0001f1e5\U0001f300-\U0001f3fa\U0001f400-\U0001faff"
_LETTERS: Final = rf"[^\W_{_CJK_RANGES}]"  # a negated class: word characters but no underscore and no CJK

_RUN: Final = re.compile(
    rf"[{_CJK_RANGES}]+|{_LETTERS}+(?:[{_MARKS}]+{_LETTERS}*)*|[\U0001f1e6-\U0001f1ff]{{2}}|[{_EMOJI}]"
)
_CJK: Final = re.compile(f"[{_CJK_RANGES}]")
_ASCII_WORD: Final = re.compile("[a-z0-9]+")

_FOLDABLE: Final = re.compile(
    "[\u00ad\u00c0-\u024f\u0300-\u052f\u0590-\u06ff\u1ab0-\u1aff\u1dc0-\u1fff\u200c-\u200f\u202a-\u202e\u2060-\u206f"
    "\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\ufeff]"
)
_FOLDED_AWAY: Final = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f"  # accents
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"  # points of Hebrew
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"  # points of Arabic
    "\u00ad\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufeff]"  # soft hyphen, joiners, directions
)
# Letters that no decomposition turns into their base letter, and the Arabic letters that people type for one another.
_BASE_LETTERS: Final = str.maketrans(
    {
        "ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th",
        "Ø": "O", "Ł": "L", "Đ": "D", "Ð": "D", "Ħ": "H", "Ŧ": "T", "Æ": "AE", "Œ": "OE", "Þ": "TH",
        "ى": "ي", "ی": "ي", "ک": "ك", "ة": "ه",
    }
)  # fmt: skip

_CAMEL: Final = re.compile("[a-z][A-Z]")
# Bounded, so that base64 and minified text are not taken apart letter by letter.
_IDENTIFIER: Final = re.compile(rf"(?<!{_LETTERS})[A-Za-z0-9]{{3,64}}(?!{_LETTERS}|[{_MARKS}])")
_HUMP: Final = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Word(NamedTuple):
    """One word of a query.

    ``phrase``: a run of character pairs that must follow one another; ``prefix``: one term, found by its beginning;
    ``exact``: one term as it is (single letters and digits, emoji).
    """

    terms: tuple[str, ...]
    kind: Literal["phrase", "prefix", "exact"]


class Query(NamedTuple):
    """A query as an engine needs it. ``words`` is empty where the text holds nothing that can be searched."""

    words: tuple[Word, ...]

    @property
    def terms(self) -> tuple[str, ...]:
        """All terms, each once, in order."""
        return tuple(dict.fromkeys(term for word in self.words for term in word.terms))


def index_terms(text: str) -> str:
    """The terms of ``text`` in its order, separated by single spaces; empty where nothing can be searched."""
    text = _plain(text)
    if _CAMEL.search(text):
        text = _IDENTIFIER.sub(_with_parts, text)
    return " ".join(_terms(_runs(text)))


def parse_query(query: str) -> Query:
    """The words of ``query``, each once, at most ``MAX_WORDS``."""
    words = dict.fromkeys(word for run in _runs(_plain(query)) for word in _words(run))
    return Query(tuple(_ends(list(words), MAX_WORDS)))


def fts5_match(query: str, *, all_words: bool = True, scope: Sequence[str] = ()) -> str | None:
    """A MATCH expression for an FTS5 table that holds ``index_terms``, or None where the query has no searchable term.

    ``all_words``: every word must be there, a run of CJK characters as a substring, other words as beginnings (a search
    field). Else any word or character pair may be there (a question in natural language, ranked by ``bm25``): so that
    다람쥐는 finds 다람쥐를, and "squirrels" finds "squirrel".

    ``scope``: terms that must be there as well, such as the keys of owner and conversation.
    """
    parsed = parse_query(query)
    if not parsed.words:
        return None
    if all_words:
        body = " AND ".join(_quote(word.terms) + ("*" if word.kind == "prefix" else "") for word in parsed.words)
    else:
        body = fts5_terms(loose_terms(parsed))
    fences = [_quote((term,)) for term in scope]
    return " AND ".join([*fences, f"({body})"]) if fences else body


def fts5_terms(terms: Iterable[tuple[str, bool]]) -> str:
    """A MATCH expression for any of these terms, each with whether it is a beginning."""
    return " OR ".join(_quote((term,)) + ("*" if prefix else "") for term, prefix in terms)


def loose_terms(query: Query) -> list[tuple[str, bool]]:
    """The terms of which any may match, each with whether it is a beginning.

    English function words and single characters are left out while anything else is there; other words lose the endings
    of English inflection, which in any other language only makes the beginning a little shorter.
    """
    found: dict[str, bool] = {}
    for word in query.words:
        if word.kind == "phrase":
            found.update(dict.fromkeys(word.terms, False))
        elif len(word.terms[0]) > 1 and word.terms[0] not in FUNCTION_WORDS:
            term = stem(word.terms[0])
            found[term] = len(term) > 2
    if not found:
        found = {word.terms[0]: word.kind == "prefix" for word in query.words}
    return _ends(list(found.items()), MAX_LOOSE_TERMS)


def content_terms(text: str) -> frozenset[str]:
    """What a text is about, to compare two texts without an index: stems and character pairs, no function words.

    As in a query, of a very long text only the beginning and the end are looked at.
    """
    return frozenset(term for term, _ in loose_terms(parse_query(text)))


def matches(query: Query, terms: Sequence[str], *, all_words: bool = True) -> bool:
    """Whether a document with these ``index_terms`` (split) is found: the reference for what the indexes do."""
    if all_words:
        return bool(query.words) and all(_has_word(word, terms) for word in query.words)
    return any(_has_term(term, prefix, terms) for term, prefix in loose_terms(query))


def _has_word(word: Word, terms: Sequence[str]) -> bool:
    if word.kind != "phrase":
        return _has_term(word.terms[0], word.kind == "prefix", terms)
    size = len(word.terms)
    return any(tuple(terms[i : i + size]) == word.terms for i in range(len(terms) - size + 1))


def _has_term(term: str, prefix: bool, terms: Iterable[str]) -> bool:
    return any(other.startswith(term) for other in terms) if prefix else term in terms


def stem(word: str) -> str:
    """The word without the commonest endings of English: ``name``, ``names``, ``named`` have one beginning."""
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        word = word[:-1]
    for endings in (("ing", "ed"), ("ie", "y", "e")):
        for ending in endings:
            rest = word.removesuffix(ending)
            # What is left must be able to be a word: "string" and "speed" are none with an ending.
            if rest != word and len(rest) >= 3 and _VOWEL.search(rest):
                word = rest
                break
    return word


_VOWEL: Final = re.compile("[aeiou]")

FUNCTION_WORDS: Final = frozenset(
    {
        "a", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did", "do", "does",
        "don", "for", "from", "had", "has", "have", "he", "her", "his", "how", "i", "if", "in", "into", "is", "it",
        "its", "just", "ll", "let", "like", "m", "may", "me", "my", "no", "not", "of", "on", "or", "our", "please",
        "re", "s", "shall", "she", "should", "so", "some", "t", "tell", "than", "that", "the", "their", "them",
        "then", "there", "these", "they", "this", "those", "to", "too", "us", "ve", "was", "we", "were", "what",
        "when", "where", "which", "who", "whom", "whose", "why", "will", "with", "would", "you", "your",
    }
)  # fmt: skip
"""English words that say nothing about what a question is about."""


def _plain(text: str) -> str:
    """NFKC without accents and points; case is kept."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", text)
    if _FOLDABLE.search(text):
        text = _FOLDED_AWAY.sub("", unicodedata.normalize("NFKD", text)).translate(_BASE_LETTERS)
        text = unicodedata.normalize("NFC", text)
    return text


def _runs(plain: str) -> list[str]:
    """The words, and the runs of characters that are indexed in pairs, case folded."""
    if plain.isascii():
        return _ASCII_WORD.findall(plain.lower())
    return _RUN.findall(plain.casefold())


def _terms(runs: Iterable[str]) -> list[str]:
    terms: list[str] = []
    for run in runs:
        if not _in_pairs(run):
            terms.append(run[:MAX_TERM])
        elif len(run) == 3:  # the commonest lengths of Korean words are spelt out: half the time of a Korean text
            terms += (run[:2], run[1:], run[2])
        elif len(run) == 2:
            terms += (run, run[1])
        else:
            terms += [run[i : i + 2] for i in range(len(run))]
    return terms


def _in_pairs(run: str) -> bool:
    """Whether a run is of a script that is indexed by character pairs (two comparisons spare most the match)."""
    return run >= "\u0e01" and ("가" <= run < "\ud7a4" or _CJK.match(run) is not None)


def _words(run: str) -> Iterable[Word]:
    if _in_pairs(run):
        if len(run) == 1:
            yield Word((run,), "prefix")
        # A text without spaces is one long run: taken in pieces that share a character, so that no pair is lost.
        for start in range(0, len(run) - 1, MAX_TERM - 1):
            piece = run[start : start + MAX_TERM]
            yield Word(tuple(map(add, piece, piece[1:])), "phrase")
    else:
        yield Word((run[:MAX_TERM],), "prefix" if len(run) > 1 and run[0].isalnum() else "exact")


def _ends(items: list[T], limit: int) -> list[T]:
    return items if len(items) <= limit else items[: limit // 2] + items[limit // 2 - limit :]


def _with_parts(found: re.Match[str]) -> str:
    """``getHTTPName`` becomes ``getHTTPName HTTPName Name``: each part is then the beginning of a word."""
    word = found[0]
    return " ".join((word, *(word[hump.start() :] for hump in islice(_HUMP.finditer(word), MAX_PARTS))))


def _quote(terms: Iterable[str]) -> str:
    """An FTS5 string: only the quotation mark is special in it, and it is written twice."""
    return '"' + " ".join(terms).replace('"', '""') + '"'
