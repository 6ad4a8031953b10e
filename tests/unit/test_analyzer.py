"""Search terms: what is written can be found, in every script, in a real index, and nothing breaks it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import apsw
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daram.text.analyzer import (
    MAX_LOOSE_TERMS,
    MAX_TERM,
    MAX_WORDS,
    content_terms,
    fts5_match,
    index_terms,
    loose_terms,
    matches,
    parse_query,
    stem,
)

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates, NUL and unassigned code points too
CJK = st.text(st.sampled_from("가나다람쥐를힣東京我喜欢タワーねこ々ー"), min_size=1, max_size=12)


class Index:
    """An FTS5 table as the SQLite engine has it."""

    def __init__(self) -> None:
        self.connection = apsw.Connection(":memory:")
        self.connection.execute("CREATE VIRTUAL TABLE terms USING fts5(body, tokenize = 'ascii')")

    def add(self, *texts: str, scope: str = "") -> None:
        for text in texts:
            self.connection.execute("INSERT INTO terms (body) VALUES (?)", (f"{scope} {index_terms(text)}",))

    def find(self, query: str, *, all_words: bool = True, scope: tuple[str, ...] = ()) -> list[int]:
        """The numbers of the texts that are found, from 1, best first."""
        expression = fts5_match(query, all_words=all_words, scope=scope)
        if expression is None:
            return []
        rows = self.connection.execute(
            "SELECT rowid FROM terms WHERE terms MATCH ? ORDER BY bm25(terms), rowid", (expression,)
        )
        return [int(str(row[0])) for row in rows]


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index()
    yield index
    index.connection.close()


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("From now on I will call the squirrel tuna.", "from now on i will call the squirrel tuna"),
        ("다람쥐를 다랑어라고", "다람 람쥐 쥐를 를 다랑 랑어 어라 라고 고"),
        ("한 물", "한 물"),
        ("Django에서 모델", "django 에서 서 모델 델"),
        ("東京タワー", "東京 京タ タワ ワー ー"),
        ("我喜欢吃苹果", "我喜 喜欢 欢吃 吃苹 苹果 果"),
        ("foo_bar", "foo bar"),
        ("camelCase", "camelcase case"),
        ("getHTTPResponse", "gethttpresponse httpresponse response"),
        ("https://docs.python.org/3/", "https docs python org 3"),
        ("bob.lee@example.com", "bob lee example com"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("ｱﾊﾟｰﾄ", "アパ パー ート ト"),
        (unicodedata.normalize("NFD", "다람쥐 Café"), "다람 람쥐 쥐 cafe"),
        ("Ångström Łódź İstanbul ÆØ", "angstrom lodz istanbul aeo"),
        ("Straße ЁЖ", "strasse еж"),
        ("שָׁלוֹם", "שלום"),
        ("السَّلَامُ", "السلام"),
        ("हिन्दी", "हिन्दी"),
        ("สวัสดี", "สว วั ัส สด ดี ี"),
        ("🐿️ 안녕 🇰🇷 👍🏽", "🐿 안녕 녕 🇰🇷 👍"),
        ("²½Ⅳ①", "21 2iv1"),
        ("a\0b\ud800c\u200bd", "a b c d"),
        ("soft\u00adhyphen", "softhyphen"),
        ("", ""),
        ("!?… \u3000", ""),
        ("x" * 200, "x" * MAX_TERM),
    ],
)
def test_terms(text: str, terms: str) -> None:
    assert index_terms(text) == terms


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("앞으로 다람쥐를 다랑어라고 부를게.", "다람쥐"),
        ("앞으로 다람쥐를 다랑어라고 부를게.", "랑어"),
        ("앞으로 다람쥐를 다랑어라고 부를게.", "쥐"),
        ("앞으로 다람쥐를 다랑어라고 부를게.", "다랑어 다람쥐"),
        (unicodedata.normalize("NFD", "다람쥐"), "다람쥐"),
        ("다람쥐", unicodedata.normalize("NFD", "람쥐")),
        ("삼월", "월"),
        ("ㅋㅋㅋ 웃겨", "ㅋㅋ"),
        ("東京タワーへ行きました", "タワー"),
        ("ﾀﾜｰ", "タワー"),
        ("我喜欢吃苹果", "苹果"),
        ("Django에서 모델을", "django 모델"),
        ("Django에서 모델을", "Django에서"),
        ("The squirrels are here", "squirrel"),
        ("Searching", "SEARCH"),
        ("getHTTPResponse()", "HTTPResponse"),
        ("getHTTPResponse()", "response"),
        ("my_long_name", "long_name"),
        ("see https://docs.python.org/3/library", "docs.python.org"),
        ("write to bob@example.com!", "bob@example.com"),
        ("naïve café", "cafe"),
        ("cafe", "CAFÉ"),
        ("ＡＢＣ", "abc"),
        ("สวัสดีครับ", "ครับ"),
        ("हिन्दी में लिखो", "हिन्दी"),
        ("שָׁלוֹם עולם", "שלום"),
        ("السَّلَامُ عليكم", "السلام"),
        ("I saw a 🐿️!", "🐿"),
        ("C is a language", "C"),
    ],
)
def test_a_search_field_finds(index: Index, text: str, query: str) -> None:
    index.add(text, "something else altogether", "전혀 상관없는 문장")
    assert index.find(query) == [1]
    assert index.find(query, all_words=False)[0] == 1


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("다랑어 람쥐", "다람쥐"),  # both pairs' characters, not the word
        ("람쥐 다람", "다람쥐"),  # both pairs, not one after the other
        ("다람쥐를", "다람쥐는"),
        ("tuna", "tuna squirrel"),
        ("concat", "cat"),
        ("apple", "a"),
    ],
)
def test_a_search_field_does_not_find(index: Index, text: str, query: str) -> None:
    index.add(text)
    assert index.find(query) == []


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("앞으로 다람쥐를 다랑어라고 부를게.", "다람쥐는?"),
        ("앞으로 다람쥐를 다랑어라고 부를게.", "다람쥐를 뭐라고 부르기로 했지?"),
        ("From now on I will call the squirrel tuna.", "What do I call the squirrels?"),
        ("I called them squirrels", "calling a squirrel"),
        ("今後リスをマグロと呼びます", "リスを何と呼びますか？"),
        ("以后我把松鼠叫做金枪鱼", "我把松鼠叫什么？"),
    ],
)
def test_a_question_finds_the_statement_first(index: Index, text: str, question: str) -> None:
    index.add("The weather will be what it is.", "오늘 점심은 김밥이야.", text, "何もない", "没有什么")
    assert index.find(question, all_words=False)[0] == 3


@pytest.mark.parametrize("query", ["", " ", '"', "'", "()*^:-", "\0", "\ud800", "…。、", '""" OR *'])
def test_what_cannot_be_searched_is_none_or_harmless(index: Index, query: str) -> None:
    index.add("plain words")
    for all_words in (True, False):
        assert index.find(query, all_words=all_words) == []


