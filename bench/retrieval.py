"""``make bench-retrieval``: what search finds, by words, by meaning and by both, on each engine that keeps documents.

On ``bench/data/retrieval.json`` and ``bench/data/grounding.json`` (paragraphs and questions in English and Korean that
were written for this project, under its licence), or on any file in SQuAD's format: ``make bench-retrieval
DATA=KorQuAD_v1.0_dev.json``. One line of JSON per row: ``engine``, ``language``, ``mode``, the share of questions whose
paragraph is the first, among the first 5 and 10 (``r1``, ``r5``, ``r10``, in per cent), the mean reciprocal rank
(``mrr``) of so many ``questions``, and what a search takes, the embedding of the question included: the median in
milliseconds (``ms``), and the median of this process's time on the processor (``cpu_ms``), which on a busy machine says
more. They are of ``TIMED`` questions, one after the other; the rankings of the others, which each mode fuses anew, are
asked for once. A row with ``ingest`` says how many passages a second were embedded, stored and published
(``paragraphs``: each is a document; of those ``beside`` the vectors are drawn, not made), and the most memory that this
process has held so far.

``--beside N``: N passages that answer nothing (``bench.beside``), in a collection that is searched with the rest: what
it costs at size. ``--only``: one engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

import daram
from bench.beside import Beside
from bench.grounding import DATA, MODES, OWNER, Asked, fill, read
from daram.errors import MissingExtra
from daram.knowledge.base import library
from daram.knowledge.embedding import name_of, packed
from daram.knowledge.retrieve import Query, Retrieval, Retriever
from daram.llm.embed_local import LocalEmbedder
from daram.store.documents import Document, Passage, Scope
from daram.testing.servers import PostgresServer

FILES = (DATA.with_name("retrieval.json"), DATA)
ENGINES = ("sqlite", "postgres")
BESIDE = "beside"
_DEPTH = 10
_STAGED = 200
TIMED = 200

T = TypeVar("T")

Row = dict[str, Any]


@asynccontextmanager
async def opened(engine: str) -> AsyncIterator[Any]:
    """A fresh store of an engine. Raises ``MissingExtra`` where it cannot be started here."""
    if engine == "sqlite":
        with tempfile.TemporaryDirectory(prefix="daram-bench-") as home:
            async with daram.open(f"sqlite:///{home}/daram.db") as memory:
                yield memory
        return
    with PostgresServer() as server:
        async with daram.open(server.url_of(server.database())) as memory:
            yield memory


async def measure(engine: str, files: Sequence[Path], beside: int = 0) -> AsyncIterator[Row]:
    """The rows of one engine."""
    paragraphs, asked = [], []
    for number, file in enumerate(files):
        more, questions = read(file)
        paragraphs += [(f"{number}/{id}", title, text, language) for id, title, text, language in more]
        asked += [q._replace(answer=f"{number}/{q.answer}") for q in questions if q.answer is not None]
    embedder = LocalEmbedder()
    async with opened(engine) as memory:
        store = library(memory)
        began = time.perf_counter()
        await fill(store, embedder, paragraphs)
        yield _ingested(engine, "paragraphs", len(paragraphs), began)
        if beside:
            vectors = await embedder.embed([text for _, _, text, _ in paragraphs])
            drawn = Beside([(title, text, language) for _, title, text, language in paragraphs], vectors)
            began = time.perf_counter()
            await _fill_beside(store, embedder, drawn, beside)
            yield _ingested(engine, BESIDE, beside, began)
        for language in dict.fromkeys(language for *_, language in paragraphs):
            scopes = [Scope(OWNER, language), *([Scope(OWNER, BESIDE)] if beside else [])]
            questions = [question for question in asked if question.language == language]
            remembered = Remembered(store, embedder)
            for mode, how in MODES.items():
                found = await ranked(Retriever(remembered, remembered), questions, how, scopes)
                times = await timed(Retriever(store, embedder), questions, how, scopes)
                yield {"engine": engine, "language": language, "mode": mode, **found, **times}
    await embedder.close()


class Remembered:
    """A store and an embedder that are asked for each thing once."""

    def __init__(self, store: Any, embedder: LocalEmbedder) -> None:
        self.name, self.dimensions = embedder.name, embedder.dimensions
        self._store = store
        self._embedder = embedder
        self._known: dict[Any, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The vectors of questions."""
        return [await self._once(("embed", text), lambda text=text: self._embed(text)) for text in texts]

    async def search_passages(self, scopes: Sequence[Scope], query: str, **how: Any) -> Any:
        """By words."""
        key = ("words", *scopes, query, str(how))
        return await self._once(key, lambda: self._store.search_passages(scopes, query, **how))

    async def nearest_passages(self, scopes: Sequence[Scope], vector: Sequence[float], name: str, **how: Any) -> Any:
        """By meaning."""
        key = ("meaning", *scopes, tuple(vector), name, str(how))
        return await self._once(key, lambda: self._store.nearest_passages(scopes, vector, name, **how))

    async def get_document(self, *ref: str) -> Any:
        """What a document is said to be."""
        return await self._once(("document", *ref), lambda: self._store.get_document(*ref))

    async def _embed(self, text: str) -> list[float]:
        return (await self._embedder.embed([text]))[0]

    async def _once(self, key: Any, ask: Callable[[], Awaitable[T]]) -> T:
        if key not in self._known:
            self._known[key] = await ask()
        found: T = self._known[key]
        return found


