"""Chunks: nothing of the text is lost, each says where it is from, none is too long."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daram.errors import InvalidInput
from daram.text.chunk import Chunking, chunks
from daram.text.load import Section, clean
from daram.text.tokens import estimate

WORDS = st.sampled_from(
    ["squirrel", "acorn.", "다람쥐는", "도토리를", "숨긴다.", "\n\n", "\n", "a", "漢字。", "x" * 80]
)
TEXTS = st.lists(WORDS, min_size=1, max_size=120).map(lambda words: clean(" ".join(words)))
SECTIONS = st.lists(
    st.builds(Section, TEXTS, st.sampled_from([None, 1, 2]), st.sampled_from([(), ("A",), ("A", "B")])).filter(
        lambda section: section.text
    ),
    max_size=8,
)
HOW = st.builds(
    lambda size, overlap, unit: Chunking(size=size, overlap=min(overlap, size // 2), unit=unit),
    st.integers(50, 400),
    st.integers(0, 100),
    st.sampled_from(["characters", "tokens"]),
)


@given(SECTIONS, HOW)
def test_every_word_is_in_a_chunk_at_its_place(sections: list[Section], how: Chunking) -> None:
    whole = "\n\n".join(section.text for section in sections)
    made = list(chunks(sections, how))
    covered = bytearray(len(whole))
    for chunk in made:
        assert chunk.text == whole[chunk.start : chunk.end]
        assert chunk.text.strip()
        assert (len(chunk.text) if how.unit == "characters" else estimate(chunk.text)) <= how.size
        covered[chunk.start : chunk.end] = b"\x01" * len(chunk.text)
    assert all(seen or whole[place].isspace() for place, seen in enumerate(covered))
    assert [c.start for c in made] == sorted(c.start for c in made)


@given(SECTIONS, HOW)
def test_no_chunk_crosses_a_page_or_a_heading(sections: list[Section], how: Chunking) -> None:
    places = []
    for section in sections:
        begin = places[-1][1] + 2 if places else 0
        places.append((begin, begin + len(section.text), section.page, section.heading))
    for chunk in chunks(sections, how):
        touched = {(page, heading) for begin, end, page, heading in places if begin < chunk.end and chunk.start < end}
        assert touched == {(chunk.page, chunk.heading)}


def test_neighbours_share_sentences() -> None:
    text = " ".join(f"This is sentence number {n}." for n in range(40))
    made = list(chunks([Section(text)], Chunking(size=200, overlap=60)))
    for one, next_ in pairwise(made):
        assert 0 < one.end - next_.start <= 60
        assert next_.text.startswith("This is")


def test_sentences_stay_whole_in_korean() -> None:
    text = " ".join(f"다람쥐는 {n}번째 도토리를 숨겼다." for n in range(60))
    made = list(chunks([Section(text)], Chunking(size=120, overlap=0)))
    assert len(made) > 5
    assert all(chunk.text.startswith("다람쥐는") and chunk.text.endswith("숨겼다.") for chunk in made)


@pytest.mark.parametrize(
    ("size", "overlap", "field"), [(10, 0, "size"), (50_000, 0, "size"), (100, 51, "overlap"), (100, -1, "overlap")]
)
def test_what_cannot_be(size: int, overlap: int, field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        list(chunks([], Chunking(size=size, overlap=overlap)))
