"""Whether the score of a search tells what the documents say from what they do not: measured, and fitted.

``python -m bench.grounding``: how often questions that the documents answer, and questions that they do not, are told
apart at the threshold, and what hybrid search finds beside lexical search, on ``bench/data/grounding.json``, which was
written for this, in English and Korean (SQuAD 2.0's format). ``--fit`` also fits the weights of
``daram.knowledge.relevance.Calibration`` anew, by five-fold cross-validation. ``--data FILE``: other questions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

import daram
from daram.knowledge import relevance, retrieve
from daram.knowledge.base import library
from daram.knowledge.embedding import name_of, packed
from daram.knowledge.retrieve import TUTORIAL, Query, Result, Retrieval, Retriever
from daram.llm.embed_local import LocalEmbedder
from daram.store.documents import Document, Passage, Scope

DATA = Path(__file__).parent / "data" / "grounding.json"
OWNER = "bench"
# Refusing what the documents say is a little worse than asking the model about what they do not: it can still say so.
_ANSWERED = 1.25
ALL = (Scope(OWNER, "en"), Scope(OWNER, "ko"))
MODES = {
    "lexical": Retrieval(words=1.0, vectors=0.0),
    "vector": Retrieval(words=0.0, vectors=1.0),
    "hybrid": Retrieval(),
    "tutorial": msgspec.structs.replace(TUTORIAL, three_ways=False),
}


class Asked(NamedTuple):
    """A question, and the document that answers it (None: none does)."""

    text: str
    language: str
    answer: str | None


class Row(NamedTuple):
    """What a search measured of a question: of its best passage, and whether there is an answer."""

    covered: float
    cosine: float
    answered: bool
    language: str


def read(path: Path) -> tuple[list[tuple[str, str, str, str]], list[Asked]]:
    """The paragraphs (id, title, text, language) and the questions of a file in SQuAD's format.

    A text that stands there twice, as some do in KorQuAD, is one paragraph: search gives it once.
    """
    paragraphs, asked = [], []
    first: dict[str, str] = {}
    for number, article in enumerate(json.loads(path.read_text("utf-8"))["data"]):
        for place, paragraph in enumerate(article["paragraphs"]):
            id = f"{number}.{place}"
            language = article.get("language") or (
                "ko" if any("가" <= c <= "힣" for c in paragraph["context"]) else "en"
            )
            text = " ".join(paragraph["context"].split())
            if text in first:
                id = first[text]
            elif text:
                first[text] = id
                paragraphs.append((id, article.get("title") or id, paragraph["context"], language))
            for question in paragraph["qas"]:
                answer = None if question.get("is_impossible") else id
                # One with a language of its own is asked across languages.
                asked.append(Asked(question["question"], "across" if "language" in question else language, answer))
    return paragraphs, asked


async def fill(store: Any, embedder: LocalEmbedder, paragraphs: Sequence[tuple[str, str, str, str]]) -> None:
    """Each paragraph as a document of one passage, in the collection of its language."""
    vectors = await embedder.embed([text for _, _, text, _ in paragraphs])
    for (id, title, text, language), vector in zip(paragraphs, vectors, strict=True):
        document = Document(id=id, owner=OWNER, collection=language, name=title, title=title)
        stored = await store.put_document(document)
        passage = Passage(seq=0, text=text, start=0, end=len(text), vector=packed(vector))
        await store.stage_passages(OWNER, language, id, "r1", [passage])
        ready = msgspec.structs.replace(stored, state="ready", embedder=name_of(embedder))
        await store.publish_document(ready, "r1", expect=stored.etag)


async def search(retriever: Retriever, asked: Sequence[Asked], how: Retrieval, scopes: Sequence[Scope]) -> list[Result]:
    """The results of all questions."""
    return [await retriever.search(scopes, [Query(question.text)], how) for question in asked]


def ranks(asked: Sequence[Asked], results: Sequence[Result]) -> str:
    """Recall at 1 and 5 and the mean reciprocal rank, of the questions that have an answer."""
    places = [
        next((n for n, passage in enumerate(result.passages, 1) if passage.document == question.answer), 0)
        for question, result in zip(asked, results, strict=True)
        if question.answer is not None
    ]
    size = len(places) or 1
    first, five = sum(place == 1 for place in places), sum(0 < place <= 5 for place in places)
    mrr = sum(1 / place for place in places if place)
    return f"R@1 {100 * first / size:5.1f}  R@5 {100 * five / size:5.1f}  MRR {mrr / size:.3f}  ({size} questions)"


def told_apart(asked: Sequence[Asked], results: Sequence[Result]) -> str:
    """How many questions are answered that should be, and refused that should be."""
    yes = [result.answers for question, result in zip(asked, results, strict=True) if question.answer is not None]
    no = [not result.answers for question, result in zip(asked, results, strict=True) if question.answer is None]
    return f"answered {sum(yes)}/{len(yes)}  refused {sum(no)}/{len(no)}"


# --- fitting ---


async def rows(retriever: Retriever, asked: Sequence[Asked], how: Retrieval, language: str | None) -> list[Row]:
    """What each question measures of its best passage, taken where the score is made of it: of its own language, or
    with ``across`` of the other one."""
    found: list[Row] = []
    real = relevance.confidence
    try:
        for question in asked:
            if question.answer is not None and (question.language == "across") != (language == "across"):
                continue
            measured: list[tuple[float, float]] = []

            def note(
                covered: float,
                cosine: float | None,
                *,
                across: bool = False,
                into: list[tuple[float, float]] = measured,
            ) -> float:
                if across == (language == "across"):
                    into.append((covered, cosine or 0.0))
                return real(covered, cosine, across=across)

            retrieve.confidence = note
            await retriever.search(ALL, [Query(question.text)], how)
            # Of the best one: where both are high.
            covered, cosine = max(measured, key=lambda pair: real(*pair), default=(0.0, 0.0))
            found.append(Row(covered, cosine, question.answer is not None, question.language))
    finally:
        retrieve.confidence = real
    return found


def fit(data: Sequence[Row], with_cosine: bool) -> relevance.Calibration:
    """Logistic regression by Newton's method with a little ridge. Languages weigh the same, classes nearly."""
    sizes: dict[tuple[bool, str], int] = {}
    for row in data:
        sizes[row.answered, row.language] = sizes.get((row.answered, row.language), 0) + 1
    x = np.array([[row.covered, row.cosine if with_cosine else 0.0, 1.0] for row in data])
    y = np.array([row.answered for row in data], dtype=float)
    weight = np.array([(_ANSWERED if row.answered else 1) / sizes[row.answered, row.language] for row in data])
    ridge = np.diag([1e-3, 1e-3, 0.0])
    by = np.zeros(3)
    for _ in range(50):
        p = 1 / (1 + np.exp(-(x @ by)))
        slope = x.T @ (weight * (y - p)) - ridge @ by
        curve = (x.T * (weight * p * (1 - p))) @ x + ridge + 1e-9 * np.eye(3)
        by = by + np.linalg.solve(curve, slope)
    return relevance.Calibration(*(round(float(value), 2) for value in by))


