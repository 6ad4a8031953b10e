"""Everything that the page says, in English and Korean; ``words(language)`` gives a table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from daram.context.sources import cited
from daram.model import Message


@dataclass(frozen=True, kw_only=True)
class Words:
    """What Daram itself says on the page, in one language. ``problems``: by the ``code`` of a DaramError."""

    language: str
    greeting: str
    incomplete: str
    too_long: str
    cancelled: str
    earlier: str
    retry: str
    retry_tooltip: str
    not_ready: str
    not_found: str
    sources: str
    page: str
    reading: str
    read: str
    passages: str
    files: str
    answer_from: str
    answer_from_about: str
    official: str
    changed_since: str
    too_large: str
    no_space: str
    problem: str
    problems: dict[str, str]

    def note(self, message: Message) -> str:
        """What to say below a stored message (Markdown): that it was stopped, cut or failed; empty for a whole one."""
        if message.role != "assistant":
            return ""
        if message.status == "complete":
            return self._sources(message)
        if message.status == "cancelled":
            return f"*{self.cancelled}*"
        if message.status == "incomplete":
            return f"*{self.too_long if message.metadata.get('finish') == 'length' else self.incomplete}*"
        return f"**{self.problems.get(message.metadata.get('error', ''), self.problems['model'])}**"

    def file_too_large(self, limit: int) -> str:
        """That a file has more bytes than ``limit``."""
        size = f"{limit / 1e6:,.0f} MB" if limit >= 1_000_000 else f"{limit / 1e3:,.0f} kB"
        return self.too_large.format(size=size)

    def place(self, cited: Mapping[str, Any]) -> str:
        """Where a citation stands: the document's title, its page, the headings above."""
        found = [str(cited.get("title") or cited.get("name") or "")]
        if cited.get("page") is not None:
            found.append(self.page.format(number=cited["page"]))
        return ", ".join([*found, *map(str, (cited.get("heading") or ())[-1:])])

    def _sources(self, message: Message) -> str:
        found = [f"[{data['n']}] {plain(self.place(data))}" for data in cited(message)]
        return f"{self.sources}: {' · '.join(found)}" if found else ""

    def explain(self, code: str, detail: str) -> str:
        """An error as Markdown: a sentence in this language, and below it Daram's own words, which say what to do."""
        return f"**{self.problems.get(code, self.problem)}**\n\n{plain(detail)}"


ENGLISH: Final = Words(
    language="en",
    greeting="I am a chatbot that answers with the whole conversation in mind. Type a message.",
    incomplete="This answer is incomplete: it was interrupted before its end.",
    too_long="This answer is incomplete: it reached the greatest length that is allowed.",
    cancelled="Stopped. What was said until then is kept.",
    earlier="Only the last {shown} messages are shown here; the earlier ones are kept.",
    retry="Try again",
    retry_tooltip="Asks again. Your message is not stored a second time.",
    not_ready="The language model is not ready yet: {line}",
    not_found="There is no such conversation; it may have been deleted.",
    sources="Sources",
    page="page {number}",
    reading="Reading {name} …",
    read="{name} has been read.",
    passages="{count} passages",
    files="Files of this conversation: {names}",
    answer_from="Answer from these documents",
    answer_from_about="Answers of this conversation then come from these documents, with their sources.",
    official="for everybody",
    changed_since="The document has been changed or removed since; this is how it was cited.",
    too_large="This file is too large: at most {size} can be uploaded.",
    no_space="There is no space left on the disk for this file.",
    problem="Something went wrong.",
    problems={
        "answer_failed": "The answer took too long and was stopped. Your message is kept.",
        "context_overflow": "The conversation is too long for the model.",
        "conversation_busy": "Another answer is still being made in this conversation.",
        "document": "This file cannot be read.",
        "document_too_large": "This file is too large.",
        "unsupported_document": "This kind of file cannot be read. Your message was not sent.",
        "missing_extra": "This kind of file cannot be read here yet. Your message was not sent.",
        "unsupported": "Files cannot be kept here. Your message was not sent.",
        "gone": "This conversation was deleted. Begin a new one.",
        "message_too_long": "Your message is too long for the model. It was not stored.",
        "model": "The model gave no answer. Your message is kept.",
        "model_broken": "The connection to the model broke off. Your message is kept.",
        "model_rate_limited": "The model is busy. Your message is kept; try again in a moment.",
        "model_refused": "The model refused the request. Your message is kept.",
        "model_timeout": "The model did not answer in time. Your message is kept.",
        "model_unavailable": "There is no language model yet. Your message is kept.",
        "not_found": "There is no such conversation; it may have been deleted.",
        "outcome_unknown": "It is not certain that your message was stored. Try again: it will not be stored twice.",
        "store_busy": "The store is busy. Your message was not stored.",
        "store_full": "There is no space left on the disk. Your message was not stored.",
        "store_read_only": "The store cannot be written. Your message was not stored.",
        "store_unavailable": "The store cannot be reached. Your message was not stored.",
        "too_large": "Your message is too large. It was not stored.",
    },
)

