"""Any endpoint that speaks OpenAI's chat completions: OpenAI itself, vLLM, llama.cpp, Ollama, LM Studio, gateways."""

from __future__ import annotations

from typing import Final

import httpx

from daram.errors import ConfigError
from daram.llm.endpoint import Endpoint

DEFAULT_URL: Final = "https://api.openai.com/v1"


class OpenAIModel(Endpoint):
    """A ``ChatModel`` behind an endpoint; ``context_tokens`` is what it serves, answer included.

    Times (in seconds) and retries as ``Endpoint`` says; proxies come from the environment (``HTTPS_PROXY``,
    ``NO_PROXY`` …). Raises ``ConfigError`` for an address or a key that cannot be one.
    """

    prefers_notes = False

    def __init__(
        self,
        name: str,
        *,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        context_tokens: int = 32_768,
        connect_timeout: float = 10.0,
        read_timeout: float = 60.0,
        max_retries: int = 2,
        backoff: float = 0.5,
        max_backoff: float = 20.0,
    ) -> None:
        url = checked_url(base_url, "OPENAI_BASE_URL")
        super().__init__(
            name,
            url,
            key=checked_key(api_key, "OPENAI_API_KEY"),
            shown=str(url.copy_with(userinfo=b"", query=None, fragment=None)),
            advice="; check OPENAI_BASE_URL (it usually ends in /v1)",
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            max_retries=max_retries,
            backoff=backoff,
            max_backoff=max_backoff,
        )
        self.context_tokens = context_tokens

    def count_tokens(self, text: str) -> int | None:
        """None: only the endpoint knows its tokenizer."""
        return None


def checked_url(text: str, setting: str) -> httpx.URL:
    """The address of an endpoint, with the usual path where it has none. Raises ``ConfigError``."""
    try:
        url = httpx.URL(text.strip())
    except (httpx.InvalidURL, TypeError, AttributeError) as error:
        raise ConfigError(f"{setting}: not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or not 0 < (url.port or 80) < 1 << 16:
        raise ConfigError(f"{setting}: must look like https://host/v1 or http://localhost:8080/v1")
    return url.copy_with(path="/v1") if url.path in ("", "/") else url


def checked_key(key: str | None, setting: str) -> str:
    """The key, "" where there is none. Raises ``ConfigError``."""
    key = (key or "").strip()
    if not key.isascii() or not key.isprintable():  # httpx would show it in its error
        raise ConfigError(f"{setting}: holds characters that a key cannot have (a line break, a letter not in ASCII)")
    return key
