"""The command line: quick help, one clear line for every slip, results on standard output."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from intarsia.cli.main import COMMANDS


def intarsia(*words, cwd=None, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "intarsia", *map(str, words)], capture_output=True, text=True, cwd=cwd, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("words", [[], *[[name] for name in COMMANDS], ["data", "check"]])
def test_help_is_quick_because_it_imports_nothing_heavy(words):
    code = (
        "import sys; sys.argv = ['intarsia', *sys.argv[1:], '--help']\n"
        "from intarsia.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code in (0, None), stop.code\n"
        "heavy = ('torch', 'numpy', 'pydantic', 'PIL', 'yaml', 'rich', 'matplotlib', 'timm', 'lightning_fabric', 'jinja2')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert "Usage: intarsia" in done.stdout


def test_importing_intarsia_costs_nothing():
    code = "import sys, intarsia; print([n for n in ('torch', 'numpy', 'pydantic', 'click') if n in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_public_names_are_there():
    import intarsia

    for name in intarsia.__all__:
        assert getattr(intarsia, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = intarsia.nonsense


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tarin"], "no command 'tarin'. Did you mean 'train'?"),
        (["train", "nowhere"], "nowhere: is no folder, no YAML file and no recipe."),
        (["train", "{cells}", "model=unett"], "model: there is no 'unett'. Did you mean 'unet'?"),
        (["train", "{cells}", "train.epoch=5"], "train.epoch: there is no such setting. Did you mean 'train.epochs'?"),
        (["train", "{cells}", "--ot", "x"], "--ot"),
        (["evaluate", "nowhere"], "nowhere: is no run folder"),
        (["predict", "nowhere", "x.png", "--out", "y"], "nowhere: does not exist"),
        (["predict", "nowhere", "x.png"], "Missing option '--out'"),
        (["show", "default", "loss=cee"], "loss: there is no 'cee'. Did you mean 'ce'?"),
        (["list", "model"], "'model' is not one of"),
        (["list", "models", "xyz*"], "no models match 'xyz*'"),
    ],
)
def test_slips_are_one_line_and_exit_code_2(words, message, cells):
    done = intarsia(*[word.format(cells=cells) for word in words], code=2)
    assert message in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


def test_list_and_show():
    (line,) = [line for line in intarsia("list", "models", "unet*").stdout.splitlines() if line.split()[:1] == ["unet"]]
    assert all(word in line for word in ("arXiv:1505.04597", "2015", "31.0 M", "188–204"))
    names = [entry["name"] for entry in json.loads(intarsia("list", "losses", "--json").stdout)]
    assert names[:4] == ["boundary", "ce", "ce_dice", "dice"]
    assert {"focal", "lovasz_softmax", "tversky", "sum"} <= set(names)
    assert "tf_efficientnet_lite0" in intarsia("list", "encoders", "tf_efficientnet_lite*").stdout
    shown = intarsia("show", "default", "train.lr=0.5").stdout
    assert "lr: 0.5" in shown
    assert "# Learning rate at its peak." in shown


def test_doctor():
    text = intarsia("doctor").stdout
    assert "torch" in text
    facts = json.loads(intarsia("doctor", "--json").stdout)
    assert "missing" in facts["extras"]["demo"]
    assert "bf16" in facts["found"]


def test_data_check(cells):
    assert "nucleus" in intarsia("data", "check", cells).stdout
    facts = json.loads(intarsia("data", "check", cells, "--json").stdout)
    assert facts["splits"] == {"train": 6, "val": 2, "test": 3}


def test_evaluate_predict_and_json(tiny_run, cells, tmp_path):
    text = intarsia("evaluate", tiny_run, "--split", "val")
    assert "val, 2 images at their own size" in text.stdout
    assert json.loads(intarsia("evaluate", tiny_run, "--json").stdout)["split"] == "test"
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    source = cells / "test" / "images"
    out = tmp_path / "out"
    done = intarsia("predict", tiny_run, bad, source, "--out", out, "--binary", "--probabilities", code=3)
    assert len(done.stdout.splitlines()) == 3
    assert "1 of 4 images could not be predicted, the others are done" in done.stderr
    assert "bad.png: is no image file" in done.stderr
    with Image.open(out / "cells_000.png") as classes:
        assert (classes.mode, classes.size) == ("P", (160, 160))
        values = np.asarray(classes)
    for name in ("cells_000_overlay.png", "cells_000_nucleus.png", "cells_000_probabilities.npz"):
        assert (out / name).is_file()
    probabilities = np.load(out / "cells_000_probabilities.npz")["probabilities"]
    assert probabilities.shape == (3, 160, 160)
    assert (probabilities.argmax(0) == values).mean() > 0.99


def test_train_prints_where_everything_is(cells, tmp_path):
    words = ["train", cells, "model=unet_same", "model.width=2", "model.depth=1", "train.steps=2", "data.size=[32,32]"]
    done = intarsia(*words, cwd=tmp_path)
    assert (tmp_path / "runs" / "cells-1" / "report" / "index.html").is_file()
    assert "report   runs/cells-1/report/index.html" in done.stdout
    again = json.loads(intarsia(*words, "--json", cwd=tmp_path).stdout)
    assert again["run"] == "runs/cells-2"
    assert "mean_iou" in again["scores"]["test"]


def test_unexpected_errors_are_one_line_too(monkeypatch, capsys):
    from intarsia.cli import main as module

    def broken(**_):
        raise ZeroDivisionError("hidden depths")

    monkeypatch.setattr(module.group, "main", broken)
    monkeypatch.delenv("INTARSIA_DEBUG", raising=False)
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 1
    assert "ZeroDivisionError: hidden depths" in capsys.readouterr().err


def test_demo_without_nilearn_names_the_extra_and_the_other_way(monkeypatch, tmp_path):
    from intarsia.errors import MissingExtra
    from intarsia.evaluation.demo import run_demo

    monkeypatch.setattr("intarsia.optional.found", lambda module: False)
    with pytest.raises(MissingExtra, match=r"nilearn.*intarsia\[demo\]"):
        run_demo("brain", tmp_path)


def test_demo_takes_the_whole_path(tmp_path, monkeypatch):
    from intarsia.evaluation.demo import run_demo
    from intarsia.progress import Silent

    monkeypatch.setattr("intarsia.data.cells.COUNTS", {"train": 4, "val": 2, "test": 2})
    small = ["model.width=2", "train.steps=3", "train.validations=1", "train.memory_format=contiguous"]
    demo = run_demo("cells", tmp_path / "demo", progress=Silent(), settings=small)
    assert demo.report is not None
    assert demo.report.is_file()
    assert len(list(demo.predictions.glob("*_overlay.png"))) == 2
    assert (tmp_path / "demo" / "cells" / "README.txt").is_file()
    second = run_demo("cells", tmp_path / "demo", progress=Silent(), settings=small)
    assert second.run.path.name == "cells-2"
