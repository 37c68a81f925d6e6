"""Data sets fetched from a server in this process: resumed, hashed, unpacked without trust, opened."""

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from intarsia.cli.main import group
from intarsia.data import DATASETS
from intarsia.data.published.bdd100k import Bdd100kConfig
from intarsia.data.published.download import download, steps
from intarsia.data.published.oxford_pet import OxfordPetConfig
from intarsia.data.published.sheet import Archive
from intarsia.data.published.unpack import Limits, unpack
from intarsia.errors import DataError, DownloadError, FileError, IntegrityError, UnknownName, UsageError
from intarsia.progress import Silent
from tests.data.published.make import FAKES
from tests.test_downloads import Server, server  # noqa: F401


def zipped(folder: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder).as_posix())
    return out.getvalue()


def tarred(folder: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as file:
        for path in sorted(folder.iterdir()):
            file.add(path, path.name)
    return out.getvalue()


@pytest.fixture
def pets(server, tmp_path, monkeypatch):  # noqa: F811
    """Serves the fake of Oxford-IIIT Pet as one archive; gives a function that sets how."""
    made = FAKES["oxford_pet"](tmp_path / "made")

    def serve(pack=tarred, **known) -> Server:
        server.data = pack(made.root)
        sheet = dataclasses.replace(OxfordPetConfig.sheet, archives=(Archive(server.url, 1, **known),))
        monkeypatch.setattr(OxfordPetConfig, "sheet", sheet)
        return server

    return serve


@pytest.mark.parametrize("pack", [tarred, zipped])
def test_downloaded_unpacked_opened(pets, pack, tmp_path):
    server = pets(pack)  # noqa: F811
    data = download("oxford_pet", tmp_path / "to", Silent())
    assert len(data.items("test")) == 1
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == [".archives", "annotations", "images"]
    recorded = json.loads((tmp_path / "to" / ".archives" / "sha256.json").read_text())
    assert recorded == {server.url: hashlib.sha256(server.data).hexdigest()}
    assert [path.name for path in (tmp_path / "to" / ".archives").iterdir()] == ["sha256.json"]
    download("oxford_pet", tmp_path / "to", Silent())  # it is there: opened, not fetched
    assert len(server.seen) == 1


def test_interrupted_and_resumed(pets, tmp_path):
    server = pets()  # noqa: F811
    cut = len(server.data) // 2
    server.drops = [cut, 0, 0]
    with pytest.raises(DownloadError, match="the connection ended"):
        download("oxford_pet", tmp_path / "to", Silent())
    assert (tmp_path / "to" / ".archives" / "file.pth.part").stat().st_size == cut
    server.drops = []
    download("oxford_pet", tmp_path / "to", Silent())
    assert server.seen[-1] == ("/file.pth", f"bytes={cut}-")


def test_wrong_hash(pets, tmp_path):
    for known in ({"sha256": "0" * 64}, {"md5": "0" * 32}):
        pets(**known)
        with pytest.raises(IntegrityError, match="is not the published file"):
            download("oxford_pet", tmp_path / "to", Silent())
        assert not (tmp_path / "to" / "images").exists()
    server = pets()  # noqa: F811
    pets(sha256=hashlib.sha256(server.data).hexdigest(), md5=hashlib.md5(server.data).hexdigest())
    download("oxford_pet", tmp_path / "to", Silent())


def test_what_was_recorded_holds(pets, tmp_path):
    server = pets()  # noqa: F811
    archives = tmp_path / "to" / ".archives"
    archives.mkdir(parents=True)
    (archives / "sha256.json").write_text(json.dumps({server.url: "1" * 64}))
    with pytest.raises(IntegrityError, match="sha256 expected 1111"):
        download("oxford_pet", tmp_path / "to", Silent())


def test_an_archive_of_something_else_is_said(pets, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("a")
    pets(lambda _: zipped(tmp_path / "other"))
    with pytest.raises(
        DataError, match=r"is not Oxford-IIIT Pet as published.*Expected images/NAME.jpg.*met: .*a\.txt"
    ):
        download("oxford_pet", tmp_path / "to", Silent())


def archive(tmp_path: Path, *entries: tuple[str, bytes], kind: str = "zip", **fields) -> Path:
    path = tmp_path / f"evil.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in entries:
                info = zipfile.ZipInfo(name)
                info.external_attr, info.compress_type = fields.get("attr", 0o100644 << 16), zipfile.ZIP_DEFLATED
                file.writestr(info, content)
    else:
        with tarfile.open(path, "w:gz") as file:
            for name, content in entries:
                info = tarfile.TarInfo(name)
                info.size = len(content) if not fields.get("type") else 0
                info.type, info.linkname = fields.get("type", tarfile.REGTYPE), "/etc/passwd"
                file.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/tmp/out.txt", "..\\out.txt", "C:/out.txt"])
def test_nothing_leads_out_of_the_folder(kind, name, tmp_path):
    with pytest.raises(FileError, match=r"leads out of its folder.*Get it again from its source \[E_ARCHIVE\]"):
        unpack(archive(tmp_path, ("good.txt", b"a"), (name, b"a"), kind=kind), tmp_path / "to", Silent())
    assert not list(tmp_path.rglob("out.txt"))
    assert not Path("/tmp/out.txt").exists()


@pytest.mark.parametrize("type_", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(type_, tmp_path):
    with pytest.raises(FileError, match="holds a link, device or sparse file, 'x'"):
        unpack(archive(tmp_path, ("x", b""), kind="tar", type=type_), tmp_path / "to", Silent())
    assert not os.path.lexists(tmp_path / "to" / "x")


def test_links_in_a_zip(tmp_path):
    with pytest.raises(FileError, match="holds a link or device, 'x'"):
        unpack(archive(tmp_path, ("x", b"/etc/passwd"), attr=0o120777 << 16), tmp_path / "to", Silent())


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_bombs(kind, tmp_path):
    zeros = archive(tmp_path, ("zeros", bytes(20_000_000)), kind=kind)
    with pytest.raises(FileError, match="unpacks to more than 100 times its size"):
        unpack(zeros, tmp_path / "to", Silent())
    assert sum(path.stat().st_size for path in (tmp_path / "to").rglob("*")) == 0
    many = archive(tmp_path, *((f"{n}", b"a") for n in range(20)), kind=kind)
    with pytest.raises(FileError, match="holds more than 10 files"):
        unpack(many, tmp_path / "to", Silent(), Limits(entries=10))
    with pytest.raises(FileError, match=r"unpacks to more than 1e-08 GB"):
        unpack(many, tmp_path / "to", Silent(), Limits(bytes=10))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and nothing", b"\x1f\x8b\x08 and nothing"])
def test_damaged_archives(content, tmp_path):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(FileError, match="E_ARCHIVE"):
        unpack(tmp_path / "x.zip", tmp_path / "to", Silent())


def test_a_zip_that_is_cut_off(tmp_path):
    path = archive(tmp_path, ("a", os.urandom(5000)))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(FileError, match="E_ARCHIVE"):
        unpack(path, tmp_path / "to", Silent())


def test_what_is_not_open_is_said_in_steps(tmp_path):
    text = steps("cityscapes")
    assert "1. Register at https://www.cityscapes-dataset.com/register/" in text
    assert "gtFine_trainvaltest.zip" in text
    with pytest.raises(DataError, match="cannot be downloaded openly"):
        download("cityscapes", tmp_path / "nothing", Silent())
    made = FAKES["bdd100k"](tmp_path / "made")
    assert len(download("bdd100k", made.root, Silent()).items("train")) == 2
    with pytest.raises(UnknownName, match="Did you mean 'camvid'"):
        steps("camvit")
    with pytest.raises(UnknownName, match="no published data set 'folder'"):
        steps("folder")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        download("camvid", tmp_path / "file", Silent())


def test_the_commands(tmp_path):
    def run(*words):
        return CliRunner().invoke(group, ["data", *words])

    listed = run("list").output
    assert all(name in listed for name in ("cityscapes", "by hand", "CC0 1.0", "dsb2018"))
    (entry,) = json.loads(run("list", "bdd*", "--json").output)
    assert entry["name"] == "bdd100k"
    assert entry["citation"] == Bdd100kConfig.sheet.citation
    assert run("list", "nothing*").exit_code == 2
    assert "Accept the rules" in run("download", "carvana").output
    made = FAKES["carvana"](tmp_path / "made")
    done = run("download", "carvana", "--to", str(made.root))
    assert done.exit_code == 0, done.output
    assert f"use      data=carvana data.path={made.root}" in done.output


def test_importing_the_commands_brings_nothing_heavy():
    code = "import sys, intarsia.cli.data_sets_command\n"
    code += "print([name for name in ('torch', 'numpy', 'scipy', 'intarsia.data') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_url_names_a_file():
    for name in DATASETS.names():
        for known in getattr(getattr(DATASETS[name], "sheet", None), "archives", ()):
            assert known.url.startswith(("https://", "http://"))
            assert known.file_name.endswith((".zip", ".tar", ".tgz", ".tar.gz"))
