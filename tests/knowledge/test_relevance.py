"""Which words of a question count, in Korean by their stems; and how surely a passage bears on it."""

from __future__ import annotations

import pytest

from daram.knowledge.relevance import confidence, coverages, sought, terms_of
from daram.text.korean import looked_for

LEAVE = "직원은 한 달을 일할 때마다 유급 휴가를 이틀 받는다. 쓰지 않은 휴가는 다음 해로 넘어간다."
LIBRARY = "도서관은 주말에 오후 6시까지 연다. 책은 한 사람이 다섯 권을 2주 동안 빌릴 수 있다."
DEPOSIT = "The deposit equals three months' rent. The key is encrypted before it leaves the host."


@pytest.mark.parametrize(
    ("question", "stems"),
    [
        ("휴가는 한 달에 며칠 받나요?", ["휴가", "달", "받"]),
        ("책을 빌려줘요?", ["책", "빌려줘요"]),
        ("예약하나요? 예약됩니까? 예약해야 하나요?", ["예약", "예약", "예약"]),
        ("도서관에서는 언제까지 있나요?", ["도서관"]),
        ("이게 뭐예요? 왜 그런가요?", []),
        ("KTX에서도 되나요?", []),
        ("What is it?", []),
    ],
)
def test_words_are_looked_for_by_their_stems(question: str, stems: list[str]) -> None:
    found = looked_for(question)
    assert all(stem in one.stems for stem, one in zip(stems, found, strict=True)), found


def covered(question: str, text: str, *others: str) -> float:
    return coverages(sought(question), [terms_of(one) for one in (text, *others)])[0]


@pytest.mark.parametrize(
    ("question", "text", "other"),
    [
        ("휴가는 한 달에 며칠 받나요?", LEAVE, LIBRARY),
        ("유급휴가 받나요?", LEAVE, LIBRARY),
        ("책을 몇 권 빌려줘요?", LIBRARY, LEAVE),
        ("How high is the deposit?", DEPOSIT, LEAVE),
        ("who has the encryption key", DEPOSIT, LEAVE),
    ],
)
def test_the_text_that_answers_is_the_one_that_speaks_of_the_question(question: str, text: str, other: str) -> None:
    here, there = covered(question, text, other), covered(question, other, text)
    assert here > 0.5 > 0.3 > there
    assert confidence(here, None) >= 0.5 > confidence(there, None)


def test_words_that_only_ask_count_for_nothing() -> None:
    assert covered("얼마인가요?", LEAVE) == 0.0
    assert covered("휴가는 며칠인가요?", LEAVE, LIBRARY) == pytest.approx(1.0)
    assert covered("휴가는 며칠인가요?", LIBRARY, LEAVE) == 0.0
