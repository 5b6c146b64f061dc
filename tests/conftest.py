"""What every test gets: a cache of its own, and no plugins but the built-in ones. Some get a browser."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # workers whose threads wait for each other's take many times as long
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and numba start theirs

import pytest

from tests import browsing

#: Files of a minute and more, longest first. One that started last would leave the other workers idle.
LONGEST = (
    "testing/test_methods.py",
    "cli/test_command_line.py",
    "docs/test_documentation.py",
    "bench/test_known_faults.py",
    "execution/test_bad_cells.py",
    "registry/test_zoo.py",
    "faults/test_kills.py",
    "faults/test_shared_folder.py",
    "execution/test_devices.py",
    "data/test_data_check.py",
    "plugins/test_longtail_methods.py",
    "docs/test_using_page.py",
)

#: Seconds that a test may take, many times what it needs, since the machine may be busy with other work. The signal
#: that pytest-timeout uses in the main thread ends this one test, where a thread could only end the whole process, and
#: it leaves Ctrl-C as it is.
TIMEOUT, SLOW_TIMEOUT = 600, 3600


def pytest_configure(config):
    """Keep the order of files below: xdist would start those with the most tests first, not the longest."""
    if config.pluginmanager.hasplugin("xdist"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Start the longest files first; the order inside a file stays."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get("/".join(item.path.parts[-2:]), len(LONGEST)))
    for item in items:
        if item.get_closest_marker("timeout") is None:
            slow = item.get_closest_marker("slow") is not None
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT if slow else TIMEOUT))


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("HASHZOO_PLUGINS", "off")


@pytest.fixture(params=["pretended", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """The name of an accelerator: a pretended one, or with ``-m gpu`` a real one."""
    from tests import accelerators

    yield from accelerators.in_use(request.param)


@pytest.fixture(scope="session")
def browser():
    yield from browsing.started()
