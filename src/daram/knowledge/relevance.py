"""How surely a passage bears on a question: what part of its words it speaks of, and how near its meaning is."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec

from daram.text.analyzer import index_terms, loose_terms, parse_query
from daram.text.korean import looked_for

_HANGUL: Final = re.compile("[가-힣]+")
_OF_A_VERB: Final = 0.5
_ONE_SYLLABLE: Final = 0.5
_LIGHT: Final = 0.25
_KIN: Final = 0.7  # a word with the same beginning: encryption, encrypted
# What questions in English are put with, as the analyzer stems it: it says little of what is asked about.
_LIGHT_WORDS: Final = frozenset(
    {
        "after", "again", "ask", "back", "big", "bring", "buy", "call", "cost", "day", "do", "does", "doing", "ever",
        "far", "fast", "fee", "find", "fit", "get", "go", "good", "happen", "hear", "help", "high", "hot", "know",
        "last", "less", "let", "like", "long", "look", "mean", "need", "new", "next", "now", "often", "old", "one",
        "own", "pay", "person", "please", "put", "quick", "read", "right", "say", "see", "set", "short", "show",
        "small", "start", "stop", "tell", "thing", "together", "try", "two", "type", "use", "used", "using", "want",
        "way", "week", "well", "will", "without", "work", "year",
    }
)  # fmt: skip


Way = tuple[tuple[str, ...], float]


class Sought(msgspec.Struct, frozen=True):
    """A word of a question: the ways to find it in a text, each a list of terms and what finding all of them counts,
    and how much the word tells."""

    ways: tuple[Way, ...]
    telling: float

    def found(self, text: str) -> float:
        """How far a text speaks of it (0 to 1). ``text``: ``terms_of`` it."""
        return max(counts * sum(term in text for term in terms) / len(terms) for terms, counts in self.ways)


def sought(question: str) -> list[Sought]:
    """The words that a question asks about. Those in Hangul by their stems; others by their beginnings."""
    # As the terms stand in ``terms_of`` a text: between blanks, a beginning without the second one.
    words = []
    for term, is_beginning in loose_terms(parse_query(_HANGUL.sub(" ", question))):
        ways: list[Way] = [((f" {term}" if is_beginning else f" {term} ",), 1.0)]
        if is_beginning and len(term) > 5:
            ways.append(((f" {term[: max(5, 2 * len(term) // 3)]}",), _KIN))
        words.append(Sought(tuple(ways), _LIGHT if term in _LIGHT_WORDS else 1.0))
    for word in looked_for(question):
        longer = len(word.stems[0]) > 1
        ways = [(_pairs(stem), _ONE_SYLLABLE if longer and len(stem) == 1 else 1.0) for stem in word.stems]
        telling = _OF_A_VERB if word.is_verb else 1.0 if longer else _ONE_SYLLABLE
        words.append(Sought(tuple(ways), telling))
    return words


def _pairs(stem: str) -> tuple[str, ...]:
    if len(stem) == 1:
        return (f" {stem}",)
    return tuple(f" {first}{second} " for first, second in pairwise(stem))


def coverages(words: Sequence[Sought], texts: Sequence[str]) -> list[float]:
    """What part of a question each text speaks of (0 to 1). ``texts``: ``terms_of`` them.

    A word weighs the more the fewer of the texts, all that were found, speak of it.
    """
    found = [[word.found(text) for text in texts] for word in words]
    weights = [
        word.telling * math.log(1 + (len(texts) + 1) / (max(1.0, math.fsum(row)) + 0.5))
        for word, row in zip(words, found, strict=True)
    ]
    whole = math.fsum(weights)
    if not whole:
        return [0.0] * len(texts)
    return [
        math.fsum(weight * row[number] for weight, row in zip(weights, found, strict=True)) / whole
        for number in range(len(texts))
    ]


def terms_of(text: str) -> str:
    """The terms of a passage, each between blanks."""
    return f" {index_terms(text)} "


class Calibration(msgspec.Struct, frozen=True):
    """A logistic regression of "this passage answers this question" on what a search measures.

    Fitted by ``python -m bench.grounding`` on the questions of ``bench/data/grounding.json``, English and Korean; see
    docs/explanation/retrieval.md.
    """

    covered: float
    cosine: float
    constant: float


WORDS_ONLY: Final = Calibration(covered=6.83, cosine=0.0, constant=-3.23)
WITH_VECTORS: Final = Calibration(covered=6.31, cosine=2.94, constant=-3.63)
ACROSS: Final = Calibration(covered=10.72, cosine=14.09, constant=-3.03)
"""For a question in one script about a passage in another: they share few words, if any. The constant stands a little
lower than the fit says: what is refused rightly counts for more than what is found."""


def confidence(covered: float, cosine: float | None, *, across: bool = False) -> float:
    """How surely a passage bears on a question, from 0 to 1.

    ``covered``: as ``coverages`` says; ``cosine``: of their vectors, None where there are none; ``across``: whether
    they are of different scripts.
    """
    by = WORDS_ONLY if cosine is None else ACROSS if across else WITH_VECTORS
    return 1 / (1 + math.exp(-(by.covered * covered + by.cosine * (cosine or 0.0) + by.constant)))


_WIDE: Final = re.compile("[\u1100-\u11ff\u3041-\u30ff\u3131-\u318e\u3400-\u9fff\uac00-\ud7a3]")
_NARROW: Final = re.compile("[A-Za-z\u00c0-\u052f]")
_LETTERS_OF_A_SYLLABLE: Final = 2.5


def across(question: str, text: str) -> bool:
    """Whether two texts are of different scripts, for the most part: Hangul, Han or Kana, and letters."""
    return _is_wide(question) != _is_wide(text)


def _is_wide(text: str) -> bool:
    text = text[:2000]
    return len(_WIDE.findall(text)) * _LETTERS_OF_A_SYLLABLE > len(_NARROW.findall(text))
