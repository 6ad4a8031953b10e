"""What the tests in a browser share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.browser import Browser, Open, browse, find_chromium
from tests.service.served import Page


@pytest.fixture
def images(tmp_path: Path, outside_environment: Mapping[str, str]) -> Path:
    """Where the pictures of the story go: ``DARAM_SCREENSHOTS`` (``docs/images``), else where pytest keeps its runs."""
    directory = Path(outside_environment.get("DARAM_SCREENSHOTS") or tmp_path / "images").absolute()
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture
def browser(tmp_path: Path, images: Path, outside_environment: Mapping[str, str]) -> Open:
    chromium = find_chromium(outside_environment)

    @contextmanager
    def opened(page: Page, *, language: str = "en-US", name: str = "profile", known: bool = True) -> Iterator[Browser]:
        with browse(chromium, page.url, tmp_path / name, images, language=language) as found:
            if known:  # the user of this machine is logged in already
                known_by = [{"name": key, "value": value, "url": page.url} for key, value in page.cookies.items()]
                found.context.add_cookies(known_by)
            yield found
            assert found.strangers() == []
            assert found.complaints == []

    return opened
