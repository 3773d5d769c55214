"""Photos for the tests of galleries."""

from pathlib import Path

import pytest

from tests.pictures import photo


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of five."""
    (tmp_path / "photos").mkdir()
    for n in range(5):
        photo(tmp_path / "photos" / f"{n}.jpg", seed=n)
    return tmp_path / "photos"
