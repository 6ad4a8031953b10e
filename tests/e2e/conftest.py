"""What the tests in a browser share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.browser import Browser, Open, browse, find_chromium
from tests.service.served import Page

from daram.llm import weights
from daram.settings import Settings


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


@pytest.fixture
def local_page(tmp_path: Path, outside_environment: Mapping[str, str]) -> Iterator[Page]:
    """The page on the real local model, greedy."""
    settings = Settings.from_env(outside_environment)
    path = settings.local_model or weights.find(settings.data)
    if path is None:
        pytest.fail(
            f"the weights of the local model are not in {settings.data}: fetch them with `daram model get`, or set "
            "DARAM_LOCAL_MODEL to a GGUF file",
            pytrace=False,
        )
    chosen = {"DARAM_MODEL": "local", "DARAM_LOCAL_MODEL": str(path), "DARAM_TEMPERATURE": "0"}
    with Page(tmp_path / "data", tmp_path, **chosen) as page:
        yield page
