"""One open tab of the page."""

from __future__ import annotations

from typing import Any, cast

from chainlit.server import sio
from chainlit.session import WebsocketSession, ws_sessions_sid

from daram.adapters.chainlit import steps
from daram.chat.running import Running
from daram.model import Message
from daram.ui.follow import Emit, follow, now
from daram.ui.strings import Words, words


class Tab:
    """One open tab: where to send, which conversation it shows, in which language it speaks."""

    def __init__(self, session: WebsocketSession) -> None:
        self.session = session
        self.conversation: str = session.thread_id
        self.owner: str = session.user.identifier if session.user else ""  # the gate lets nobody in without one
        self.words: Words = words(session.language)
        # Bound to the connection of this moment: after a reconnect an old watcher must not speak into the new one.
        self.emit = cast("Emit", session.emit)  # Chainlit's own type says that it returns nothing to wait for
        self._sid = session.socket_id

    def is_open(self) -> bool:
        """Whether somebody is still looking."""
        return bool(sio.manager.is_connected(self._sid, "/"))

    async def say(self, id: str, text: str, **fields: Any) -> None:
        """Show something that the page says and nobody stores."""
        await self.emit("new_message", self.remark(id, text) | fields)

    def remark(self, id: str, text: str) -> dict[str, Any]:
        """Such a thing as a step."""
        step = steps.from_message(self.conversation, Message(id=id, role="assistant", text=text))
        return {**step, "createdAt": now()}

    async def reread_list(self, why: str) -> None:
        """Have the list of conversations read again: the page does so whenever this value is another one."""
        await self.emit("first_interaction", {"interaction": why, "thread_id": self.conversation})


def open_tabs(owner: str) -> list[Tab]:
    """The tabs of that owner that show a conversation and are looked at."""
    tabs = [Tab(session) for session in ws_sessions_sid.values() if session.has_first_interaction]
    return [tab for tab in tabs if tab.owner == owner and tab.is_open()]


async def watch(tab: Tab, running: Running) -> None:
    """Show an answer in a tab as it is made."""
    question, events = running.question.id, running.events()
    await follow(tab.emit, tab.conversation, running.answer_id, question, events, tab.words)
