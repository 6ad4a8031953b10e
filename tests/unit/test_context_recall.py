"""Notes: the statement that answers is found, whatever stands around it, in Korean and in English."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daram import assistant, user
from daram.context.recall import MAX_NOTE_CHARS, asks, choose_notes
from daram.model import Message

ENGLISH = [
    "From now on I will call the squirrel tuna.",
    "My cat is called Luna.",
    "I live in Busan with my brother Tom.",
    "My birthday is May 3rd.",
    "I can't eat shrimp.",
    "My flight to Osaka leaves at 7 am on Friday.",
    "I am learning the cello.",
    "The door code of the office is 4471.",
    "Write a poem about squirrels.",
]
KOREAN = [
    "앞으로 다람쥐를 다랑어라고 부를게.",
    "우리 고양이 이름은 루나야.",
    "나는 동생 민호랑 부산에 살아.",
    "내 생일은 5월 3일이야.",
    "나는 새우를 못 먹어.",
    "오사카행 비행기는 금요일 아침 7시에 출발해.",
    "나는 첼로를 배우고 있어.",
    "사무실 문 비밀번호는 4471이야.",
    "다람쥐에 대한 시를 써 줘.",
]


def said(*texts: str) -> list[Message]:
    """Messages of the user as a store returns them."""
    return [msgspec.structs.replace(user(text, id=f"m{n}"), seq=n + 1) for n, text in enumerate(texts)]


def notes(question: str, candidates: Sequence[Message], **options: int) -> list[str]:
    return [note.text for note in choose_notes(user(question), candidates, **options)]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What do I call the squirrel?", 0),
        ("what did i say i would call squirrels", 0),
        ("What is the name of my cat?", 1),
        ("Where do I live?", 2),
        ("When's my birthday?", 3),
        ("Which food can't I eat?", 4),
        ("When does my flight leave?", 5),
        ("What am I learning?", 6),
        ("Remind me of the door code", 7),
        ("What is my job?", 4),  # no word in common: whatever the user said of himself
    ],
)
def test_english_questions_find_their_statement(question: str, answer: int) -> None:
    assert ENGLISH[answer] in notes(question, said(*ENGLISH))
    assert ENGLISH[-1] not in notes(question, said(*ENGLISH))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("다람쥐를 뭐라고 부르기로 했지?", 0),
        ("내가 다람쥐를 뭐라고 부른다고 했더라", 0),
        ("우리 고양이 이름이 뭐야?", 1),
        ("내가 어느 도시에 살지?", 2),  # 살아 and 살지 have only their first syllable in common
        ("생일이 언제라고 했지?", 3),
        ("내가 못 먹는 음식이 뭐야?", 4),
        ("비행기 몇 시야", 5),
        ("내가 배우는 악기가 뭐지?", 6),
        ("사무실 비밀번호 알려줘", 7),
        ("내 취미가 뭐지?", 6),
    ],
)
def test_korean_questions_find_their_statement(question: str, answer: int) -> None:
    assert KOREAN[answer] in notes(question, said(*KOREAN))
    assert KOREAN[-1] not in notes(question, said(*KOREAN))


@pytest.mark.parametrize(
    ("statement", "question", "words"),
    [
        (
            "From now on I will call the squirrel tuna.",
            "What do I call the squirrel?",
            (
                "My mother|The river|A train|This song|Our school",
                "likes|needs|follows|calls for|reminds me of",
                "coffee|the winter|green paper|a long walk|seven numbers|the night|old names|the sea",
            ),
        ),
        (
            "앞으로 다람쥐를 다랑어라고 부를게.",
            "다람쥐를 뭐라고 부르기로 했지?",
            (
                "어머니는|강물이|기차는|이 노래를|학교에서",
                "커피를|겨울에|초록 종이를|긴 산책을|숫자 일곱을|밤새|오래된 이름을|바다를",
                "좋아한다|부르고 싶다|기다렸다|생각나게 했다|지나갔다고 했지",
            ),
        ),
    ],
)
def test_one_statement_among_thousands(statement: str, question: str, words: tuple[str, str, str]) -> None:
    others = [" ".join(parts) + "." for parts in itertools.product(*(part.split("|") for part in words))]
    for place in (0, 1_000, 2_999):
        texts = [f"{others[n % len(others)]} {n}" for n in range(3_000)]
        texts[place] = statement
        assert statement in notes(question, said(*texts))


def test_a_correction_stands_last() -> None:
    statements = said("I call the squirrel tuna.", "It rains.", "No, I call the squirrel salmon.")
    for candidates in (statements, statements[::-1], statements * 2):
        assert notes("What do I call the squirrel?", candidates) == [
            "I call the squirrel tuna.",
            "No, I call the squirrel salmon.",
        ]


def test_statements_go_before_questions() -> None:
    earlier = said("I call the squirrel tuna.", *(f"What do I call the squirrel, number {n}?" for n in range(20)))
    assert notes("What do I call the squirrel?", earlier) == ["I call the squirrel tuna."]


def test_only_whole_statements_of_the_user_count() -> None:
    question = user("What do I call the squirrel?")
    candidates = [
        assistant("I call the squirrel tuna."),
        msgspec.structs.replace(user("I call the squirrel salmon."), status="failed"),
        msgspec.structs.replace(user("I call the squirrel trout."), id="out"),
        user("what do I call the SQUIRREL"),
        question,
    ]
    assert choose_notes(question, candidates, exclude={"out"}) == []


def test_what_was_said_twice_is_noted_once_at_its_latest_time() -> None:
    (note,) = choose_notes(user("squirrel name?"), said("The squirrel's name is tuna.", "the squirrel's name is tuna!"))
    assert note.id == "m1"


def test_nothing_is_noted_for_a_statement_or_a_question_of_the_world() -> None:
    assert notes("My dog is called Rex.", said(*ENGLISH)) == []
    assert notes("우리 강아지 이름은 초코야.", said(*KOREAN)) == []
    assert notes("What is the capital of France?", said(*ENGLISH)) == []
    assert notes("세계에서 가장 높은 산은?", said(*KOREAN)) == []
    assert notes("How do I reverse a list in Python?", said(*ENGLISH)) == []
    assert notes("", said(*ENGLISH)) == []
    assert notes("What do I call the squirrel?", []) == []


def test_of_a_long_message_the_sentences_that_matter_are_quoted() -> None:
    filler = "The weather was fine and the train was late again. " * 30
    (note,) = choose_notes(user("What do I call the squirrel?"), said(f"{filler}I call the squirrel tuna. {filler}"))
    assert "I call the squirrel tuna." in note.text
    assert len(note.text) <= MAX_NOTE_CHARS
    assert note.id == "m0"


def test_number_and_length_are_bounded() -> None:
    many = said(*(f"The squirrel likes nut number {n}." for n in range(50)))
    assert len(notes("What does the squirrel like?", many, limit=3)) == 3
    assert len("".join(notes("What does the squirrel like?", many, limit=50, max_chars=100))) <= 100


@pytest.mark.parametrize(
    "sentence",
    [
        "What do I call the squirrel?", "what do i call the squirrel", "Tell me about squirrels.",
        "remind me what my dog is called", "please write a poem", "I forgot what I call the squirrel",
        "다람쥐를 뭐라고 부르기로 했지", "다람쥐 뭐라고 부르더라", "내 이름 알려줘", "다람쥐 별명 기억해?",
        "요약해 주세요.", "그게 뭔가요", "몇 시야", "보여줘", "누구인가요", "私の名前は何ですか", "我叫什么名字？",
        "你好吗",
    ],
)  # fmt: skip
def test_asking(sentence: str) -> None:
    assert asks(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "From now on I will call the squirrel tuna.", "Remember that my dog is Rex.", "Call me Captain.", "Thanks!",
        "Let's call our project Nutcracker.", "Don't forget: I am allergic to peanuts.", "I live in Busan.",
        "앞으로 다람쥐를 다랑어라고 부를게.", "기억해 줘.", "암호가 등대라는 걸 기억해 주세요.",
        "나를 선장이라고 불러 줘.", "집에 가요.", "우리 어머니.", "언제나 행복해.", "왜냐하면 추우니까 그래.", "",
    ],
)  # fmt: skip
def test_stating(sentence: str) -> None:
    assert not asks(sentence)


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=400)


@given(
    ANY_TEXT, st.lists(ANY_TEXT | st.sampled_from(ENGLISH + KOREAN), max_size=8), st.integers(1, 5), st.integers(0, 300)
)
def test_any_text_is_safe_and_the_bounds_hold(asked: str, texts: list[str], limit: int, max_chars: int) -> None:
    candidates = said(*texts)
    chosen = choose_notes(user(asked), candidates, limit=limit, max_chars=max_chars)
    assert len(chosen) <= limit
    assert sum(len(note.text) for note in chosen) <= max_chars
    assert [note.seq for note in chosen] == sorted({note.seq for note in chosen})
    assert {note.id for note in chosen} <= {message.id for message in candidates}


def test_huge_texts_are_looked_at_in_part() -> None:
    for huge in ("?" * 1_000_000, "가" * 1_000_000, "까 " * 500_000, "so " * 300_000, "a.b?" * 250_000):
        chosen = choose_notes(user(f"squirrel {huge}"), said(huge, f"The squirrel is tuna. {huge}", f"{huge} squirrel"))
        assert all(len(note.text) <= MAX_NOTE_CHARS for note in chosen)
