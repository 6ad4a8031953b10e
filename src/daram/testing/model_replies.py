"""What the scripted model server says: replies with their faults, magic words, and a small memory of its own.

Magic words stand in double brackets in the last line of the last user message, and may be combined::

    [[say TEXT]]      answer TEXT               [[tokens N]]    answer N numbered words
    [[delay S]]       S seconds before each token   [[before S]]  S seconds of silence before the status line
    [[stall]]         never answer              [[stall N]]     fall silent after N tokens
    [[cut]]           close before an answer    [[cut N]]       close after N tokens
    [[garbage N]]     bytes that are not UTF-8, after N tokens
    [[badjson N]]     an event that is not JSON, after N tokens
    [[error N]]       an error event, after N tokens
    [[pings N]]       nothing but signs of life (SSE comments), after N tokens
    [[no-finish]]     no finish_reason, no [DONE]   [[no-done]]  a finish_reason, but no [DONE]
    [[html]]          an HTML page              [[status CODE]] that HTTP status
    [[retry-after S]] that header beside a status   [[overflow]] a context-length error
    [[tool NAME JSON]]  a call of that tool
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, Literal

import msgspec

End = Literal["done", "no-done", "no-finish", "cut", "stall", "pings", "garbage", "badjson", "error"]
Dialect = Literal["openai", "vllm", "llama.cpp", "ollama"]


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One reply. Seconds and tokens; what is not said is a whole and correct answer.

    ``text`` is streamed word by word unless ``tokens`` gives the pieces. ``before``: silence before the status line;
    ``delay``: before each token. ``end``: how the stream ends; the faults among them strike after ``after`` tokens
    (None: after the last). ``status`` other than 200 answers ``body`` (or an error in OpenAI's words) instead.
    """

    text: str = ""
    tokens: tuple[str, ...] | None = None
    tool_calls: tuple[tuple[str, str], ...] = ()
    before: float = 0.0
    delay: float | None = None
    end: End = "done"
    after: int | None = None
    status: int = 200
    body: str | None = None
    content_type: str = "application/json"
    headers: dict[str, str] = {}
    stall: bool = False
    cut: bool = False

    @property
    def pieces(self) -> tuple[str, ...]:
        """The tokens of the text."""
        return self.tokens if self.tokens is not None else tuple(re.findall(r"\s*\S+|\s+$", self.text))


def stall(after: int | None = None, text: str = "") -> Reply:
    """Silence for ever: before the status line, or after some tokens of ``text``."""
    return Reply(stall=True) if after is None else Reply(text=text or _words(after + 1), end="stall", after=after)


def cut(after: int | None = None, text: str = "") -> Reply:
    """The connection is closed: before the status line, or after some tokens of ``text``."""
    return Reply(cut=True) if after is None else Reply(text=text or _words(after + 1), end="cut", after=after)


def failure(status: int, message: str = "", *, retry_after: float | str | None = None, code: str = "") -> Reply:
    """An HTTP error with a body as OpenAI's."""
    error = {"message": message or f"scripted error {status}", "type": "scripted", "code": code or None, "param": None}
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Reply(status=status, body=json.dumps({"error": error}), headers=headers)


def html(status: int = 200) -> Reply:
    """A page, as a wrong address or a login wall gives it."""
    page = "<!DOCTYPE html><html><head><title>Welcome</title></head><body>Please log in.</body></html>"
    return Reply(status=status, body=page, content_type="text/html; charset=utf-8")


def overflow(dialect: Dialect = "openai", limit: int = 4096, got: int = 5000) -> Reply:
    """A context-length error as this kind of server words it."""
    long = f"This model's maximum context length is {limit} tokens. However, your messages resulted in {got} tokens."
    bodies: dict[Dialect, dict[str, Any]] = {
        "openai": {"error": {"message": long, "type": "invalid_request_error", "code": "context_length_exceeded"}},
        "vllm": {"object": "error", "message": long, "type": "BadRequestError", "param": None, "code": 400},
        "llama.cpp": {
            "error": {
                "code": 400,
                "message": f"the request exceeds the available context size ({got} > {limit}), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": got,
                "n_ctx": limit,
            }
        },
        "ollama": {"error": "the input length exceeds the context length"},
    }
    return Reply(status=400, body=json.dumps(bodies[dialect]))


def call(name: str, arguments: dict[str, Any] | str) -> Reply:
    """A call of a tool, its arguments streamed in fragments."""
    return Reply(tool_calls=((name, arguments if isinstance(arguments, str) else json.dumps(arguments)),))


_MAGIC: Final = re.compile(r"\[\[\s*([a-z-]+)\s*(.*?)\s*\]\]")


def magic(request: dict[str, Any], base: Reply) -> Reply:
    """What the magic words of the request make of ``base``."""
    question = last_user(request).rstrip().rpartition("\n")[2]
    reply = base
    for word, value in _MAGIC.findall(question):
        reply = _spell(reply, word, value)
    return reply