KOREAN: Final = Words(
    language="ko",
    greeting="저는 대화의 맥락을 고려해 답변할 수 있는 채팅봇입니다. 메시지를 입력하세요.",
    incomplete="이 답변은 완성되지 않았습니다. 도중에 중단되었습니다.",
    too_long="이 답변은 완성되지 않았습니다. 허용된 최대 길이에 이르렀습니다.",
    cancelled="중지했습니다. 그때까지의 답변은 보관됩니다.",
    earlier="마지막 메시지 {shown}개만 표시합니다. 이전 메시지도 보관되어 있습니다.",
    retry="다시 시도",
    retry_tooltip="다시 질문합니다. 메시지가 두 번 저장되지 않습니다.",
    not_ready="언어 모델이 아직 준비되지 않았습니다: {line}",
    not_found="그런 대화가 없습니다. 삭제되었을 수 있습니다.",
    sources="출처",
    page="{number}쪽",
    reading="{name} 파일을 읽는 중…",
    read="{name} 파일을 다 읽었습니다.",
    passages="단락 {count}개",
    files="이 대화의 파일: {names}",
    answer_from="이 문서에서 답하기",
    answer_from_about="이 대화의 답변을 고른 문서에서 찾고 출처를 함께 보여 줍니다.",
    official="모두에게 공개",
    changed_since="그 뒤에 문서가 바뀌었거나 삭제되었습니다. 인용한 당시의 내용입니다.",
    too_large="파일이 너무 큽니다. {size}까지 올릴 수 있습니다.",
    no_space="디스크에 남은 공간이 없어 파일을 올리지 못했습니다.",
    problem="문제가 생겼습니다.",
    problems={
        "answer_failed": "답변이 너무 오래 걸려 중단했습니다. 메시지는 보관되어 있습니다.",
        "context_overflow": "대화가 모델이 다룰 수 있는 길이를 넘었습니다.",
        "conversation_busy": "이 대화에서 다른 답변을 만들고 있습니다.",
        "document": "이 파일을 읽을 수 없습니다.",
        "document_too_large": "파일이 너무 큽니다.",
        "unsupported_document": "읽을 수 없는 종류의 파일입니다. 메시지를 보내지 않았습니다.",
        "missing_extra": "이 종류의 파일은 아직 여기서 읽을 수 없습니다. 메시지를 보내지 않았습니다.",
        "unsupported": "여기에는 파일을 보관할 수 없습니다. 메시지를 보내지 않았습니다.",
        "gone": "삭제된 대화입니다. 새 대화를 시작하세요.",
        "message_too_long": "메시지가 모델이 다룰 수 있는 길이를 넘어 저장하지 않았습니다.",
        "model": "모델이 답하지 못했습니다. 메시지는 보관되어 있습니다.",
        "model_broken": "모델과의 연결이 끊어졌습니다. 메시지는 보관되어 있습니다.",
        "model_rate_limited": "모델이 바쁩니다. 메시지는 보관되어 있으니 잠시 후 다시 시도하세요.",
        "model_refused": "모델이 요청을 거절했습니다. 메시지는 보관되어 있습니다.",
        "model_timeout": "모델이 제때 답하지 않았습니다. 메시지는 보관되어 있습니다.",
        "model_unavailable": "아직 언어 모델이 없습니다. 메시지는 보관되어 있습니다.",
        "not_found": "그런 대화가 없습니다. 삭제되었을 수 있습니다.",
        "outcome_unknown": "메시지가 저장되었는지 확실하지 않습니다. 다시 시도하세요. 두 번 저장되지 않습니다.",
        "store_busy": "저장소가 바빠 메시지를 저장하지 못했습니다.",
        "store_full": "디스크에 남은 공간이 없어 메시지를 저장하지 못했습니다.",
        "store_read_only": "저장소에 쓸 수 없어 메시지를 저장하지 못했습니다.",
        "store_unavailable": "저장소에 연결할 수 없어 메시지를 저장하지 못했습니다.",
        "too_large": "메시지가 너무 커서 저장하지 않았습니다.",
    },
)

