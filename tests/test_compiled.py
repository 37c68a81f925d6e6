"""Compiled C: made once, checked before use, and what happens without. Every library of the project."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from intarsia import compiled
from intarsia.losses import border
from intarsia.losses.kernel import KERNEL
from intarsia.metrics.confusion import LIBRARY as COUNTS
from intarsia.metrics.confusion import confusion
from intarsia.ops import class_map, distance
from intarsia.transforms import warp

LIBRARIES = {
    "intarsia.losses.kernel:KERNEL": KERNEL,
    "intarsia.losses.border:LIBRARY": border.LIBRARY,
    "intarsia.ops.distance:LIBRARY": distance.LIBRARY,
    "intarsia.ops.class_map:LIBRARY": class_map.LIBRARY,
    "intarsia.metrics.confusion:LIBRARY": COUNTS,
    "intarsia.transforms.warp:LIBRARY": warp.LIBRARY,
}


@pytest.fixture(params=LIBRARIES)
def library(request, tmp_path, monkeypatch):
    """A library, before anything was tried, and a cache folder in which nothing lies yet."""
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    found = LIBRARIES[request.param]
    monkeypatch.setattr(found, "_tried", {})
    return found


@pytest.fixture
def working(library):
    if library.load() is None:
        pytest.skip(f"no compiled form here: {library.state()}")
    return library


def made_in(tmp_path):
    return list((tmp_path / "cache/kernels").iterdir())


def without(library, reason):
    """There is no compiled form, for a reason that is told, and what it serves works all the same."""
    assert library.load() is None
    assert library.state().startswith("plain forms are used: ")
    assert reason in library.state()
    assert "\n" not in library.state()
    assert distance.distance(np.array([[True, True, False]])).tolist() == [[2, 1, 0]]
    found = class_map.class_map(torch.tensor([[[[1.0, 0.0]], [[1.0, 2.0]]]]))
    assert found.tolist() == [[[0, 1]]]
    assert confusion(found, torch.ones_like(found), 2).tolist() == [[0, 0], [1, 1]]


def test_made_once_and_tells_with_what(working, tmp_path, monkeypatch):
    (made,) = made_in(tmp_path)
    assert made == working.path()
    assert working.state().startswith("compiled by ")
    assert working.state().endswith(str(made))
    before = made.stat().st_mtime_ns
    monkeypatch.setattr(working, "_tried", {})
    assert working.load() is not None
    assert made.stat().st_mtime_ns == before


def test_turned_off(library, monkeypatch):
    monkeypatch.setenv("INTARSIA_KERNEL", "0")
    without(library, "turned off by INTARSIA_KERNEL=0")


def test_no_compiler(library, monkeypatch):
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    without(library, "there is no C compiler (cc, gcc, clang)")


def test_a_compiler_that_is_not_there(library, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    without(library, "CC names no-such-compiler, which is not there")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo no licence >&2; exit 3", "`cc` ended with 3 and said: no licence"),
        ('[ "$1" = --version ] && exit; echo bad flag >&2; exit 1', "`cc` ended with 1 and said: bad flag"),
        ('[ "$1" = --version ] && exit; echo junk > "${@: -2:1}"', "file too short"),
        ("exit 0", "No such file"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="a shell script stands for the compiler, an ELF for its result")
def test_a_broken_compiler(library, tmp_path, monkeypatch, script, reason):
    compiler = tmp_path / "cc"
    compiler.write_text(f"#!/usr/bin/env bash\n{script}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    without(library, reason)


def test_one_that_computes_something_else_is_not_used(working, tmp_path, monkeypatch):
    source = working.source.read_text().replace("5.0000001201e-1f", "0.51f").replace("+ h * h);", "+ h * h + 1);")
    source = (
        source.replace("far_1 * far_1", "far_1")
        .replace("x <= most", "x < most")
        .replace("t->below[i] *", "t->after[i] *")
    )
    source = source.replace("truth[i] * k + found[i]", "found[i] * k + truth[i]")
    assert source != working.source.read_text()
    wrong = tmp_path / working.source.name
    wrong.write_text(source)
    monkeypatch.setattr(working, "source", wrong)
    monkeypatch.setattr(working, "_tried", {})
    without(working, "compiled, gives other")


def test_a_cache_that_cannot_be_written(working, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "file"))
    without(working, "Not a directory")


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a file away")
def test_one_of_another_user_is_not_run(working, tmp_path, monkeypatch):
    (made,) = made_in(tmp_path)
    os.chown(made, 12345, -1)
    monkeypatch.setattr(working, "_tried", {})
    without(working, "belongs to another user")


def test_two_processes_at_once(working, tmp_path):
    (made,) = made_in(tmp_path)
    made.unlink()
    (module, _, name), *_ = [key.partition(":") for key, each in LIBRARIES.items() if each is working]
    command = [sys.executable, "-c", f"from {module} import {name}; print({name}.state())"]
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(lambda _: subprocess.run(command, capture_output=True, text=True, check=True), range(2)))
    assert [each.stdout.strip().rpartition(": ")[2] for each in ended] == [str(made)] * 2
    assert made_in(tmp_path) == [made]


def test_summary_tells_what_is_compiled_and_why_the_rest_is_not(working, monkeypatch):
    both = {"one": working, "two": working}
    assert compiled.summary(both) == "one, two: compiled"
    monkeypatch.setenv("INTARSIA_KERNEL", "0")
    assert compiled.summary(both) == "one, two: plain forms are used: turned off by INTARSIA_KERNEL=0"
