"""The page's HTML and script: Chainlit's, without what it would fetch from elsewhere, and at home below a path."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256

from daram.errors import ConfigError
from daram.ui.strings import ENGLISH, KOREAN

_LINK = re.compile(r"<link\b[^>]*>\s*")
_FOREIGN = re.compile(r"""(?:href|src)\s*=\s*["']?\s*(?:https?:)?//""", re.IGNORECASE)
# Where Chainlit's script forgets that it may live below a path: it would not show a conversation's address, or leave.
_AT_THE_TOP = re.compile(r"""(\.pathname===")/("(?:&&|\?)\w+\(`/thread/)|(window\.location\.href=`)(/thread/)""")
_TIMES_AT_THE_TOP = 3
# Where it opens all that the conversation has to show beside the page, whenever an answer brings more of it.
_OPENS_ITSELF = re.compile(r"""(\w+)\(\{title:(\w+)\[\2\.length-1\]\.name,elements:\2\}\)""")
# What it says of a file that is too large, and from when on it does.
_TOO_LARGE = re.compile(r"`File is larger than \$\{\w+\.max_size_mb\} MB`|(maxSize:)\(\w+\.max_size_mb\|\|2\)\*1e6")
_TIMES_TOO_LARGE = 2
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


def main_script(html: str) -> str:
    """The path of the page's own script, from the top. Raises ``ConfigError`` where there is none to be found."""
    found = re.search(r'<script type="module"[^>]* src="([^"]*/assets/index-[\w-]+\.js)"', html)
    if found is None:
        raise ConfigError("this Chainlit's page has no script where it should be; install Chainlit 2.12")
    return found[1]


def below(root: str, script: str, limit: int) -> str:
    """Chainlit's script, which shows the addresses of conversations below ``root`` too, opens beside the page what was
    clicked, as long as that is there, and nothing by itself, and takes files of ``limit`` bytes.

    Raises ``ConfigError`` for a Chainlit that Daram does not know.
    """
    moved, times = _AT_THE_TOP.subn(
        lambda found: f"{found[1]}{root}/{found[2]}" if found[1] else f"{found[3]}{root}{found[4]}", script
    )
    moved, opens = _OPENS_ITSELF.subn(
        r"\1(view=>view&&view.elements.every(shown=>\2.some(there=>there.id===shown.id))?view:void 0)", moved
    )
    korean, english = (json.dumps(spoken.file_too_large(limit)) for spoken in (KOREAN, ENGLISH))
    said = f'(document.documentElement.lang==="{KOREAN.language}"?{korean}:{english})'
    moved, limited = _TOO_LARGE.subn(lambda found: f"{found[1]}{limit}" if found[1] else said, moved)
    if (times, opens, limited) != (_TIMES_AT_THE_TOP, 1, _TIMES_TOO_LARGE):
        raise ConfigError("this Chainlit's page is another one than Daram knows; install Chainlit 2.12")
    return moved
