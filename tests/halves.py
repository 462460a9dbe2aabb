"""Which tests stay together when two processes share them, and which come first."""

import pytest

# Every model, export and archive, and the server that has them all, are made once, in one process.
_SHARED = {"tiny", "multi", "model_store", "live"}
# What takes longest must not come last, when the other process has nothing left to do.
_LONG = "test_road.py"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test its group: those that need the shared parts, else those of its file."""
    if config.getoption("dist", "no") == "no":
        return
    for item in items:
        shared = _SHARED.intersection(getattr(item, "fixturenames", ()))
        item.add_marker(pytest.mark.xdist_group("shared" if shared else item.path.name))
    items.sort(key=lambda item: item.path.name != _LONG)