def _spell(reply: Reply, word: str, value: str) -> Reply:
    replace = msgspec.structs.replace
    match word:
        case "say":
            return replace(reply, text=value, tokens=None)
        case "tokens":
            return replace(reply, text=_words(int(value)), tokens=None)
        case "delay":
            return replace(reply, delay=float(value))
        case "before":
            return replace(reply, before=float(value))
        case "stall" | "cut" if not value:
            return stall() if word == "stall" else cut()
        case "stall" | "cut" | "pings" | "garbage" | "badjson" | "error":
            return replace(reply, end=word, after=int(value or 0))
        case "no-finish" | "no-done":
            return replace(reply, end=word)
        case "html":
            return html()
        case "status":
            return replace(failure(int(value)), headers=reply.headers)
        case "retry-after":
            return replace(reply, headers={"Retry-After": value})
        case "overflow":
            return overflow()
        case "tool":
            name, _, arguments = value.partition(" ")
            return call(name, arguments or "{}")
        case _:
            return replace(reply, text=f"There is no magic word {word!r}.")


def _words(count: int) -> str:
    return " ".join(f"word{number}" for number in range(1, count + 1))


# --- a model that remembers what it is given, and nothing else ------------------------------------------------------

_NAME: Final = r"['\"“”‘’]?(?:an? |the )?([\w-]+)"
_SAID: Final = (
    re.compile(rf"\b(?:call|name)\s+(?:an? |the |my |every |this )?([\w-]+)\s+(?:as\s+)?{_NAME}", re.IGNORECASE),
    re.compile(rf"\b([\w-]+)\s+(?:is|are|will be|shall be)\s+(?:now\s+)?(?:called|named)\s+{_NAME}", re.IGNORECASE),
    re.compile(r"(\w+?)(?:를|을|는|은)\s+['\"“‘]?(\w+?)['\"”’]?(?:이라고|라고|이라|라)\s*(?:부|불|할|하|한|해)"),
)
_ASKED: Final = (
    re.compile(r"\bwhat\b.{0,20}?\bname\s+(?:of|for)\s+(?:an? |the |my |this )?([\w-]+)", re.IGNORECASE),
    re.compile(r"\bwhat\b.{0,40}?\b(?:call|called|named?)\s+(?:an? |the |my |this )?([\w-]+)", re.IGNORECASE),
    re.compile(r"\b(?:what|how)\b.{0,40}?(?:an? |the |my |this )([\w-]+)\s+(?:called|named)", re.IGNORECASE),
    re.compile(r"(\w+?)(?:를|을|는|은|가|이|의|란)\s*(?:이름|뭐|무엇|뭘|어떻게)"),
)
_QUESTION_WORDS: Final = frozenset({"what", "how", "뭐", "무엇", "뭘", "어떻게", "it", "they", "to"})


def remembering(request: dict[str, Any]) -> str:
    """Answer from the request alone: the name that a thing was given in it, else what its user said before.

    So a test sees which of the earlier turns (raw, or as notes beside the question) the model was really given.
    """
    question = _question(request)
    said = _statements(request)
    korean = re.search("[가-힣]", question) is not None
    for pattern in _ASKED:
        if asked := pattern.search(question):
            thing = _singular(asked[1])
            name = next((name for text in reversed(said) if (name := _named(thing, text))), None)
            if name is None:
                return f"{thing}의 이름은 모르겠습니다." if korean else f"I do not know what the {thing} is called."
            return f"{thing}의 이름은 {name}입니다." if korean else f"The {thing} is called {name}."
    if said:
        quoted = " | ".join(said)
        return f"기억하고 있습니다: {quoted}" if korean else f"I remember: {quoted}"
    return f"들었습니다: {question}" if korean else f"You said: {question}"


def last_user(request: dict[str, Any]) -> str:
    """The text of the last user message of a request."""
    users = [message for message in request.get("messages", ()) if message.get("role") == "user"]
    return text_of(users[-1]) if users else ""


def text_of(message: dict[str, Any]) -> str:
    """The text of a message of the wire, whether its content is a string or a list of typed parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content if part.get("type") == "text")


def _question(request: dict[str, Any]) -> str:
    line = last_user(request).strip().rpartition("\n")[2]
    return re.sub(r"^(?:message|question|메시지|질문)\s*:\s*", "", line, flags=re.IGNORECASE)


def _statements(request: dict[str, Any]) -> list[str]:
    """What the user said before, oldest first: the earlier messages, then the notes above the question."""
    users = [text_of(message) for message in request.get("messages", ()) if message.get("role") == "user"]
    notes = [line[2:].strip() for line in (users[-1] if users else "").splitlines() if line.startswith("- ")]
    said = [_question({"messages": [{"role": "user", "content": text}]}) for text in users[:-1]]
    return [note for note in notes if note not in said] + said


def _named(thing: str, text: str) -> str | None:
    if text.rstrip().endswith("?"):
        return None
    names = [
        match[2]
        for pattern in _SAID
        for match in pattern.finditer(text)
        if _singular(match[1]) == thing and match[2].lower() not in _QUESTION_WORDS
    ]
    return names[-1] if names else None


def _singular(word: str) -> str:
    word = word.lower()
    return word[:-1] if word.isascii() and len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def embeddings(request: dict[str, Any]) -> Reply:
    """Vectors of the length that is asked for (default 8): how often characters of each class stand in each text."""
    size = request.get("dimensions", 8)
    data = []
    for index, text in enumerate(request["input"]):
        counts = [0.0] * size
        for character in text:
            counts[ord(character) % size] += 1.0
        data.append({"object": "embedding", "index": index, "embedding": counts})
    return Reply(body=json.dumps({"object": "list", "data": data, "model": request["model"]}))
