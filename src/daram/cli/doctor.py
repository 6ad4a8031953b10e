"""``daram doctor`` and ``daram config``: what is set up, how safe it is, what is missing and how to get it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import click
import msgspec

from daram.cli.common import STORE_FLAGS, with_settings
from daram.config import make_model, open_memory
from daram.errors import DaramError, Unsupported
from daram.knowledge.base import library
from daram.llm.base import Options
from daram.memory import Memory
from daram.model import user
from daram.settings import OPENAI_URL, Settings, mask, unknown_variables

SYNCS = 20
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Finding(msgspec.Struct, frozen=True):
    """One line of the report. ``missing`` is needed and not there; ``note`` is worth knowing."""

    state: Literal["ok", "note", "missing"]
    about: str
    text: str


@click.command()
@_as_json
@with_settings(*STORE_FLAGS, "model")
def doctor(settings: Settings, as_json: bool) -> None:
    """Say what is set up, how safe it is, and what is missing.

    Ends with 1 where something that is needed is missing.
    """
    findings = asyncio.run(_examine(settings))
    healthy = all(finding.state != "missing" for finding in findings)
    if as_json:
        click.echo(msgspec.json.encode({"healthy": healthy, "findings": findings}))
    else:
        width = max(len(finding.about) for finding in findings)
        for finding in findings:
            click.echo(f"{finding.state:7}  {finding.about:{width}}  {finding.text}")
    if not healthy:
        raise click.exceptions.Exit(1)


async def _examine(settings: Settings) -> list[Finding]:
    findings = [Finding("ok", "daram", f"{version('daram')} on Python {platform.python_version()}, {sys.platform}")]
    findings += [
        Finding("note", name, "is set, but is no setting of Daram: mistyped? (daram config lists them)")
        for name in unknown_variables(os.environ)
    ]
    findings += await _store(settings)
    findings += await _model(settings)
    page = [name for name in ("chainlit", "uvicorn") if importlib.util.find_spec(name) is None]
    if page:
        findings.append(Finding("note", "page", 'not installed: pip install "daram[serve]" (for daram serve)'))
    else:
        findings.append(Finding("ok", "page", f"Chainlit {version('chainlit')}"))
    return findings


async def _store(settings: Settings) -> list[Finding]:
    where = mask(settings.store)
    try:
        async with await open_memory(settings) as memory:
            described = await memory.describe()
    except DaramError as error:
        return [Finding("missing", "store", f"{where}: {error}")]
    findings = [Finding("ok", "store", where)]
    findings += [Finding("ok", name, text) for name, text in described.items()]
    findings.append(_documents(memory, settings))
    if settings.store.startswith("sqlite:"):
        file = Path(described.get("location", settings.data))
        folder = file.parent if file.parent.is_dir() else settings.data
        try:
            cost = f"{_fsync_cost(folder) * 1e3:.2f} ms (median of {SYNCS}, in {folder})"
            findings.append(Finding("ok", "fsync", cost))
        except OSError as error:  # a store that is only read may lie where nothing can be written
            findings.append(Finding("note", "fsync", f"cannot be measured in {folder}: {error.strerror}"))
    return findings


def _documents(memory: Memory, settings: Settings) -> Finding:
    if settings.documents is not None:
        return Finding("ok", "documents", mask(settings.documents))
    try:
        library(memory)
    except Unsupported as error:
        return Finding("note", "documents", str(error))
    return Finding("ok", "documents", "in the store")


def _fsync_cost(folder: Path) -> float:
    """What it costs to put 4 KiB on the disk of a directory, in seconds: the floor under a durable turn."""
    costs = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(SYNCS):
            file.write(bytes(4096))
            begin = time.perf_counter()
            os.fsync(file.fileno())
            costs.append(time.perf_counter() - begin)
    return statistics.median(costs)


async def _model(settings: Settings) -> list[Finding]:
    model = make_model(settings)
    try:
        # Whether it can answer shows in an answer alone: a list of models may know nothing of a key or a name.
        async for _ in model.stream([user("Say yes.")], Options(max_tokens=16)):
            pass
        where = f" at {mask(settings.base_url or OPENAI_URL)}" if settings.endpoint_model else ""
        findings = [Finding("ok", "model", f"{model.name}{where} answers")]
    except DaramError as error:
        findings = [Finding("missing", "model", str(error))]
    finally:
        await model.close()
    if settings.model == "auto" and settings.endpoint_model is None and (settings.base_url or settings.api_key):
        what = "OPENAI_BASE_URL" if settings.base_url else "OPENAI_API_KEY"
        text = "is set, but names no model, so it is not used: set DARAM_MODEL=openai:NAME or OPENAI_MODEL=NAME"
        findings.append(Finding("note", what, text))
    return findings


@click.command()
@_as_json
@with_settings(*STORE_FLAGS, "model")
def config(settings: Settings, as_json: bool) -> None:
    """Print the settings as they are in effect, secrets masked."""
    shown = settings.shown()
    if as_json:
        click.echo(msgspec.json.encode(shown))
        return
    for name, text in shown.items():
        click.echo(f"{name}={text}")
