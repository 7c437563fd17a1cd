# SPDX-License-Identifier: Apache-2.0
"""One lab with its web server for all live tests; each test brings its own Redis and its own netstar."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lab as laboratory  # noqa: E402


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="network namespaces need root"))


@pytest.fixture(scope="session")
def lab():
    with laboratory.Lab() as it:
        yield it


@pytest.fixture(autouse=True)
def quiet(request):
    """A test meets no packet of an earlier test's connections."""
    for name in ("lab", "net"):
        if name in request.fixturenames:
            request.getfixturevalue(name).quiet()


@pytest.fixture(scope="session")
def nginx(lab):
    with laboratory.Nginx(lab) as it:
        yield it


@pytest.fixture
def sink(lab):
    with laboratory.Sink(lab) as it:
        yield it


@pytest.fixture
def redis(lab):
    with laboratory.Redis(lab) as it:
        yield it


@pytest.fixture(scope="session")
def rules(lab):
    return lab.write("rules", laboratory.RULES)
