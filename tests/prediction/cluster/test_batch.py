"""Prediction on a cluster: each input once, whatever is lost, and as on one machine; clear words where that cannot be."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import intarsia as ia
from intarsia.devices import THREADS
from intarsia.errors import ConfigError, Interrupted, MissingExtra, PartialFailure, SaveError
from intarsia.optional import found
from intarsia.prediction.cluster import batch, capacity, nodes
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.manifest import Manifest
from intarsia.prediction.predict import predict
from tests.conftest import write
from tests.engines.nets import kernel, write_conv

HAS_RAY = all(found(package) for package in ("ray", "pyarrow", "pandas"))
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="ray[data] is not installed: pip install 'intarsia[ray]'")


def lines(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def outputs(folder):
    return {Path(line["image"]).name: line["outputs"] for line in lines(folder) if line["status"] == "done"}


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """A worker limits its process; these tests are one, and others come after them."""
    monkeypatch.setenv(THREADS, "")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(40):
        write(folder / f"i{index:02}.png", rng.integers(0, 256, (40, 56, 3), dtype=np.uint8))
    return folder


@pytest.fixture(scope="module")
def local(tiny_run, images, tmp_path_factory):
    """Outputs of each image, with their hashes, of a run on this machine without Ray."""
    out = tmp_path_factory.mktemp("local")
    predict(tiny_run, images, out=out, device="cpu")
    return outputs(out)


# ------------------------------------------------------------------------------------------------------- two real nodes


@pytest.fixture(scope="module")
def head():
    if not HAS_RAY:
        pytest.skip("ray[data] is not installed: pip install 'intarsia[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in batch.ENVIRONMENT.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        store = {"object_store_memory": 100 << 20, "num_cpus": 1}
        started = Cluster(initialize_head=True, head_node_args={**store, "include_dashboard": False})
        patch.setenv("RAY_ADDRESS", started.address)
        yield started
        started.shutdown()


@pytest.fixture
def two_nodes(head):
    """A cluster of two nodes of one core; the second may be killed."""
    if not head.worker_nodes:
        head.add_node(num_cpus=1, object_store_memory=100 << 20)
    return head


def slowed(seconds):
    """A worker that takes its time; a class of its own is sent to the nodes whole."""

    class Slow(nodes.Segmenter):
        def _outcome(self, row):
            time.sleep(seconds)
            return super()._outcome(row)

    return Slow


def kill_second(head):
    (node,) = head.worker_nodes
    head.remove_node(node, allow_graceful=False)


def test_a_node_killed_midway_costs_no_input_and_changes_no_result(
    two_nodes, monkeypatch, tiny_run, images, local, tmp_path, capfd
):
    monkeypatch.setattr(batch, "Segmenter", slowed(0.1))
    (bad := tmp_path / "bad.png").write_bytes(b"no image")
    out, seen = tmp_path / "out", []

    def done(written):
        seen.append(written)
        if len(seen) == 8:
            kill_second(two_nodes)

    with pytest.raises(PartialFailure, match=r"1 of 41 images(.|\n)*bad\.png"):
        predict(tiny_run, [images, bad], out=out, device="cpu", engine="ray", done=done)
    counts = Counter(line["image"] for line in lines(out))
    assert len(counts) == 41
    assert set(counts.values()) == {1}
    assert len(seen) == 40
    assert outputs(out) == local
    assert [line["status"] for line in lines(out)].count("failed") == 1
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    said = capfd.readouterr()
    assert said.out == ""
    assert "2 nodes" in said.err
    assert not [line for line in said.err.splitlines() if not line.startswith("Ray: ")]


@pytest.mark.slow
def test_again_only_what_is_missing_or_changed(two_nodes, tiny_run, images, local, tmp_path):
    out = tmp_path / "out"
    paths = sorted(images.iterdir())[:12]
    assert not any(each.skipped for each in predict(tiny_run, paths[:6], out=out, device="cpu", engine="ray"))
    (out / "i03.png").write_bytes(b"damaged")
    again = {each.image.name: each.skipped for each in predict(tiny_run, paths, out=out, device="cpu", engine="ray")}
    assert again == {path.name: path.name in ("i00.png", "i01.png", "i02.png", "i04.png", "i05.png") for path in paths}
    assert Counter(Path(line["image"]).name for line in lines(out))["i03.png"] == 2
    assert outputs(out) == {path.name: local[path.name] for path in paths}
    local_again = predict(tiny_run, paths, out=out, device="cpu")
    assert all(each.skipped for each in local_again)  # both engines keep the same books


@pytest.mark.slow
def test_an_input_that_ends_its_worker_costs_no_other(two_nodes, monkeypatch, tiny_run, images, local, tmp_path):
    class Deadly(nodes.Segmenter):
        def _outcome(self, row):
            if b"i07" in row["image"]:
                os._exit(1)
            if b"i11" in row["image"]:
                raise_it()
            return super()._outcome(row)

        def _record(self, image, name):
            if "i13" in name:
                raise ZeroDivisionError("nobody foresaw this")
            return super()._record(image, name)

    def raise_it():
        raise RuntimeError("outside of all care")

    monkeypatch.setattr(batch, "Segmenter", Deadly)
    out = tmp_path / "out"
    with pytest.raises(PartialFailure) as failure:
        predict(tiny_run, images, out=out, device="cpu", engine="ray")
    said = str(failure.value)
    assert said.startswith("3 of 40")
    assert "i07.png: its worker ended without a word" in said
    assert "i13.png: ZeroDivisionError: nobody foresaw this (3 attempts)" in said
    assert len(lines(out)) == 40
    assert outputs(out) == {name: digests for name, digests in local.items() if name[1:3] not in ("07", "11", "13")}


@pytest.mark.slow
def test_no_room_for_a_worker_is_said(two_nodes, monkeypatch, tiny_run, images, tmp_path):
    import ray

    monkeypatch.setenv("INTARSIA_RAY_PATIENCE", "6")
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
    try:
        hogs = [ray.remote(nodes.Signs).options(num_cpus=1).remote() for _ in range(2)]
        ray.get([hog.quiet.remote() for hog in hogs])
        begun = time.monotonic()
        with pytest.raises(Interrupted, match=r"no worker could run for 6 s: the cluster has 2 nodes.*0 of them free"):
            predict(tiny_run, images, out=tmp_path / "out", device="cpu", engine="ray")
        assert time.monotonic() - begun < 40
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_folder_that_nodes_do_not_share_is_said(two_nodes, monkeypatch, tiny_run, images, tmp_path):
    def elsewhere(job, image):
        return nodes.node_problem(replace(job, folder="/nowhere"), image)

    monkeypatch.setattr(capacity, "node_problem", elsewhere)
    with pytest.raises(ConfigError, match=r"node .* does not see /nowhere as the driver does"):
        predict(tiny_run, images, out=tmp_path / "out", device="cpu", engine="ray")
    with pytest.raises(ConfigError, match=r"the cluster has 2 nodes with 2 cores and 0 GPUs\. Try --device cpu"):
        predict(tiny_run, images, out=tmp_path / "out", device="cuda", engine="ray")
    monkeypatch.setenv("INTARSIA_RAY_CPUS", "3")
    with pytest.raises(ConfigError, match="2 nodes with 2 cores and 0 GPUs; a worker needs 3 cores"):
        predict(tiny_run, images, out=tmp_path / "out", engine="ray")


@pytest.mark.slow
def test_what_a_killed_driver_had_done_is_not_done_again(two_nodes, tiny_run, images, local, tmp_path):
    out = tmp_path / "out"
    script = tmp_path / "driver.py"
    script.write_text(
        "import sys, time\nfrom intarsia.prediction.cluster import batch, nodes\n"
        "from intarsia.prediction.predict import predict\n"
        "class Slow(nodes.Segmenter):\n    def _outcome(self, row):\n        time.sleep(0.3)\n"
        "        return nodes.Segmenter._outcome(self, row)\n"
        "batch.Segmenter = Slow\npredict(sys.argv[1], sys.argv[2], out=sys.argv[3], device='cpu', engine='ray')\n"
    )
    driver = subprocess.Popen([sys.executable, script, tiny_run, images, out])
    deadline = time.monotonic() + 120
    while not (out / "manifest.jsonl").is_file() or len(lines(out)) < 8:
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = {line["image"] for line in lines(out)}
    assert 8 <= len(before) < 40
    written = predict(tiny_run, images, out=out, device="cpu", engine="ray")
    assert {str(each.image) for each in written if each.skipped} == before
    assert set(Counter(line["image"] for line in lines(out)).values()) == {1}
    assert outputs(out) == local


# ------------------------------------------------------------------------------------------------- a worker, without Ray


class Anyone:
    """Takes any call of an actor."""

    def __getattr__(self, name):
        return self

    def remote(self):
        return 0.0


def job_for(tiny_run, out, **changes):
    (out / "token").touch()
    job = nodes.Job((str(tiny_run),), str(out), PredictConfig(), "cpu", 1, "token", ia.__version__, 1.0)
    return replace(job, **changes)


def rows(paths, known=""):
    each = [(os.fsencode(path), os.fsencode(path.stem)) for path in paths]
    return [{"number": n, "image": path, "name": name, "known": known} for n, (path, name) in enumerate(each)]


class Table(list):
    """What a worker asks of an Arrow table."""

    def to_pylist(self):
        return self


def outcomes(worker, given):
    table = worker(Table(given))
    assert table["number"].tolist() == [row["number"] for row in given]
    return [json.loads(text) for text in table["outcome"]]


def test_a_worker_tells_what_it_did(tiny_run, images, local, tmp_path):
    worker = nodes.Segmenter(job_for(tiny_run, tmp_path), Anyone())
    (bad := tmp_path / "bad.png").write_bytes(b"no image")
    paths = [images / "i00.png", bad, tmp_path / "absent.png"]
    done, *failed = outcomes(worker, rows(paths))
    assert done["record"]["outputs"] == local["i00.png"]
    assert [each["record"]["status"] for each in failed] == ["failed", "failed"]
    known = json.dumps({key: done["record"][key] for key in ("status", "key", "outputs")})
    assert outcomes(worker, rows(paths[:1], known)) == [{"skipped": True}]
    (tmp_path / "i00.png").unlink()
    assert outcomes(worker, rows(paths[:1], known))[0]["record"]["outputs"] == local["i00.png"]
    assert [each["skipped"] for each in outcomes(worker, rows(paths[1:], known))] == [False, False]


def test_a_worker_runs_exported_files_too(tmp_path, images):
    file = write_conv(tmp_path / "net.onnx", kernel())
    predict(file, images / "i00.png", out=tmp_path / "local")
    (tmp_path / "out").mkdir()
    worker = nodes.Segmenter(job_for(file, tmp_path / "out"), Anyone())
    (outcome,) = outcomes(worker, rows([images / "i00.png"]))
    (line,) = lines(tmp_path / "local")
    assert outcome["record"]["outputs"] == line["outputs"]


def test_settings_are_booked_as_without_ray(tiny_run, images, tmp_path):
    config = PredictConfig().replace({"ensemble": (str(tiny_run),), "mirrors": "both"})
    predict(tiny_run, images / "i00.png", out=tmp_path / "local", device="cpu", **config.to_dict())
    (tmp_path / "out").mkdir()
    runs = batch._folders(tiny_run, config)
    worker = nodes.Segmenter(job_for(tiny_run, tmp_path / "out", config=config, runs=runs), Anyone())
    (outcome,) = outcomes(worker, rows([images / "i00.png"]))
    (line,) = lines(tmp_path / "local")
    for key in ("key", "model", "settings", "outputs", "sha256"):
        assert outcome["record"][key] == line[key], key


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"token": "absent"},
            "ConfigError",
            "does not see .* as the driver does; choose a folder that all nodes share",
        ),
        ({"version": "9.9"}, "ConfigError", "runs intarsia .*, the driver 9.9; install the same on all nodes"),
        ({"runs": ("/nowhere/run",)}, "ConfigError", "does not see /nowhere/run, which the driver sees"),
        ({"kind": "no device"}, "ConfigError", "must be auto, cpu, cuda"),
    ],
)
def test_a_worker_that_cannot_start_stops_the_job(changes, kind, message, tiny_run, images, tmp_path):
    worker = nodes.Segmenter(job_for(tiny_run, tmp_path, **changes), Anyone())
    (outcome,) = outcomes(worker, rows([images / "i00.png"]))
    assert outcome["stop"][0] == kind
    assert re.search(message, outcome["stop"][1])


def test_errors_that_nobody_foresaw_are_tried_again_and_known_ones_stop(tiny_run, images, tmp_path, monkeypatch):
    worker = nodes.Segmenter(job_for(tiny_run, tmp_path), Anyone())

    def run(image, name):
        calls.append(name)
        raise errors[len(calls) - 1]

    calls, errors = [], [ValueError("one\ntwo")]
    monkeypatch.setattr(worker.worker, "run", run)
    monkeypatch.setattr(nodes.time, "sleep", lambda seconds: None)
    assert outcomes(worker, rows([images / "i00.png"])) == [{"again": "two"}]
    calls, errors = [], [SaveError("a"), SaveError("b"), SaveError("the disk is full")]
    assert outcomes(worker, rows([images / "i00.png"])) == [{"stop": ["SaveError", "the disk is full"]}]
    assert len(calls) == 3


def test_a_node_sees_what_the_driver_sees(tiny_run, images, tmp_path):
    job = job_for(tiny_run, tmp_path)
    assert nodes.node_problem(job, os.fsencode(images / "i00.png")) == ""
    assert "does not see /absent.png" in nodes.node_problem(job, b"/absent.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["token"]


# --------------------------------------------------------------------------------------------- the driver, without Ray


WORK = [(Path(f"i{index}.png"), f"i{index}") for index in range(5)]


def record_of(index):
    return {"image": "/abs", "status": "done", "key": "k", "outputs": {}, "pixels": {}, "size": [1, 1], "n": index}


def driven(monkeypatch, tmp_path, job, script, nodes_seen=()):
    """What rounds were given that go as in `script`: (number, outcome) each, and at their end what is raised, or None."""
    given, seen = [], iter(nodes_seen)
    monkeypatch.setattr(batch, "node_ids", lambda ray: set(next(seen, "a")))

    def outcomes_of(ray, job, rows, patience, *, careful):
        given.append(([row["number"] for row in rows], careful))
        *told, last = script[len(given) - 1]
        yield from told
        if last:
            raise last

    monkeypatch.setattr(batch, "_outcomes", outcomes_of)
    list(batch._rounds(None, job, WORK, Manifest(tmp_path), 1.0))
    return given


def did(index):
    return index, {"record": record_of(index), "skipped": False}


@pytest.fixture
def job(tiny_run, tmp_path):
    return job_for(tiny_run, tmp_path)


def test_what_is_computed_twice_has_one_line(monkeypatch, tmp_path, job):
    driven(monkeypatch, tmp_path, job, [[did(0), did(1), did(0), did(2), did(3), did(4), did(4), None]])
    assert [line["image"] for line in lines(tmp_path)] == [f"i{index}.png" for index in range(5)]


def test_what_is_lost_is_given_out_again_one_by_one(monkeypatch, tmp_path, job):
    given = driven(monkeypatch, tmp_path, job, [[did(0), did(3), None], [did(4), did(1), did(2), None]])
    assert given == [([0, 1, 2, 3, 4], False), ([1, 2, 4], True)]
    assert len(lines(tmp_path)) == 5


def test_what_is_lost_thrice_has_failed(monkeypatch, tmp_path, job):
    again = (2, {"again": "ValueError: strange"})
    script = [[did(0), did(3), again, None], [did(4), again, None], [again, None]]
    driven(monkeypatch, tmp_path, job, script)
    found = {line["image"]: line for line in lines(tmp_path)}
    assert len(found) == len(lines(tmp_path)) == 5
    assert "ended without a word" in found["i1.png"]["error"]
    assert found["i2.png"]["error"] == "i2.png: ValueError: strange (3 attempts)"
    assert [found[f"i{index}.png"]["status"] for index in (0, 3, 4)] == ["done"] * 3


def test_a_lost_node_is_no_fault_of_its_inputs(monkeypatch, tmp_path, job):
    rest = [did(index) for index in (1, 2, 3, 4)]
    script = [[*rest, None], [None], [None], [None], [did(0), None]]
    given = driven(monkeypatch, tmp_path, job, script, ["abc", "ab", "ab", "a", "abc", "ab", "ab", "ab"])
    assert len(given) == 5
    assert [line["status"] for line in lines(tmp_path)] == ["done"] * 5


def test_rounds_that_ray_ends_are_counted_only_without_gain(monkeypatch, tmp_path, job):
    lost = batch._RoundEnded("no such object")
    script = [[lost], [lost], [did(0), lost], [lost], [lost], [did(1), did(2), did(3), did(4), None]]
    assert len(driven(monkeypatch, tmp_path, job, script)) == 6
    (tmp_path / "manifest.jsonl").unlink()
    with pytest.raises(Interrupted, match=r"Ray gave up 3 times: no such object. 1 inputs are done and listed in"):
        driven(monkeypatch, tmp_path, job, [[did(0), lost], [lost], [lost], [lost]])


def test_what_stops_a_worker_stops_the_job(monkeypatch, tmp_path, job):
    with pytest.raises(SaveError, match="the disk is full"):
        driven(monkeypatch, tmp_path, job, [[did(0), (1, {"stop": ["SaveError", "the disk is full"]}), did(2), None]])
    assert len(lines(tmp_path)) == 1


class Silence:
    """Ray in which the last sign of a worker is `quiet` seconds old, and blocks come after some waiting."""

    class exceptions:  # noqa: N801
        RayError = OSError

    def __init__(self, quiet, waits=1 << 30):
        self.quiet, self.waits = quiet, waits

    def wait(self, references, timeout):
        time.sleep(timeout)
        self.waits -= 1
        return (references, []) if self.waits < 0 else ([], references)

    def get(self, reference, timeout=None):
        return self.quiet if timeout else reference

    def available_resources(self):
        return {"CPU": 1.0}

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {"CPU": 8.0}}]


def test_patience_ends_only_when_workers_are_silent_too(job):
    told = [[(3, "{}"), (1, "{}")], [(2, "{}")]]
    with pytest.raises(Interrupted, match=r"could run for 0.1 s: the cluster has 1 node with 2 cores.*1 of them free"):
        list(batch._watched(Silence(9.0), iter(told), Anyone(), 0.1, job))
    assert list(batch._watched(Silence(0.0, 20), iter(told), Anyone(), 0.1, job)) == [(3, {}), (1, {}), (2, {})]


def test_settings_that_are_no_numbers(monkeypatch, tiny_run, tmp_path):
    monkeypatch.setenv("INTARSIA_RAY_PATIENCE", "soon")
    with pytest.raises(ConfigError, match="INTARSIA_RAY_PATIENCE: must be a number above 0, got 'soon'"):
        batch._number("INTARSIA_RAY_PATIENCE", 60.0)
    monkeypatch.setenv("INTARSIA_RAY_PATIENCE", "2.5")
    assert batch._number("INTARSIA_RAY_PATIENCE", 60.0) == 2.5
    with pytest.raises(ConfigError, match="takes run folders"):
        batch._folders(ia.load(tiny_run), PredictConfig())


@pytest.mark.parametrize("package", ["ray", "pyarrow"])
def test_without_ray_the_extra_is_named(package, monkeypatch, tiny_run, images, tmp_path):
    monkeypatch.setattr("intarsia.optional.found", lambda module: module != package)
    with pytest.raises(MissingExtra, match=rf"needs the package {package}.*pip install 'intarsia\[ray\]'"):
        predict(tiny_run, images, out=tmp_path / "out", engine="ray")


def test_devices_are_those_of_the_cluster():
    ray = Silence(0.0)
    assert capacity.kind_of_device(ray, "auto") == "cpu"
    with pytest.raises(ConfigError, match="must be auto, cpu or cuda on a cluster"):
        capacity.kind_of_device(ray, "cuda:1")
    ray.nodes = lambda: [{"Alive": True, "Resources": {"CPU": 2.0, "GPU": 4.0}}]
    assert capacity.kind_of_device(ray, "auto") == capacity.kind_of_device(ray, "cuda") == "cuda"
    assert capacity.kind_of_device(ray, "cpu") == "cpu"


@needs_ray
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://127.0.0.1:10001", "is Ray's client"),
        ("127.0.0.1:1", r"RAY_ADDRESS=127.0.0.1:1: no cluster can be reached there \(.*refused"),
    ],
)
def test_a_cluster_that_is_not_there(address, message, monkeypatch, tiny_run, images, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=message):
        predict(tiny_run, images, out=tmp_path / "out", engine="ray")
