"""What an endpoint says when it does not answer: from its many bodies to our few errors."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from daram.errors import ContextOverflow, ModelBroken, ModelError, ModelRateLimited, ModelRefused, ModelUnavailable

RETRIED: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})

# The words of OpenAI, vLLM, SGLang, llama.cpp, Ollama, LM Studio, TGI, Mistral, Groq, xAI, Anthropic, Gemini, Bedrock.
_OVERFLOW: Final = re.compile(
    r"context_length_exceeded|exceed_context_size|model_max_prompt_tokens_exceeded|"
    r"maximum (?:context|prompt|model|input) length|context (?:length|window|size) exceeded|"
    r"exceeds? (?:the )?(?:model'?s? )?(?:available |maximum |max )?context|"
    r"longer than the (?:model'?s? )?(?:maximum )?(?:model|context|input) length|"
    r"(?:greater|larger|longer) than the (?:model'?s? )?context (?:length|window|size)|context (?:the )?overflows|"
    r"prompt is too long|input is too long|reduce the length of the (?:messages|prompt|input)|"
    r"token count .{0,40}exceeds the maximum|max_new_tokens. must be <=|too large for model with",
    re.IGNORECASE,
)
_QUOTA: Final = re.compile(r"insufficient_quota|billing_hard_limit|exceeded your current quota", re.IGNORECASE)


class Refusal(msgspec.Struct, frozen=True):
    """An error as the endpoint put it: its HTTP status, its own words in one line, the field that it names."""

    status: int
    words: str
    code: str = ""
    param: str = ""
    retry_after: float | None = None

    @property
    def is_overflow(self) -> bool:
        """Whether the request was too long for the model's context."""
        if self.status == 413:
            return True
        return self.status not in (401, 403, 404, 429) and bool(_OVERFLOW.search(f"{self.code} {self.words}"))

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed a moment later."""
        return self.status in RETRIED and not _QUOTA.search(f"{self.code} {self.words}") and not self.is_overflow


def read(status: int, text: str, retry_after: float | None = None) -> Refusal:
    """Understand an error body (JSON of one of the usual shapes, an HTML page, plain text)."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, list) and value:  # Gemini wraps it in a list
        value = value[0]
    if isinstance(value, dict):
        return from_json(status, value, retry_after)
    page = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    words = f"an HTML page: {page[1]}" if page else text
    return Refusal(status, _line(words) or "nothing more", retry_after=retry_after)


def from_json(status: int, value: dict[str, Any], retry_after: float | None = None) -> Refusal:
    """The same from a decoded body, or from an event of a stream that holds an ``error``."""
    error = value.get("error", value)
    if not isinstance(error, dict):
        return Refusal(status, _line(str(error)), retry_after=retry_after)
    words = error.get("message") or error.get("detail") or json.dumps(error, ensure_ascii=False)
    code = " ".join(str(error[key]) for key in ("code", "type") if error.get(key))
    if status == 200:  # inside a stream the status is in the event, where it is anywhere
        inner = error.get("code") if isinstance(error.get("code"), int) else error.get("status_code")
        status = inner if isinstance(inner, int) and 400 <= inner < 600 else 200
    return Refusal(status, _line(str(words)), code, str(error.get("param") or ""), retry_after)


def _line(text: str) -> str:
    return " ".join(text.split())[:400]


def seconds(header: str | None) -> float | None:
    """A ``Retry-After`` header in seconds from now: a number, or an HTTP date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def error(
    refusal: Refusal,
    *,
    model: str,
    url: str,
    has_key: bool,
    started: bool = False,
    settings: tuple[str, str, str] = ("DARAM_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY"),
) -> ModelError:
    """The error to raise. ``started``: a part of the answer has come already, so the context cannot be shrunk.

    ``settings``: what the settings of the model, its endpoint's address and key are called.
    """
    of_model, of_url, of_key = settings
    said = f'it said: "{refusal.words}"'
    status = refusal.status
    if started or status == 200:
        if refusal.is_overflow and not started:
            return ContextOverflow(f"the context is too long for {model} at {url}; {said}")
        return ModelBroken(f"{url} broke off the answer of {model}; {said}. Try again")
    if refusal.is_overflow:
        return ContextOverflow(f"the context is too long for {model} at {url} ({status}); {said}")
    if status in (401, 403):
        key = f"check {of_key}" if has_key else f"no key is set; set {of_key}"
        return ModelRefused(f"{url} refused the key or the permission ({status}); {said}; {key}")
    if status == 404:
        return ModelRefused(
            f"{url} has no model {model}, or no such path ({status}); {said}. "
            f"Check {of_model}, and {of_url} (it usually ends in /v1)"
        )
    if status == 429:
        wait = "" if refusal.retry_after is None else f" in {refusal.retry_after:g} s"
        return ModelRateLimited(f"{url} asks to slow down (429); {said}. Try again{wait}", refusal.retry_after)
    if 300 <= status < 400:
        return ModelRefused(f"{url} redirects elsewhere ({status}), which is not followed; check {of_url}")
    if status >= 500 or status in RETRIED:
        return ModelUnavailable(f"{url} cannot answer now ({status}); {said}. Try again later")
    return ModelRefused(f"{url} refused the request ({status}); {said}")
