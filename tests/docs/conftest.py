"""The stand-ins of a session, built once."""

from pathlib import Path

import pytest
from stand_ins import build_stand_ins


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by the Hub names of the pages."""
    return build_stand_ins(tmp_path_factory.mktemp("stand-ins"))
