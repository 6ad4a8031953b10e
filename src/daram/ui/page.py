"""What the page does: Chainlit's events (a tab opens, the user says, edits, stops) as turns of a chatbot.

Chainlit would let a turn live and die with the tab that began it, and store what it shows. Here the chatbot makes and
stores the answers; a tab only watches. So these handlers take the place of Chainlit's own for the same events.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from chainlit.action import Action
from chainlit.context import ChainlitContextException, get_context, init_ws_context
from chainlit.server import sio
from chainlit.session import WebsocketSession, ws_sessions_sid
from chainlit.socket import connect
from chainlit.user import User
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from daram import model
from daram.adapters.chainlit import DaramDataLayer, steps
from daram.chat import Chatbot
from daram.chat.running import Running
from daram.errors import DaramError, InvalidInput, NotFound
from daram.llm.base import ChatModel
from daram.model import Message
from daram.store.base import Store
from daram.store.documents import Document
from daram.ui import gate
from daram.ui.follow import follow, offer_retry
from daram.ui.gate import Logins
from daram.ui.library import CHOICE, Library, elements
from daram.ui.strings import plain, words
from daram.ui.tab import Tab, open_tabs, watch

if TYPE_CHECKING:
    from chainlit.socket import WebSocketSessionAuth
    from chainlit.step import StepDict

log = logging.getLogger(__name__)

_SESSION = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

HISTORY = 200  # messages that are shown of a conversation, the last ones
_FIRST_LOOK = 0.5  # seconds between two looks at a model that is not ready
_SLOWEST_LOOK = 5.0
_SESSIONS_SEEN = 15.0  # seconds between two looks at whose session has ended


class Page:
    """The open tabs of all who are logged in. ``open`` gives it what it works with; until then nobody is let in."""

    memory: Store
    model: ChatModel
    chatbot: Chatbot
    layer: DaramDataLayer
    library: Library

    def __init__(self, logins: Logins) -> None:
        self._logins = logins
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, memory: Store, chat_model: ChatModel, chatbot: Chatbot) -> None:
        """Begin to serve, on the running loop."""
        self.memory, self.model, self.chatbot = memory, chat_model, chatbot
        self.library = Library(memory, chatbot.documents)
        self.layer = DaramDataLayer(
            memory,
            owner=gate.owner,
            messages=False,
            note=_note,
            elements=elements,
            history=HISTORY,
        )
        self._spawn(self._see_who_left())

    async def close(self) -> None:
        """Stop watching; what the tabs have begun goes on in the chatbot."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def user(self, _headers: object = None) -> User:
        """Whom the gate let in."""
        return User(identifier=gate.owner() or "")

    def left(self, session: str) -> None:
        """That session has ended: its tabs hear no more, and have to log in again."""
        self._spawn(self._closeopen_tabs(session))

    async def _closeopen_tabs(self, session: str) -> None:
        for sid, open_session in list(ws_sessions_sid.items()):
            if gate.session_of(open_session.environ) == session:
                await sio.emit("reload", {}, to=sid)
                await sio.disconnect(sid)

    async def _see_who_left(self) -> None:
        """Sessions end elsewhere too: by time, a new password, in another process."""
        while True:
            await asyncio.sleep(_SESSIONS_SEEN)
            for session in {gate.session_of(tab.environ) for tab in ws_sessions_sid.values()}:
                try:
                    if await self._logins.visitor(session) is None:
                        await self._closeopen_tabs(session)
                except Exception:
                    log.exception("whether a session has ended could not be seen")

    async def resumable(self, _thread: object) -> None:
        """That this exists tells Chainlit that conversations can be gone on with; ``connected`` does it."""

    # --- what happens in a tab ---

    async def connects(self, sid: str, environ: dict[str, Any], auth: object = None) -> bool:
        """A tab connects, under an id that it has drawn. Chainlit makes a path of that id, and deletes what is there
        when the tab is closed: so what is no such id is refused."""
        if not isinstance(auth, dict) or not _SESSION.fullmatch(str(auth.get("sessionId"))):
            return False
        return bool(await connect(sid, environ, cast("WebSocketSessionAuth", auth)))

    async def connected(self, sid: str) -> None:
        """A tab was opened, or came back: show where its conversation stands, or greet."""
        init_ws_context(sid)
        session = WebsocketSession.require(sid)
        tab = Tab(session)
        await tab.emit("task_end", {})
        began = session.thread_id_to_resume or session.has_first_interaction
        try:
            if not (began and await self._show(tab)):
                if session.thread_id_to_resume:
                    await tab.emit("resume_thread_error", tab.words.not_found)
                    return
                await tab.say("greeting", tab.words.greeting)
        except DaramError as error:
            await self._explain(tab, error, "problem-open")
        self._spawn(self._tell_of_model(tab))
        self._spawn(self._offer_documents(tab))

    async def said(self, sid: str, payload: dict[str, Any]) -> None:
        """The user sent a message, perhaps with files."""
        tab = Tab(WebsocketSession.require(sid))
        message = model.user(payload["message"]["output"], id=payload["message"]["id"])
        dropped = [tab.session.files.pop(given["id"], None) for given in payload.get("fileReferences") or ()]
        if files := [file for file in dropped if file is not None]:
            if not await self._take(tab, message.id, files):
                return
            if not message.text.strip():
                await tab.emit("task_end", {})
                return
        await self._say(tab, message)

    async def chosen(self, sid: str, settings: dict[str, Any]) -> None:
        """The user chose the documents to answer from: the next turn has them. A choice alone begins nothing."""
        values = [str(value) for value in settings.get(CHOICE) or ()]
        WebsocketSession.require(sid).chat_settings[CHOICE] = values

    async def cited(self, request: Request) -> Response:
        """What a citation opens."""
        spoken = words(request.headers.get("accept-language"))
        where = request.path_params
        try:
            text = await self.library.passage(
                gate.owner() or "", where["thread"], where["message"], where["number"], spoken
            )
        except (NotFound, InvalidInput):
            return PlainTextResponse(spoken.not_found, 404)
        return PlainTextResponse(text, media_type="text/markdown", headers={"cache-control": "no-store"})

    async def edited(self, sid: str, payload: dict[str, Any]) -> None:
        """The user changed an earlier message: a new one beside it, which the conversation goes on from."""
        tab = Tab(WebsocketSession.require(sid))
        old = payload["message"]["id"]
        message = model.user(payload["message"]["output"], id=str(uuid4()))
        parent = None
        try:
            parent = (await self.memory.message(tab.owner, tab.conversation, old)).parent or model.ROOT
        except DaramError as error:  # it never got into the store: say it now
            log.info("the message that was edited cannot be read: %s", error)
        await tab.emit("delete_message", {"id": old})
        await tab.emit("new_message", steps.from_message(tab.conversation, message))
        await self._say(tab, message, parent)

    async def stopped(self, sid: str) -> None:
        """The user wants no more of the answer."""
        tab = Tab(WebsocketSession.require(sid))
        try:
            await self.chatbot.cancel(tab.owner, tab.conversation)
        except DaramError as error:
            await tab.emit("toast", {"message": str(error), "type": "error"})

    async def retried(self, action: Action) -> None:
        """The user clicked "try again" below an answer that failed, or below a message that was not stored."""
        session = get_context().session
        if not isinstance(session, WebsocketSession):
            return
        tab, given = Tab(session), action.payload
        await tab.emit("remove_action", {"id": action.id})
        if "question" not in given:
            await tab.emit("delete_message", {"id": action.forId})
            await self._say(tab, model.user(given["text"], id=given["id"]), given["parent"])
            return
        await tab.emit("task_start", {})
        try:
            await self._bind_to_choice(tab)
            running = await self.chatbot.regenerate(tab.owner, tab.conversation, given["question"])
        except Exception as error:
            log.exception("an answer could not be made anew")
            await self._explain(tab, error, f"problem-{given['question']}", given)
            return
        if "answer" in given:
            await tab.emit("delete_message", {"id": steps.run_id(given["answer"])})
        await self._watch_all(tab, running, new_message=False)

    async def titled(self, owner: str, _conversation: str, title: str) -> None:
        """A conversation got its title: the lists of all its owner's tabs are to be read again."""
        for tab in open_tabs(owner):
            await tab.reread_list(f"title {title}")

    # --- a turn ---

    async def _say(self, tab: Tab, message: Message, parent: str | None = None) -> None:
        tab.session.has_first_interaction = True
        await tab.emit("task_start", {})
        try:
            await self._bind_to_choice(tab)
            running = await self.chatbot.start(tab.owner, tab.conversation, message, parent=parent)
        except Exception as error:
            log.exception("a turn could not begin")
            again = {"id": message.id, "text": message.text, "parent": parent}
            await self._explain(tab, error, f"problem-{message.id}", again)
            return
        await tab.reread_list(running.question.id)
        await self._watch_all(tab, running, new_message=parent is None)

    async def _bind_to_choice(self, tab: Tab) -> None:
        values = tab.session.chat_settings.pop(CHOICE, None)
        if values is not None:
            await self.library.choose(tab.owner, tab.conversation, values)

    async def _take(self, tab: Tab, message: str, files: Sequence[Mapping[str, Any]]) -> bool:
        """Take files into the conversation, and tell of their reading. False where one was not taken."""
        tab.session.has_first_interaction = True
        await tab.emit("task_start", {})
        try:
            taken = await self.library.take(tab.owner, tab.conversation, files)
        except Exception as error:
            log.exception("a file could not be taken into a conversation")
            await self._explain(tab, error, f"problem-{message}")
            return False
        for number, document in enumerate(taken):
            self._spawn(self._tell_of_reading(tab, document, f"document-{message}-{number}"))
        return True

    async def _tell_of_reading(self, tab: Tab, document: Document, step_id: str) -> None:
        """One line about a file that is being read, and how that ended."""
        documents = self.library.documents
        assert documents is not None
        name = plain(document.name)
        said = tab.words.reading.format(name=name)
        await tab.say(step_id, said, metadata={"icon": "file-text"})
        reading = asyncio.ensure_future(documents.wait(document))
        try:
            while not (await asyncio.wait([reading], timeout=_FIRST_LOOK))[0]:
                work = await documents.progress(document)
                if work is not None and work.passages:
                    count = tab.words.passages.format(count=f"{work.passages:,}")
                    await tab.say(step_id, f"{said} {count}", metadata={"icon": "file-text"})
            document = reading.result()
        except NotFound:  # deleted meanwhile, with its conversation
            await tab.emit("delete_message", {"id": step_id})
            return
        finally:
            reading.cancel()
        if document.state == "failed":
            await tab.say(step_id, tab.words.explain("document", document.error or document.name), isError=True)
        else:
            await tab.say(step_id, tab.words.read.format(name=name), metadata={"icon": "file-text"})

    async def _offer_documents(self, tab: Tab) -> None:
        """The collections that the conversation can be answered from, among the page's settings."""
        settings = await self.library.choices(tab.owner, tab.conversation, tab.words)
        if settings:
            await tab.emit("chat_settings", settings)

    async def _watch_all(self, tab: Tab, running: Running, *, new_message: bool) -> None:
        """Show an answer in the tab where it was asked for, and in all others that show the conversation."""
        self._spawn(watch(tab, running))
        for other in open_tabs(tab.owner):
            if other.session is tab.session or other.conversation != tab.conversation:
                continue
            if new_message:
                await other.emit("new_message", steps.from_message(other.conversation, running.question))
                self._spawn(watch(other, running))
            else:  # another branch is in use now
                await self._show(other)

    async def _explain(self, tab: Tab, error: Exception, id: str, again: dict[str, Any] | None = None) -> None:
        """Say what went wrong; with a button to try again where that may help."""
        code = error.code if isinstance(error, DaramError) else ""
        await tab.say(id, tab.words.explain(code, str(error) or type(error).__name__), isError=True)
        if again is not None and (not isinstance(error, DaramError) or error.retryable):
            await offer_retry(tab.emit, id, again, tab.words)
        await tab.emit("task_end", {})

    # --- where a conversation stands ---

    async def _show(self, tab: Tab) -> bool:
        """Show the conversation as it is stored, and the answers that are being made in it. False if there is none."""
        try:
            answers = await self.memory.answers(tab.owner, tab.conversation)
        except DaramError:
            answers = []
        # Read after the answers: one that ends in between is in both, and shown once, by its id.
        thread = await self.layer.get_thread(tab.conversation)
        if thread is None:
            return False
        tab.session.has_first_interaction = True
        await tab.emit("first_interaction", {"interaction": "resume", "thread_id": tab.conversation})
        shown = [step for step in thread["steps"] if step["type"] != "run"]
        if len(shown) >= HISTORY:
            remark = tab.remark("earlier", f"*{tab.words.earlier.format(shown=HISTORY)}*")
            thread["steps"].insert(0, cast("StepDict", remark))
        if names := await self.library.files(tab.owner, tab.conversation):
            files = tab.remark("document-files", tab.words.files.format(names=", ".join(map(plain, names))))
            thread["steps"].insert(0, cast("StepDict", {**files, "metadata": {"icon": "file-text"}}))
        await tab.emit("resume_thread", thread)
        for answer in answers:
            events = self.chatbot.resume(tab.owner, tab.conversation, answer.id)
            told = follow(tab.emit, tab.conversation, answer.id, answer.question, events, tab.words, known=answer.text)
            self._spawn(told)
        if shown and not answers:
            await self._offer_to_finish(tab, shown[-1]["id"])
        return True

    async def _offer_to_finish(self, tab: Tab, message_id: str) -> None:
        """Where a conversation ends in an answer that is not whole, or without one: a button that asks again."""
        try:
            last = await self.memory.message(tab.owner, tab.conversation, message_id)
        except NotFound:
            return
        payload: dict[str, Any] | None = None
        if last.role == "user":
            payload = {"question": last.id}
        elif last.role == "assistant" and last.status != "complete" and last.parent:
            payload = {"question": last.parent, "answer": last.id}
        if payload is not None:
            await offer_retry(tab.emit, last.id, payload, tab.words)

    async def _tell_of_model(self, tab: Tab) -> None:
        """One line about a model that is not ready, for as long as it is not."""
        pause, shown, step_id = _FIRST_LOOK, "", f"model-{tab.session.id}"
        while (line := await self.model.ready()) is not None and tab.is_open():
            pause = _FIRST_LOOK if line != shown else min(pause * 1.5, _SLOWEST_LOOK)
            if line != shown:
                shown = line
                text = tab.words.not_ready.format(line=plain(line))
                await tab.say(step_id, text, metadata={"icon": "hourglass"})
            await asyncio.sleep(pause)
        if shown:
            await tab.emit("delete_message", {"id": step_id})

    # --- helpers ---

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("showing an answer failed", exc_info=error)


def _note(message: Message) -> str:
    try:
        language = getattr(get_context().session, "language", None)
    except ChainlitContextException:
        language = None
    return words(language).note(message)