CHROME: Final[dict[str, dict[str, str]]] = {
    "en-US": {
        "chat.input.placeholder": "Type a message…",
        "chat.input.actions.stop": "Stop",
        "components.DatePickerInput.placeholder.range": "Pick a date range",
        "components.DatePickerInput.placeholder.single": "Pick a date",
        "threadHistory.sidebar.empty": "No conversations",
        "threadHistory.sidebar.filters.placeholder": "Search by title…",
        "threadHistory.sidebar.title": "Conversations",
        "threadHistory.thread.actions.delete.description": "It will be gone for good, with all that is in it.",
        "threadHistory.thread.actions.delete.inProgress": "Deleting…",
        "threadHistory.thread.actions.delete.success": "Conversation deleted",
        "threadHistory.thread.actions.delete.title": "Delete this conversation?",
        "threadHistory.thread.actions.rename.description": "How should this conversation be called?",
        "threadHistory.thread.actions.rename.inProgress": "Renaming…",
        "threadHistory.thread.actions.rename.success": "Conversation renamed",
        "threadHistory.thread.actions.rename.title": "Rename the conversation",
        "navigation.newChat.button": "New conversation",
        "navigation.newChat.dialog.tooltip": "New conversation",
    },
    "ko": {
        "chat.input.placeholder": "메시지를 입력하세요…",
        "chat.input.actions.stop": "중지",
        "components.DatePickerInput.placeholder.range": "기간 선택",
        "components.DatePickerInput.placeholder.single": "날짜 선택",
        "threadHistory.sidebar.empty": "대화가 없습니다",
        "threadHistory.sidebar.filters.placeholder": "제목으로 검색…",
        "threadHistory.sidebar.title": "대화",
        "threadHistory.thread.actions.delete.description": "이 대화와 그 안의 모든 내용이 완전히 삭제됩니다.",
        "threadHistory.thread.actions.delete.inProgress": "삭제하는 중…",
        "threadHistory.thread.actions.delete.success": "대화를 삭제했습니다",
        "threadHistory.thread.actions.delete.title": "이 대화를 삭제할까요?",
        "threadHistory.thread.actions.rename.description": "이 대화의 새 이름을 입력하세요.",
        "threadHistory.thread.actions.rename.inProgress": "이름을 바꾸는 중…",
        "threadHistory.thread.actions.rename.success": "이름을 바꿨습니다",
        "threadHistory.thread.actions.rename.title": "대화 이름 바꾸기",
        "navigation.newChat.button": "새 대화",
        "navigation.newChat.dialog.tooltip": "새 대화",
    },
}
"""What Chainlit's own translations are changed to, by language file and dotted key."""

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~])")


def words(language: str | None) -> Words:
    """The table for a language as browsers send it (``ko``, ``ko-KR``, ``en-US,en;q=0.9``); English for all others."""
    return KOREAN if re.match(r"\s*ko(?![a-z])", language or "", re.IGNORECASE) else ENGLISH


def plain(text: str) -> str:
    """Text in which Markdown finds nothing to do."""
    return _MARKDOWN.sub(r"\\\1", text)