async def ranked(retriever: Retriever, asked: Sequence[Asked], how: Retrieval, scopes: Sequence[Scope]) -> Row:
    """What is found of the questions' paragraphs."""
    how = _deep(how)
    places = []
    for question in asked:
        result = await retriever.search(scopes, [Query(question.text)], how)
        places.append(next((n for n, found in enumerate(result.passages, 1) if found.document == question.answer), 0))
    shares = {f"r{k}": round(100 * sum(0 < place <= k for place in places) / len(places), 1) for k in (1, 5, _DEPTH)}
    mrr = sum(1 / place for place in places if place) / len(places)
    return {**shares, "mrr": round(mrr, 4), "questions": len(places)}


async def timed(retriever: Retriever, asked: Sequence[Asked], how: Retrieval, scopes: Sequence[Scope]) -> Row:
    """How long a search takes, over some questions from everywhere among those."""
    how = _deep(how)
    times: list[tuple[float, float]] = []
    for question in asked[:: max(1, len(asked) // TIMED)]:
        began = time.perf_counter(), time.process_time()
        await retriever.search(scopes, [Query(question.text)], how)
        times.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    ms, cpu_ms = (round(1000 * statistics.median(each), 2) for each in zip(*times, strict=True))
    return {"ms": ms, "cpu_ms": cpu_ms}


def _deep(how: Retrieval) -> Retrieval:
    return msgspec.structs.replace(how, passages=_DEPTH, candidates=max(how.candidates, 2 * _DEPTH))


async def _fill_beside(store: Any, embedder: LocalEmbedder, beside: Beside, count: int) -> None:
    """So many passages that answer nothing, in one collection."""
    for number, first in enumerate(range(0, count, _STAGED)):
        size = min(_STAGED, count - first)
        passages = [
            Passage(seq=seq, text=text, start=0, end=len(text), vector=packed(vector))
            for seq, (text, vector) in enumerate(zip(beside.texts(size), beside.vectors(size), strict=True))
        ]
        id = f"beside-{number}"
        stored = await store.put_document(Document(id=id, owner=OWNER, collection=BESIDE, name=id))
        await store.stage_passages(OWNER, BESIDE, id, "r1", passages)
        ready = msgspec.structs.replace(stored, state="ready", embedder=name_of(embedder))
        await store.publish_document(ready, "r1", expect=stored.etag)


def _ingested(engine: str, what: str, count: int, began: float) -> Row:
    # Kilobytes on Linux, bytes on macOS; the most that this process has held so far.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 10 if sys.platform == "linux" else 1 << 20)
    rate = round(count / (time.perf_counter() - began))
    return {"engine": engine, "ingest": what, "passages": count, "per_second": rate, "peak_mb": round(peak)}


async def run(engines: Sequence[str], files: Sequence[Path], beside: int) -> None:
    """Measure and print."""
    for engine in engines:
        try:
            async for row in measure(engine, files, beside):
                print(json.dumps(row), flush=True)
        except MissingExtra as error:
            print(f"{engine} is not measured: {error}", file=sys.stderr)


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.retrieval", description="What search finds.")
    parser.add_argument("--data", type=Path, metavar="FILE", help="a file in SQuAD's format, in place of our own")
    parser.add_argument("--beside", type=int, default=0, metavar="N", help="so many passages beside")
    parser.add_argument("--only", choices=ENGINES, help="one engine")
    options = parser.parse_args()
    files = (options.data,) if options.data else FILES
    asyncio.run(run([options.only] if options.only else ENGINES, files, options.beside))


if __name__ == "__main__":
    main()
