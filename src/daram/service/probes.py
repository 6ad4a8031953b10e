"""What balancers and supervisors ask: whether the process lives, and whether it can serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from starlette.responses import JSONResponse

from daram.errors import NotFound
from daram.service import runtime
from daram.service.accounts.auth import in_accounts
from daram.service.accounts.models import User

log = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds for one answer


async def healthz() -> JSONResponse:
    """200 as long as the event loop turns."""
    return JSONResponse({"status": "ok"})


async def readyz(*, tell: bool) -> JSONResponse:
    """200 if store and accounts answer and the end has not begun, else 503. A model that is missing is told, no more:
    conversations can be read, and what is written is kept. ``tell``: say in words what is wrong.
    """
    current = runtime.current()
    found = {
        "store": await _ask(_store, tell),
        "accounts": await _ask(_accounts, tell),
        "model": await _ask(current.model.ready, tell),
    }
    serving = found["store"] == found["accounts"] == "ok" and not current.draining
    status = "ok" if serving else "draining" if current.draining else "unavailable"
    return JSONResponse({"status": status, **found}, 200 if serving else 503)


async def _store() -> str | None:
    try:
        await runtime.current().memory.get("readyz", "readyz")
    except NotFound:
        pass
    return None


async def _accounts() -> str | None:
    await in_accounts(User.objects.exists)
    return None


async def _ask(what: Callable[[], Awaitable[str | None]], tell: bool) -> str:
    """``ok``, or what is wrong."""
    try:
        async with asyncio.timeout(_PATIENCE):
            problem = await what()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is told
        log.warning("a part of the service does not answer: %s: %s", type(error).__name__, error)
        problem = f"{type(error).__name__}: {error}"
    if problem is None:
        return "ok"
    return problem if tell else "unavailable"
