"""A fixture for tests of what is compiled C where there is a compiler, and something slower elsewhere."""

import pytest


def both_forms(library, *, autouse=False):
    """Each test runs compiled, and as it is where there is no compiler; compiled it skips where there is none."""

    @pytest.fixture(params=["compiled", "plain"], autouse=autouse)
    def form(request, monkeypatch):
        if request.param == "plain":
            monkeypatch.setenv("INTARSIA_KERNEL", "0")
        elif library.load() is None:
            pytest.skip(f"no compiled form here: {library.state()}")
        return request.param

    return form