@pytest.mark.parametrize(
    "query", ['squirrel" OR "tuna', "NEAR(squirrel tuna)", "NOT squirrel", "body : squirrel", "squirrel*"]
)
def test_operators_of_the_index_are_words(index: Index, query: str) -> None:
    index.add("tuna", f"squirrel {query}")
    assert index.find(query) == [2]


def test_scope_fences_off_the_others(index: Index) -> None:
    index.add("a squirrel", scope="0a1b")
    index.add("a squirrel", scope="ffff")
    assert index.find("squirrel", scope=("0a1b",)) == [1]
    assert index.find("squirrel or tuna", all_words=False, scope=("ffff",)) == [2]
    assert index.find("squirrel", scope=("0a1b", "ffff")) == []


def test_a_pasted_text_is_a_bounded_query(index: Index) -> None:
    text = " ".join(f"word{n}" for n in range(5_000)) + " 다람쥐" * 10 + "가나다라마바사" * 1_000
    query = parse_query(text)
    assert len(query.words) == MAX_WORDS
    assert len(loose_terms(query)) <= MAX_LOOSE_TERMS
    index.add("word0 is known", "무관")
    assert index.find(text, all_words=False) == [1]
    assert index.find(text) == []


def test_a_long_run_without_spaces_is_found_by_any_of_its_parts(index: Index) -> None:
    text = "".join(chr(0xAC00 + 37 * n) for n in range(300))
    index.add(text)
    assert index.find(text) == [1]
    assert index.find(text[250:290]) == [1]
    assert index.find(text[200:] + text[:3]) == []


def test_base64_is_not_taken_apart() -> None:
    assert len(index_terms("aB" * 50_000).split()) == 1


def test_stems_bring_forms_together() -> None:
    for forms in (
        {"name", "names", "named", "naming"},
        {"squirrel", "squirrels"},
        {"call", "calls", "called", "calling"},
        {"berry", "berries"},
        {"live", "lives", "lived", "living"},
    ):
        assert len({stem(form) for form in forms}) == 1, forms
    assert stem("string") == "string"
    assert stem("class") == "class"
    assert stem("bus") == "bus"


def test_content_terms_leave_out_what_says_nothing() -> None:
    assert content_terms("What do I call the squirrel?") == {"call", "squirrel"}
    assert content_terms("What is it?") == {"what", "is", "it"}  # nothing else is there
    assert "람쥐" in content_terms("다람쥐는 뭐야?")


@given(ANY_TEXT)
@example("ﷺ" * 3)
@example("\u0130\u0345ǰΐ")
def test_any_text_gives_plain_terms(text: str) -> None:
    terms = index_terms(text)
    assert terms == " ".join(terms.split(" "))
    terms.encode()  # no lone surrogates
    for term in terms.split():
        assert 1 <= len(term) <= MAX_TERM
        assert all(not char.isascii() or char.isdigit() or "a" <= char <= "z" for char in term)
        assert not {unicodedata.category(char) for char in term} & {"Cc", "Cf", "Co", "Cs", "Zl", "Zp", "Zs"}


@given(ANY_TEXT, ANY_TEXT)
def test_the_index_and_the_reference_agree(text: str, query: str) -> None:
    index = Index()
    index.add(text)
    for all_words in (True, False):
        found = matches(parse_query(query), index_terms(text).split(), all_words=all_words)
        assert bool(index.find(query, all_words=all_words)) == found
    index.connection.close()


@given(
    st.lists(st.sampled_from(["다람쥐", "람쥐", "tuna", "tun", "쥐", "東京", "fooBar", "a", "the"]), max_size=6), CJK
)
def test_the_index_and_the_reference_agree_on_near_misses(words: list[str], query: str) -> None:
    index = Index()
    index.add(" ".join(words))
    for asked in (query, *words, "".join(words)):
        for all_words in (True, False):
            found = matches(parse_query(asked), index_terms(" ".join(words)).split(), all_words=all_words)
            assert bool(index.find(asked, all_words=all_words)) == found
    index.connection.close()


@given(CJK, st.data())
def test_every_substring_of_a_cjk_text_is_found(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    assert matches(parse_query(text[start:end]), index_terms(text).split())


@given(st.text(st.characters(categories=["Ll", "Lu", "Nd"]), min_size=1, max_size=30))
def test_every_text_of_letters_finds_itself(text: str) -> None:
    assert not parse_query(text).words or matches(parse_query(text), index_terms(text).split())
