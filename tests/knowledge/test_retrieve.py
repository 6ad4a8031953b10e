"""Finding passages: fusion, merging, the threshold, other wordings; what fails on the way is done without."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.knowledge.texts import OTTER, SQUIRREL, TUNA, Letters
from tests.unit.chat_script import Gate, ScriptedModel

from daram import errors
from daram.knowledge import fuse, relevance
from daram.knowledge.documents import Documents
from daram.knowledge.retrieve import TUTORIAL, Query, Retrieval
from daram.knowledge.rewrite import in_words, points_back, queries
from daram.llm.embed_local import LocalEmbedder
from daram.memory import Memory
from daram.model import assistant, user
from daram.store.documents import Passage as Stored
from daram.store.documents import PassageHit, Scope
from daram.text.chunk import Chunking

pytestmark = pytest.mark.usefixtures("in_process")

ANN = "ann"
HERE = Scope(ANN, "animals")
DATA = Path(__file__).parents[2] / "bench" / "data" / "grounding.json"


def hit(seq: int, text: str, start: int = 0, document: str = "d", page: int | None = None) -> PassageHit:
    passage = Stored(seq=seq, text=text, start=start, end=start + len(text), page=page)
    return PassageHit(
        scope=HERE, document=document, revision="r", name=document, title=None, passage=passage, score=1.0
    )


def place(document: str) -> fuse.Place:
    return HERE, document, 0


def test_fusion_adds_what_the_rankings_say():
    a, b, c = place("a"), place("b"), place("c")
    points = fuse.fused([([(a, 1.0), (b, 1.0)], 0.3), ([(b, 1.0), (c, 0.5)], 0.7)], k=60)
    assert list(points) == [b, c, a]
    assert points[b] == pytest.approx(0.3 / 62 + 0.7 / 61)
    assert points[c] == pytest.approx(0.7 * 0.5 / 62)
    assert list(fuse.fused([([(a, 1.0)], 1.0), ([(b, 1.0)], 1.0)])) == [a, b]  # ties have an order


def test_a_hit_counts_as_far_as_its_score_reaches():
    hits = [structs.replace(hit(n, "x"), score=score) for n, score in enumerate((8.0, 4.0, -1.0))]
    assert [part for _, part in fuse.ranked(hits, 8.0)] == [1.0, 0.5, 0.0]
    assert [part for _, part in fuse.ranked(hits, 0.0)] == [0.0] * 3
    # What has all the words stays before what has half of them, though the vectors put that first.
    words, vectors = fuse.ranked(hits[:2], 8.0), fuse.ranked([structs.replace(hits[1], score=0.4)], 1.0)
    assert next(iter(fuse.fused([(words, 0.7), (vectors, 0.3)]))) == fuse.place_of(hits[0])


def test_neighbours_become_one_passage_with_what_they_share_once():
    text = "One two three four five six seven"
    first, second = hit(0, text[:18]), hit(1, text[14:], 14)
    other = hit(5, "Elsewhere", 90)
    found = fuse.merged([(second, 0.6), (other, 0.5), (first, 0.9)])
    assert [(p.text, p.start, p.end, p.first, p.last, p.score) for p in found] == [
        (text, 0, len(text), 0, 1, 0.9),
        ("Elsewhere", 90, 99, 5, 5, 0.5),
    ]
    assert len(fuse.merged([(hit(0, "a", page=1), 1.0), (hit(1, "b", page=2), 1.0)])) == 2  # a passage has one page
    assert len(fuse.merged([(hit(0, "same  text"), 1.0), (hit(0, "same text", document="e"), 0.9)])) == 1


def test_what_part_of_a_question_a_text_speaks_of():
    def covered(question: str, text: str, *others: str) -> float:
        texts = [relevance.terms_of(one) for one in (text, *others)]
        return relevance.coverages(relevance.sought(question), texts)[0]

    assert covered("Where do squirrels hide acorns?", SQUIRREL, TUNA) == pytest.approx(1.0)
    assert covered("Where do squirrels hide acorns?", TUNA, SQUIRREL) == 0.0
    assert covered("다람쥐는 도토리를 어디에 숨기나요?", OTTER, TUNA) > 0.5
    assert covered("acorns", "x " * 5000 + SQUIRREL) == pytest.approx(1.0)  # to its end
    assert covered("?", SQUIRREL) == 0.0


async def test_hybrid_search_finds_by_words_and_by_meaning(memory: Memory):
    documents = Documents(memory, Letters())
    for name, text in (("s", SQUIRREL), ("t", TUNA), ("o", OTTER)):
        await documents.add(ANN, "animals", text.encode(), name=f"{name}.txt", wait=True)
    by_words = await documents.search(ANN, "acorns", "animals", how=Retrieval(words=1, vectors=0))
    assert [p.name for p in by_words.passages] == ["s.txt"]
    both = await documents.search(ANN, "acorns", "animals")
    assert both.passages[0].name == "s.txt"
    assert len(both.passages) == 3  # by meaning everything is somehow near
    by_meaning = await documents.search(ANN, TUNA, "animals", how=Retrieval(words=0, vectors=1))
    assert by_meaning.passages[0].name == "t.txt"
    assert (await documents.search(ANN, "acorns")).passages[0].name == "s.txt"  # in all collections
    assert (await documents.search("bob", "acorns")).passages == []


async def test_a_passage_is_of_the_revision_that_was_searched(memory: Memory, monkeypatch: pytest.MonkeyPatch):
    documents = Documents(memory)
    before = await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt", wait=True)
    search = memory.search_passages

    async def replaced_meanwhile(*args: Any, **options: Any) -> list[PassageHit]:
        hits = await search(*args, **options)
        await documents.add(ANN, "animals", TUNA.encode(), name="a.txt", wait=True)
        return hits

    monkeypatch.setattr(memory, "search_passages", replaced_meanwhile)
    (found,) = (await documents.search(ANN, "Where does the squirrel hide acorns?", "animals")).passages
    assert (found.text, found.revision) == (SQUIRREL, before.revision)


async def test_without_the_model_words_are_searched(memory: Memory, caplog: pytest.LogCaptureFixture):
    model = Letters()
    documents = Documents(memory, model)
    await documents.add(ANN, "animals", SQUIRREL.encode(), name="s.txt", wait=True)
    model.down = True
    result = await documents.search(ANN, "Where does the squirrel hide acorns?", "animals")
    assert (result.answers, [p.name for p in result.passages]) == (True, ["s.txt"])
    assert "words are searched alone" in caplog.text


@pytest.mark.parametrize("question", ["", "  ", "?!", "…—"])
async def test_what_holds_no_word_finds_nothing(documents: Documents, question: str):
    await documents.add(ANN, "animals", SQUIRREL.encode(), name="s.txt", wait=True)
    result = await documents.search(ANN, question, "animals")
    assert (result.passages, result.score, result.answers) == ([], 0.0, False)


async def test_a_pasted_page_is_searched_by_its_beginning(documents: Documents):
    await documents.add(ANN, "animals", SQUIRREL.encode(), name="s.txt", wait=True)
    result = await documents.search(ANN, SQUIRREL + " and so on" * 1000, "animals")
    assert [p.name for p in result.passages] == ["s.txt"]


class Backwards:
    """A re-ranker that turns the order round, or fails."""

    def __init__(self, *, fails: bool = False, short: bool = False) -> None:
        self.fails, self.short = fails, short
        self.asked: list[str] = []

    async def rerank(self, question, texts):
        self.asked.append(question)
        if self.fails:
            raise errors.ModelUnavailable("no re-ranker today")
        return [] if self.short else list(range(len(texts)))


@pytest.mark.parametrize(
    ("reranker", "turned"), [(Backwards(), True), (Backwards(fails=True), False), (Backwards(short=True), False)]
)
async def test_a_re_ranker_has_the_last_word_if_it_has_one(memory: Memory, reranker: Backwards, turned: bool):
    documents = Documents(memory)
    for number, text in enumerate(("squirrel squirrel acorn", "squirrel " + "tree " * 40)):
        await documents.add(ANN, "animals", text.encode(), name=f"{number}.txt", wait=True)
    plain = await Documents(memory).search(ANN, "squirrel", "animals")
    ranked = await Documents(memory, reranker=reranker).search(ANN, "squirrel", "animals")
    names = [p.name for p in plain.passages]
    assert len(names) == 2
    assert [p.name for p in ranked.passages] == (names[::-1] if turned else names)
    assert reranker.asked == ["squirrel"]


async def test_neighbouring_passages_of_a_real_document_are_merged(documents: Documents):
    await documents.create(ANN, id="animals", chunking=Chunking(size=60, overlap=10))
    text = "The squirrel hides acorns here. The squirrel hides acorns there. " * 2 + "Nothing else. " * 30
    await documents.add(ANN, "animals", text.encode(), name="s.txt", wait=True)
    result = await documents.search(ANN, "squirrel acorns", "animals")
    best = result.passages[0]
    assert best.last > best.first
    assert text[best.start : best.end].split() == best.text.split()


@pytest.mark.parametrize(
    "how", [{"words": -1}, {"words": 0, "vectors": 0}, {"k": 0}, {"passages": 0}, {"passages": 30}, {"threshold": 2}]
)
async def test_a_way_to_search_that_cannot_be_is_refused(documents: Documents, how: dict[str, float]):
    with pytest.raises(errors.InvalidInput):
        await documents.search(ANN, "acorns", "animals", how=Retrieval(**how))  # type: ignore[arg-type]


def test_the_tutorials_preset():
    assert (TUTORIAL.words, TUTORIAL.vectors, TUTORIAL.three_ways) == (0.3, 0.7, True)


# --- wordings ---

PAST = [user("Where does the red squirrel hide its acorns?"), assistant("Under oak trees.")]


@pytest.mark.parametrize(
    "question", ["and in Korean?", "Why?", "What does it eat in winter?", "그건 왜 그래?", "한국어로?", "더 알려줘"]
)
def test_what_points_back(question: str):
    assert points_back(question)


@pytest.mark.parametrize(
    "question",
    [
        "How many paid leave days does an employee earn?",
        "정규직 직원은 한 달에 유급 휴가가 며칠 생기나요?",
        "When is the office closed?",
    ],
)
def test_what_stands_alone(question: str):
    assert not points_back(question)


async def test_without_a_model_the_words_before_are_taken():
    assert await queries("and in Korean?", PAST) == [
        Query("Where does the red squirrel hide its acorns? and in Korean?"),
        Query("and in Korean?", 0.5, judged=False),
    ]
    later = [*PAST, user("and in Korean?"), assistant("참나무 아래.")]
    assert in_words("why?", later) == "Where does the red squirrel hide its acorns? and in Korean? why?"
    assert await queries("and in Korean?", []) == [Query("and in Korean?")]
    assert await queries("How many paid leave days does an employee earn?", PAST) == [
        Query("How many paid leave days does an employee earn?")
    ]


async def test_a_model_words_the_question_anew():
    model = ScriptedModel('"Where does the red squirrel hide acorns, in Korean?"\n')
    found = await queries("and in Korean?", PAST, model)
    assert [query.text for query in found] == [
        "Where does the red squirrel hide acorns, in Korean?",
        "and in Korean?",
    ]
    (prompt,) = model.calls
    assert "user: Where does the red squirrel hide its acorns?" in prompt[1].text
    assert "Last question: and in Korean?" in prompt[1].text


async def test_a_model_that_is_slow_or_fails_or_says_nothing_is_done_without():
    gate = Gate()
    for step in (gate, errors.ModelUnavailable("gone"), "...", ""):
        found = await queries("and in Korean?", PAST, ScriptedModel([step]), seconds=0.05)
        assert found[0].text == "Where does the red squirrel hide its acorns? and in Korean?"
    assert gate.reached.is_set()


async def test_what_bears_on_no_question_is_found_and_answers_nothing(documents: Documents):
    await documents.add(ANN, "animals", SQUIRREL.encode(), name="s.txt", wait=True)
    result = await documents.search(ANN, [Query("acorns", judged=False)], "animals")
    assert result.passages and not result.answers


async def test_a_wording_that_went_wrong_does_not_hide_what_was_asked(documents: Documents):
    await documents.add(ANN, "animals", SQUIRREL.encode(), name="s.txt", wait=True)
    wrong = await queries("Where does it hide acorns in winter?", PAST, ScriptedModel("The weather on Mars"))
    result = await documents.search(ANN, wrong, "animals")
    assert (result.answers, [p.name for p in result.passages]) == (True, ["s.txt"])


async def test_three_ways_by_the_model_or_by_form():
    question = "How do I use the cache of Django in production?"
    model = ScriptedModel("1. cache concept\n- using the cache\ncode: cache.set cache.get\nmore")
    found = await queries(question, [], model, three_ways=True)
    assert [query.text for query in found] == [question, "cache concept", "using the cache", "cache.set cache.get"]
    assert [query.text for query in await queries("장고 캐시는 어떻게 쓰나요?", [], three_ways=True)] == [
        "장고 캐시는 어떻게 쓰나요?",
        "장고 캐시는 어떻게 쓰나요 개념 뜻",
        "장고 캐시는 어떻게 쓰나요 사용 방법",
        "장고 캐시는 어떻게 쓰나요 코드 예제",
    ]


# --- calibration ---


def test_which_texts_are_of_different_scripts():
    assert relevance.across("다람쥐는 어디에 사나요?", SQUIRREL)
    assert relevance.across("Where does it live?", OTTER)
    assert not relevance.across("Django 시그널은 어떻게 연결하나요?", OTTER)
    assert not relevance.across("Where?", SQUIRREL)


async def test_a_question_finds_what_is_said_in_another_language_behind_words_shared_by_chance(memory: Memory):
    """With the local model: letters have no meaning."""
    documents = Documents(memory, LocalEmbedder())
    texts = {"en.txt": SQUIRREL, "ko.txt": "환불은 구매한 날부터 열나흘 안에 신청한다. 다람쥐 그림이 있는 상품도 같다."}
    for name, text in texts.items():
        await documents.add(ANN, "animals", text.encode(), name=name, wait=True)
    result = await documents.search(ANN, "붉은 다람쥐는 도토리를 어디에 숨기나요?", "animals")
    assert (result.answers, result.passages[0].name) == (True, "en.txt")


RULES = (
    "사무실은 오전 8시에 열고 오후 7시에 닫는다. 집중 근무시간은 오전 10시부터 오후 4시까지이다.",
    "직원은 한 달을 일할 때마다 유급 휴가를 이틀 받는다. 쓰지 않은 휴가는 다음 해 3월 31일에 없어진다.",
    "기차로 출장을 갈 때에는 일반실을 예약한다. 숙박비는 하룻밤에 십이만 원까지 인정한다.",
)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("휴가는 한 달에 며칠 받나요?", True),
        ("쓰지 않은 휴가는 언제 없어지나요?", True),
        ("사무실은 언제 여나요?", True),
        ("숙박비는 얼마까지 되나요?", True),
        ("대표이사는 누구인가요?", False),
        ("점심은 어디서 먹나요?", False),
        ("주차는 몇 시까지 할 수 있나요?", False),
    ],
)
async def test_how_a_korean_question_is_put_is_nothing_that_documents_lack(
    documents: Documents, question: str, said: bool
):
    for number, text in enumerate(RULES):
        await documents.add(ANN, "rules", text.encode(), name=f"{number}.txt", wait=True)
    assert (await documents.search(ANN, question, "rules")).answers is said


async def test_the_threshold_tells_what_the_documents_say_from_what_they_do_not(documents: Documents):
    """By words alone, without a model; ``python -m bench.grounding`` measures all modes."""
    articles = json.loads(DATA.read_text("utf-8"))["data"]
    for number, article in enumerate(articles):
        if text := article["paragraphs"][0]["context"]:
            await documents.add(ANN, "all", text.encode(), name=f"{number}.txt", title=article["title"], wait=True)
    said, not_said, first, count = 0, 0, 0, {True: 0, False: 0}
    for number, article in enumerate(articles):
        for question in article["paragraphs"][0]["qas"]:
            if "language" in question:  # asked across languages: no words in common
                continue
            result = await documents.search(ANN, question["question"], "all")
            impossible = question["is_impossible"]
            count[impossible] += 1
            not_said += impossible and not result.answers
            said += not impossible and result.answers
            first += not impossible and bool(result.passages) and result.passages[0].name == f"{number}.txt"
            await asyncio.sleep(0)
    assert first / count[False] > 0.9
    assert said / count[False] > 0.75
    assert not_said / count[True] > 0.75
