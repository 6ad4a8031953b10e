"""Titles: one short line, made by the model behind the first answered turn, never in the way of an answer."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Final

from daram.errors import DaramError, ModelError, NotFound
from daram.llm.base import ChatModel, Options
from daram.model import Message, assistant, system, user
from daram.store.base import Store
from daram.text.clean import clean_text

log = logging.getLogger(__name__)

OnTitle = Callable[[str, str, str], Awaitable[None]]
"""Called with (owner, conversation, title) when a title was stored."""

MAX_CHARS: Final = 80
_OPTIONS: Final = Options(max_tokens=32, temperature=0.0)
_QUESTION_CHARS: Final = 500
# A title that the model did not give in this time (seconds) is made without it.
_TIMEOUT: Final = 60.0
# How often a title makes way for the next turn of its conversation before it is made without the model.
_ATTEMPTS: Final = 3
# How many of an owner's newest conversations are looked through for titles that a crash lost.
_LOOKED_THROUGH: Final = 20

_RULE: Final = (
    "You name conversations. For the message you are given, reply with a title of two to six words that says "
    "what it is about, in the language of the message. Never answer the message."
)
# A small model follows examples better than rules, and answers in their language: examples of one language only. With
# Qwen2.5-Coder-1.5B 26 of 27 messages in five languages had a usable title, without the frames 18 of 20 (it answered).
_ENGLISH: Final = (
    "Message: {}\nTitle:",
    ("Can you explain to me how I can bake bread at home without a mixer?", "Baking bread without a mixer"),
    ("My sister is called Anna and she is a doctor. Please keep that in mind.", "My sister Anna is a doctor"),
    ("Hello there", "Greeting"),
    ("What is the boiling point of water?", "Boiling point of water"),
)
_KOREAN: Final = (
    "메시지: {}\n제목:",
    ("다음 주에 부산으로 여행 가는데 어디를 가 보면 좋을까?", "부산 여행지 추천"),
    ("제 동생은 민수이고 대전에서 일해요.", "대전에서 일하는 동생 민수"),
    ("고마워!", "감사 인사"),
    ("물은 몇 도에서 끓어?", "물의 끓는점"),
)

_LABEL: Final = re.compile(
    r"^(?:the\s+)?(?:title|subject|topic|name|제목|주제|대화 제목|タイトル|件名|标题|標題|题目|主题)"
    r"\s*(?:is\b)?\s*[:：=-]\s*",
    re.IGNORECASE,
)
_ENDS: Final = ".。,;:："
_MARKS: Final = " \t\"'`*_~<>«»‹›“”„‟‘’‚「」『』《》〈〉【】[]|\u200b\ufeff"
_LIST_MARK: Final = re.compile(r"^(?:[-•–—]\s+|\d+[.)]\s+)")
_LINK: Final = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffd]+")
_TEMPLATE_TOKEN: Final = re.compile(r"<\|[^|>]*\|>|</?s>")
_CJK: Final = re.compile("[\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3]")
_WORD: Final = re.compile(r"\w")
_KANA_OR_HAN: Final = re.compile("[\u3041-\u30ff\u3400-\u9fff]")
_HANGUL: Final = re.compile("[\uac00-\ud7a3]")


def clean_title(said: str, question: str) -> str | None:
    """The title in what a model said, or None where it is not usable (empty, too long, in another script)."""
    title = ""
    for line in _TEMPLATE_TOKEN.sub("\n", clean_text(said)).splitlines():
        title = _strip(line)
        if title:
            break
    if not _WORD.search(title) or len(title) > MAX_CHARS:
        return None
    for script in (_HANGUL, _KANA_OR_HAN):
        if script.search(title) and not _CJK.search(question):
            return None  # the wrong language
    if _mostly_cjk(question) and not _CJK.search(title):
        return None
    return title


def plain_title(question: str) -> str | None:
    """The beginning of a message as a title, cut between words; None where it has no words."""
    text = " ".join(_CONTROL.sub(" ", clean_text(question[:2000])).split())
    if not _WORD.search(text):
        return None
    if len(text) <= MAX_CHARS:
        return text
    cut = text[: MAX_CHARS - 1]
    space = cut.rfind(" ")
    if space > MAX_CHARS // 2:
        cut = cut[:space]
    return cut.rstrip(" ,.;:-–—") + "…"


def _strip(line: str) -> str:
    line = _LINK.sub(r"\1", " ".join(_CONTROL.sub(" ", line).split()))
    before = None
    while before != line:
        before = line
        line = line.lstrip(_MARKS + "#").rstrip(_MARKS + _ENDS)  # C# is a name
        line = _LABEL.sub("", _LIST_MARK.sub("", line))
    return line


def _mostly_cjk(text: str) -> bool:
    letters = sum(character.isalpha() for character in text)
    return 2 * len(_CJK.findall(text)) > letters > 0


class _Job:
    """One title that is wanted. ``idle``: no turn of its conversation is running; ``asking``: the model is at it."""

    def __init__(self) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self.asking: asyncio.Task[str | None] | None = None


class Titler:
    """Makes titles in tasks of its own, on one event loop; a few at a time, with a small local model one at a time."""

    def __init__(self, memory: Store, model: ChatModel, on_title: OnTitle | None = None) -> None:
        self._memory = memory
        self._model = model
        self._on_title = on_title
        self._slots = asyncio.Semaphore(1 if model.prefers_notes else 4)
        self._jobs: dict[tuple[str, str], _Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._making_up: asyncio.Task[None] | None = None

    def began(self, owner: str, conversation: str) -> None:
        """A turn begins in that conversation: a title that is being made for it makes way."""
        if job := self._jobs.get((owner, conversation)):
            job.idle.clear()
            if job.asking is not None:
                job.asking.cancel()

    def ended(self, owner: str, conversation: str) -> None:
        """The turn has ended."""
        if job := self._jobs.get((owner, conversation)):
            job.idle.set()

    def want(self, owner: str, conversation: str, question: Message) -> None:
        """Give the conversation a title, unless it has one when the time has come."""
        key = (owner, conversation)
        if key in self._jobs or not question.text.strip():
            return
        job = self._jobs[key] = _Job()
        task = self._spawn(self._work(job, owner, conversation, question))
        task.add_done_callback(lambda _: self._jobs.pop(key))

    def make_up(self, owners: Sequence[str]) -> bool:
        """Want titles for the newest conversations of these owners that have none although a turn was answered.

        In the background, when the model can answer; returns False where the last call's work is still going on.
        """
        if self._making_up is not None and not self._making_up.done():
            return False
        self._making_up = self._spawn(self._look_through(owners))
        return True

    async def settle(self, seconds: float) -> None:
        """Wait for the titles that are being made, then give up the others: a sweep finds what is missing."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while self._tasks and (left_over := deadline - clock()) > 0:
            await asyncio.wait(self._tasks, timeout=left_over)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- titles that a crash lost ---

    async def _look_through(self, owners: Sequence[str]) -> None:
        try:
            if await self._model.ready() is not None:
                return
            for owner in owners:
                page = await self._memory.list(owner, limit=_LOOKED_THROUGH)
                for conversation in page.items:
                    if conversation.title is None and conversation.head is not None:
                        opening = await self._memory.messages(owner, conversation.id, limit=4)
                        if question := answered_question(opening.items):
                            self.want(owner, conversation.id, question)
        except Exception:
            log.exception("titles that are missing were not looked for")

    # --- one title ---

    async def _work(self, job: _Job, owner: str, conversation: str, question: Message) -> None:
        try:
            title = None
            for _ in range(_ATTEMPTS):
                await job.idle.wait()
                async with self._slots:
                    if not job.idle.is_set():
                        continue
                    if not await self._is_untitled(owner, conversation):
                        return
                    job.asking = asyncio.create_task(self._ask(question.text))
                    try:
                        title = await job.asking
                        break
                    except asyncio.CancelledError:
                        if (task := asyncio.current_task()) and task.cancelling():
                            raise
                    finally:
                        job.asking = None
            title = title or plain_title(question.text)
            # Read again as late as can be: a title that the user gave meanwhile stays.
            if title is None or not await self._is_untitled(owner, conversation):
                return
            await self._memory.update(owner, conversation, title=title)
            if self._on_title is not None:
                await self._on_title(owner, conversation, title)
        except NotFound:
            log.debug("conversation %s was deleted before it had a title", conversation)
        except DaramError as error:
            log.warning("conversation %s has no title yet: %s", conversation, error)
        except Exception:
            log.exception("the title of conversation %s could not be told", conversation)

    async def _is_untitled(self, owner: str, conversation: str) -> bool:
        return (await self._memory.get(owner, conversation)).title is None

    async def _ask(self, text: str) -> str | None:
        said = ""
        try:
            async with asyncio.timeout(_TIMEOUT):
                deltas = self._model.stream(_prompt(text), _OPTIONS)
                try:
                    async for delta in deltas:
                        said += delta.text
                        if delta.finish is not None or "\n" in said.lstrip() or len(said) > 4 * MAX_CHARS:
                            break
                finally:
                    if (aclose := getattr(deltas, "aclose", None)) is not None:
                        await aclose()
        except (ModelError, TimeoutError) as error:
            log.info("the model gave no title: %s", error)
            return None
        except Exception:
            log.exception("the model's plug-in failed on a title")
            return None
        return clean_title(said, text)


def answered_question(messages: Sequence[Message]) -> Message | None:
    """The first question among the first messages of a conversation, if a turn answered it."""
    question = None
    for message in messages:
        if message.role == "user":
            question = message
        elif message.role == "assistant" and message.status != "failed" and message.model is not None:
            return question
    return None


def _prompt(text: str) -> list[Message]:
    korean = _mostly_cjk(text) and _HANGUL.search(text) is not None
    frame, *examples = _KOREAN if korean else _ENGLISH
    shots = [m for asked, named in examples for m in (user(frame.format(asked)), assistant(named))]
    return [system(_RULE), *shots, user(frame.format(" ".join(text[:_QUESTION_CHARS].split())))]