def right(by: relevance.Calibration, row: Row) -> bool:
    """Whether a calibration tells a question rightly."""
    return (by.covered * row.covered + by.cosine * row.cosine + by.constant >= 0) == row.answered


def cross_validated(data: Sequence[Row], with_cosine: bool) -> float:
    """The part of the questions that calibrations tell rightly that were fitted without them."""
    correct = 0
    for fold in range(5):
        by = fit([row for n, row in enumerate(data) if n % 5 != fold], with_cosine)
        correct += sum(right(by, row) for n, row in enumerate(data) if n % 5 == fold)
    return correct / len(data)


async def measure(path: Path, fitting: bool) -> None:
    """Print the tables."""
    paragraphs, asked = read(path)
    embedder = LocalEmbedder()
    async with daram.open("memory://") as memory:
        store = library(memory)
        await fill(store, embedder, paragraphs)
        retriever = Retriever(store, embedder)
        for mode, how in MODES.items():
            for language, scopes in (("en", ALL[:1]), ("ko", ALL[1:]), ("en", ALL), ("ko", ALL), ("across", ALL)):
                part = [question for question in asked if question.language == language]
                if part:
                    found = await search(retriever, part, how, scopes)
                    where = "both" if len(scopes) == 2 else language
                    print(f"{mode:9} {language:6} in {where:4}  {ranks(part, found)}  {told_apart(part, found)}")
        if fitting:
            for name, mode, with_cosine, language in (
                ("WORDS_ONLY", "lexical", False, None),
                ("WITH_VECTORS", "hybrid", True, None),
                ("ACROSS", "vector", True, "across"),
            ):
                data = await rows(retriever, asked, MODES[mode], language)
                share = cross_validated(data, with_cosine)
                print(f"{name} = {fit(data, with_cosine)}  told rightly when left out of the fit: {100 * share:.1f} %")


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.grounding", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="questions in SQuAD's format")
    parser.add_argument("--fit", action="store_true", help="fit the calibration anew")
    options = parser.parse_args()
    asyncio.run(measure(options.data, options.fit))


if __name__ == "__main__":
    main()
