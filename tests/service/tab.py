"""A browser's tab without a browser: speaks Chainlit's socket protocol and keeps what its page would show."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import socketio
from tests.service.served import Page

_WAIT = 60.0  # seconds


class Tab:
    """Opens the page as whoever is logged in, connects, and follows what the server says.

    ``steps``: what is shown, by id, in order; ``actions``: the buttons; ``loading``: whether an answer is being made;
    ``thread``: the conversation in the address bar; ``interactions``: what made the page read its list again.
    """

    def __init__(
        self,
        page: Page,
        *,
        thread: str = "",
        language: str = "en-US",
        session: str | None = None,
        cookies: dict[str, str] | None = None,
        greeted: bool = True,
    ) -> None:
        self.url = page.url
        self._path = f"{urlsplit(page.chat).path}/ws/socket.io"
        self._greeted = greeted
        self.thread = thread
        self.session = session or str(uuid.uuid4())
        self.steps: dict[str, dict[str, Any]] = {}
        self.actions: dict[str, dict[str, Any]] = {}
        self.elements: dict[str, dict[str, Any]] = {}
        self.settings: list[dict[str, Any]] = []
        self.loading = False
        self.errors: list[str] = []
        self.interactions: list[str] = []
        self.closed = False
        known = page.cookies if cookies is None else cookies
        self.http = httpx.AsyncClient(base_url=page.chat, timeout=_WAIT, trust_env=False, cookies=known)
        self._language = language
        self._changed = asyncio.Condition()
        self._socket = socketio.AsyncClient(reconnection=False)
        self._socket.on("*", self._hear)
        self._socket.on("disconnect", self._end)

    async def __aenter__(self) -> Self:
        try:
            return await self._open()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise

    async def _open(self) -> Self:
        page = await self.http.get("/")
        assert page.status_code == 200
        cookie = "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())
        auth = {
            "sessionId": self.session,
            "threadId": self.thread,
            "clientType": "webapp",
            "userEnv": "{}",
            "chatProfile": "",
        }
        headers = {"Cookie": cookie, "Accept-Language": self._language, "Origin": self.url}
        await self._socket.connect(self.url, headers=headers, auth=auth, socketio_path=self._path, wait_timeout=_WAIT)
        await self._socket.emit("connection_successful")
        if self._greeted:
            await self.until(lambda tab: tab.shown or tab.errors, note="to be greeted")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._socket.disconnect()
        await self._socket.eio.http.close() if self._socket.eio.http else None
        await self.http.aclose()

    # --- what a user does ---

    async def drop(self, name: str, data: bytes, kind: str) -> str:
        """Drop a file into the input; returns what the page then sends with the message."""
        answer = await self.http.post(f"/project/file?session_id={self.session}", files={"file": (name, data, kind)})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    async def choose(self, **settings: object) -> None:
        """Change the settings of the chat."""
        await self._socket.emit("chat_settings_change", settings)

    async def say(self, text: str, *files: str) -> str:
        """Type a message and send it with what was dropped; returns its id."""
        message = {"id": str(uuid.uuid4()), "output": text, "type": "user_message", "name": "You"}
        message["createdAt"] = "2026-01-01T00:00:00.000Z"
        self.steps[message["id"]] = dict(message)
        await self._socket.emit(
            "client_message", {"message": message, "fileReferences": [{"id": file} for file in files]}
        )
        return message["id"]

    async def edit(self, id: str, text: str) -> None:
        """Change an earlier message: what comes behind it is no longer shown."""
        shown = list(self.steps)
        for later in shown[shown.index(id) + 1 :]:
            del self.steps[later]
        await self._socket.emit("edit_message", {"message": {**self.steps[id], "output": text}})

    async def stop(self) -> None:
        """Press the stop button."""
        await self._socket.emit("stop")

    async def click(self, action: dict[str, Any]) -> httpx.Response:
        """Click a button below a message."""
        return await self.http.post("/project/action", json={"action": action, "sessionId": self.session})

    async def list(self, search: str | None = None) -> list[str]:
        """The names in the list of conversations."""
        query = {"pagination": {"first": 35}, "filter": {"search": search} if search else {}}
        answer = await self.http.post("/project/threads", json=query)
        assert answer.status_code == 200, answer.text
        return [thread["name"] for thread in answer.json()["data"]]

    # --- what a user sees ---

    @property
    def shown(self) -> list[str]:
        """The texts on the page, in order."""
        return [step["output"] for step in self.steps.values() if step["type"].endswith("_message")]

    async def until(self, what: Callable[[Self], object], *, note: str = "") -> None:
        """Wait until the page shows it."""
        try:
            async with asyncio.timeout(_WAIT), self._changed:
                await self._changed.wait_for(lambda: bool(what(self)))
        except TimeoutError:
            raise AssertionError(f"not within {_WAIT:g} s {note}: {self.shown} {self.errors} {self.loading=}") from None

    async def until_answered(self, count: int = 1) -> str:
        """Wait until nothing is being made and there are so many answers; returns the last text."""
        await self.until(lambda tab: not tab.loading and len(tab._answers()) >= count)
        return str(self._answers()[-1]["output"])

    def _answers(self) -> list[dict[str, Any]]:
        own = ("greeting", "earlier", "problem-", "model-", "document-")
        steps = [step for step in self.steps.values() if step["type"] == "assistant_message"]
        return [step for step in steps if not step["id"].startswith(own) and not step.get("streaming")]

    async def _hear(self, event: str, data: Any = None) -> None:
        async with self._changed:
            match event:
                case "task_start" | "task_end":
                    self.loading = event == "task_start"
                case "new_message" | "stream_start":
                    self._add(data)
                case "update_message":
                    if data["id"] in self.steps:
                        self._add(data)
                case "delete_message":
                    gone = {data["id"]} | {id for id, step in self.steps.items() if step.get("parentId") == data["id"]}
                    self.steps = {id: step for id, step in self.steps.items() if id not in gone}
                case "stream_token":
                    if (step := self.steps.get(data["id"])) is not None:
                        step["output"] = data["token"] if data["isSequence"] else step["output"] + data["token"]
                case "resume_thread":
                    self.steps = {}
                    for step in data["steps"]:
                        self._add(step)
                    self.elements = {element["id"]: element for element in data["elements"]}
                case "element":
                    self.elements[data["id"]] = data
                case "chat_settings":
                    self.settings = data
                case "first_interaction":
                    self.thread = data["thread_id"]
                    self.interactions.append(data["interaction"])
                case "resume_thread_error":
                    self.errors.append(data)
                case "toast":
                    self.errors.append(data["message"])
                case "action":
                    self.actions[data["id"]] = data
                case "remove_action":
                    self.actions.pop(data["id"], None)
            self._changed.notify_all()

    async def _end(self, reason: str = "") -> None:
        async with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _add(self, step: dict[str, Any]) -> None:
        parent = step.get("parentId")
        assert not parent or parent in self.steps, f"the page would drop {step}: it has no {parent}"
        self.steps[step["id"]] = {**self.steps.get(step["id"], {}), **step}
