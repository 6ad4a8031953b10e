"""Notes: which earlier statements of the user bear on the question.

Found lexically, so that it works in every language, without a model, and long after the statement left the window: the
caller gives what a search for the question found in the conversation, and the recent messages; this chooses.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from daram.model import Message
from daram.text.analyzer import content_terms, index_terms

MAX_NOTES: Final = 5
MAX_CHARS: Final = 1_000
"""All notes together, in characters."""
MAX_NOTE_CHARS: Final = 240
"""One note; of a longer message the sentences that bear most on the question are quoted."""
MAX_LOOKED_AT: Final = 20_000
"""Of a message, at most this many characters are looked at, of its beginning and its end."""

_QUESTION_WEIGHT: Final = 0.3
_COMMON_WEIGHT: Final = 0.15
_SYLLABLE_WEIGHT: Final = 0.5
_PARTICLE_WEIGHT: Final = 0.5
_USER_WEIGHT: Final = 1.2
_LEAST: Final = 0.1
# A message that asks nothing is seldom about what was said before, and small models parrot notes that they do not need.
_LEAST_OF_STATEMENT: Final = 0.45
_LEAST_OF_BEST: Final = 0.35

# Character pairs of Korean endings and question words: they tell nothing about what a sentence is about.
_COMMON: Final = frozenset(
    {
        "뭐라", "라고", "했지", "무엇", "뭐지", "뭐야", "어디", "언제", "누구", "누가", "무슨", "어떤", "어떻",
        "떻게", "얼마", "기억", "억해", "말했", "말한", "알려", "려줘", "이라", "으로", "에서", "에게", "까지",
        "부터", "하고", "해줘", "주세", "세요", "습니", "니다", "합니", "입니", "니까", "나요", "는지", "었지",
        "었어", "았어", "았지", "겠어", "지금", "내가", "나는", "나의", "저는", "제가", "우리", "아까", "전에",
        "이야", "라는", "는데", "인데", "그리", "리고", "그런", "그래", "앞으",
        "내-", "나-", "저-", "제-", "우-", "그-", "이-", "뭐-", "무-", "어-", "언-", "누-", "했-", "있-", "몇-", "왜-",
        "알-", "말-", "기-",
    }
)  # fmt: skip
_FORM_CHARS: Final = 200
_FIRST_SYLLABLE: Final = re.compile("(?<![가-힣])[가-힣]")
_WITH_PARTICLE: Final = re.compile("[가-힣][은는이가을를의에로도와과랑요다고지]")
_SENTENCE: Final = re.compile(r"[^.!?。！？\n]+[.!?。！？]*\s*|[.!?。！？\n]+")
_MARKED: Final = re.compile(r"[?？]\W*$")
_ASKS: Final = re.compile(
    # Korean words that ask, unless a particle makes "any" of them; Korean, Japanese, Chinese endings of questions and
    # requests.
    r"(?:뭐|무엇|뭘|무슨|어디|언제|누구|누가|몇|어느|어떤|어떻게|얼마|왜)(?![나든냐])"
    r"|(?:[까냐]|(?<![머으])니|나요|[인한은는던된운른런린진큰쁜픈난신뭔]가요|는지|을래|인지|[했였었았]지|더라"
    r"|[해아어려와써춰펴켜바여쳐]\s?(?:줘|주세요|주실래요|줄래|달라)|해\s?봐|하시오|[吗呢嗎]|か|ください)\W*$"
    # English questions and requests without their mark.
    r"|^\W*(?:(?:so|and|ok|okay|please|hey|now|hi|hello)\W+)*(?:what|who|whom|whose|when|where|which|why|how|do|does|did"
    r"|can|could|would|will|should|is|are|am|was|were|tell|explain|write|give|show|list|translate|summari[sz]e|describe"
    r"|suggest|recommend|remind)\b|\bi (?:forgot|forget|can.?t recall|can.?t remember|don.?t remember)\b",
    re.IGNORECASE,
)
_TOLD: Final = re.compile(
    r"기억해\s?(?:줘|둬|두|주세요|라)|기억하세요|잊지\s?[마말]|覚えて|记住|記住"
    r"|^\W*(?:(?:so|and|please)\W+)*(?:remember|don.?t forget|do not forget|note)\b|\bremember (?:that|this)\b",
    re.IGNORECASE,
)
_OF_THE_USER: Final = re.compile(
    r"\b(?:i|my|me|mine|our|we|us)\b|(?<![가-힣])(?:나|내|저|제|우리)(?:는|가|의|를|에게|한테|도|랑)?(?![가-힣])"
    r"|했지|했더라|기억|말했|私|僕|俺|わたし|我",
    re.IGNORECASE,
)
# "How do I sort a list?" is a question that anybody may ask.
_ANYBODY: Final = re.compile(
    r"\b(?:how|can|could|should|may|might)\b(?:\W+(?:do|can|could|should|would|must))?\W+i\b", re.IGNORECASE
)


class _Candidate(NamedTuple):
    message: Message
    text: str
    terms: frozenset[str]


def asks(sentence: str) -> bool:
    """Whether a sentence asks or requests rather than states ("remember that …" states). A guess, by its form."""
    if len(sentence) > 2 * _FORM_CHARS:  # the form shows at both ends
        sentence = f"{sentence[:_FORM_CHARS]} {sentence[-_FORM_CHARS:]}"
    return _MARKED.search(sentence) is not None or (
        _ASKS.search(sentence) is not None and _TOLD.search(sentence) is None
    )


def choose_notes(
    question: Message,
    candidates: Iterable[Message],
    *,
    exclude: Collection[str] = (),
    limit: int = MAX_NOTES,
    max_chars: int = MAX_CHARS,
) -> list[Message]:
    """The user's earlier statements that bear on ``question``, oldest first, so that a correction stands last.

    ``candidates``: messages of the conversation in any order, doubles allowed (what a search for the question found,
    and the recent messages); only complete messages of the user count, and none that repeats the question.
    ``exclude``: ids that are not to be noted.

    Returns at most ``limit`` messages of at most ``max_chars`` characters in all; a long message comes shortened to the
    sentences that matter, with its id. Statements go before questions, words that few candidates share weigh more.
    """
    asked = _terms(question.text)
    same = index_terms(_ends(question.text))
    pool = _pool(question, candidates, exclude, same)
    if not pool:
        return []
    weight = _weights(asked, pool)
    passages = [_passage(candidate, asked, weight) for candidate in pool]
    about_user = _OF_THE_USER.search(_ANYBODY.sub("", question.text)) is not None
    scores = [_overlap(passage, asked, weight, about_user) for passage in passages]
    best = max(scores)
    least = max(_LEAST, best * _LEAST_OF_BEST)
    if not any(asks(sentence) for sentence in _sentences(question.text)):
        least = max(least, _LEAST_OF_STATEMENT)
    elif best < _LEAST and about_user:
        # "What is my job?" shares no word with "I am a nurse": what the user said last about himself may answer it.
        scores = [1.0 if _states(passage.text) and _OF_THE_USER.search(passage.text) else 0.0 for passage in passages]
    # Of two equals the later one: what the user said last counts.
    ranked = sorted(range(len(passages)), key=lambda place: (-scores[place], -place))
    chosen: list[int] = []
    room = max_chars
    for place in ranked[:limit]:
        if scores[place] >= least and len(passages[place].text) <= room:
            room -= len(passages[place].text)
            chosen.append(place)
    return [msgspec.structs.replace(passages[i].message, text=passages[i].text) for i in sorted(chosen)]


def _overlap(candidate: _Candidate, asked: frozenset[str], weight: dict[str, float], about_user: bool) -> float:
    """How much of what is asked a candidate speaks of (0 to about 1), less where it asks itself."""
    whole = sum(weight.values()) or 1.0
    shared = sum(weight[term] for term in asked & candidate.terms) / whole
    if not _states(candidate.text):
        return shared * _QUESTION_WEIGHT
    return shared * _USER_WEIGHT if about_user and _OF_THE_USER.search(candidate.text) else shared


def _states(text: str) -> bool:
    return not all(asks(sentence) for sentence in _sentences(text))


def _terms(text: str) -> frozenset[str]:
    """The terms of a text, and the first syllable of each Korean word: 살아 and 살지 have no pair in common."""
    text = _ends(text)
    return content_terms(text) | {f"{syllable}-" for syllable in _FIRST_SYLLABLE.findall(text)}


def _pool(question: Message, candidates: Iterable[Message], exclude: Collection[str], same: str) -> list[_Candidate]:
    """The messages that may be noted, oldest first, each text once (the latest time that it was said)."""
    known = {message.id: message for message in candidates if message.role == "user" and message.status == "complete"}
    known.pop(question.id, None)
    latest: dict[str, Message] = {}
    for message in sorted(known.values(), key=lambda message: message.seq):
        said = index_terms(_ends(message.text))
        if said and said != same and message.id not in exclude:
            latest.pop(said, None)
            latest[said] = message
    return [_Candidate(m, m.text, _terms(m.text)) for m in latest.values()]


def _weights(asked: frozenset[str], pool: Sequence[_Candidate]) -> dict[str, float]:
    """How much each term of the question tells: the rarer among the candidates, the more."""
    frequency = Counter(term for candidate in pool for term in asked & candidate.terms)
    return {term: math.log(1 + (len(pool) + 1) / (frequency[term] + 0.5)) * _telling(term) for term in asked}


def _telling(term: str) -> float:
    if term in _COMMON:
        return _COMMON_WEIGHT
    if term.endswith("-"):
        return _SYLLABLE_WEIGHT
    return _PARTICLE_WEIGHT if _WITH_PARTICLE.fullmatch(term) else 1.0


def _passage(candidate: _Candidate, asked: frozenset[str], weight: dict[str, float]) -> _Candidate:
    """The candidate with the stretch of whole sentences, at most ``MAX_NOTE_CHARS`` long, that bears most."""
    text = " ".join(candidate.text.split())
    if len(text) <= MAX_NOTE_CHARS:
        return candidate._replace(text=text)
    pieces = [piece for sentence in _sentences(candidate.text) for piece in _cut(sentence)]
    points = []
    for piece in pieces:
        found = sum(weight[term] for term in asked & _terms(piece))
        points.append(found * (_QUESTION_WEIGHT if asks(piece) else 1.0))
    first = max(range(len(pieces)), key=lambda place: points[place])
    best, last = pieces[first], first
    while last + 1 < len(pieces) and len(best) + 1 + len(pieces[last + 1]) <= MAX_NOTE_CHARS:
        last += 1
        best = f"{best} {pieces[last]}"
    return candidate._replace(text=best, terms=_terms(best))


def _sentences(text: str) -> list[str]:
    found = (" ".join(match.split()) for match in _SENTENCE.findall(_ends(text)))
    return [sentence for sentence in found if sentence]


def _cut(sentence: str) -> list[str]:
    """A sentence in pieces of at most ``MAX_NOTE_CHARS``."""
    return [sentence[start : start + MAX_NOTE_CHARS] for start in range(0, len(sentence), MAX_NOTE_CHARS)]


def _ends(text: str) -> str:
    return text if len(text) <= MAX_LOOKED_AT else f"{text[: MAX_LOOKED_AT // 2]}\n{text[-MAX_LOOKED_AT // 2 :]}"
