"""Documents are held to the code: generated pages are up to date, links lead somewhere, examples run."""

import importlib.util
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_generated_pages_are_what_the_code_says():
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path, text in module.pages().items():
        assert path.is_file(), f"{path} is missing: run scripts/docs"
        assert path.read_text(encoding="utf-8") == text, f"{path} is old: run scripts/docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_front_pages_stay_short(name):
    assert len((ROOT / name).read_text().splitlines()) <= {"README.md": 150, "CONTRIBUTING.md": 200}[name]


def test_readme_says_the_two_commands_and_names_only_what_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- demo -->" in text
    assert "<!-- test -->" in text
    from intarsia.cli.main import COMMANDS

    used = set(re.findall(r"^intarsia (\w+)", text, flags=re.MULTILINE)) | set(re.findall(r"`intarsia (\w+)", text))
    assert used <= set(COMMANDS)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_run(example, tmp_path):
    done = subprocess.run([sys.executable, str(example), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mean IoU" in done.stdout


@pytest.mark.parametrize("directory", ["src", "tests", "scripts", "docs", "examples", "benchmarks"])
def test_no_file_is_too_long_and_none_is_called_utils(directory):
    for path in (ROOT / directory).rglob("*.py"):
        assert path.stem not in ("utils", "helpers", "common", "misc")
        if directory == "src":
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
