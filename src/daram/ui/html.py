"""The page's HTML: Chainlit's, without what it would fetch from elsewhere."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256

from daram.errors import ConfigError

_LINK = re.compile(r"<link\b[^>]*>\s*")
_FOREIGN = re.compile(r"""(?:href|src)\s*=\s*["']?\s*(?:https?:)?//""", re.IGNORECASE)
_SCRIPT = re.compile(r"<script(?![^>]*\bsrc\s*=)[^>]*>(.*?)</script>", re.DOTALL)


def at_home(html: str) -> str:
    """The HTML without its links to other hosts (fonts and styles from CDNs, preconnects).

    Raises ``ConfigError`` where something foreign is left: a Chainlit that Daram does not know.
    """
    cleaned = _LINK.sub(lambda link: "" if _FOREIGN.search(link[0]) else link[0], html)
    if foreign := _FOREIGN.search(cleaned):
        around = cleaned[max(0, foreign.start() - 40) : foreign.end() + 40]
        raise ConfigError(f"this Chainlit's page would fetch from another host ({around!r}); install Chainlit 2.12")
    return cleaned


def script_hashes(html: str) -> list[str]:
    """The ``sha256-…`` sources of the scripts that stand in the HTML, for the content security policy."""
    return [
        f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}" for script in _SCRIPT.findall(html) if script
    ]
