"""Commands in an empty folder, and their messages about mistakes."""

import re
import subprocess
import sys

import pytest
from PIL import Image

from skgmmcnn._command_line import _import, main
from skgmmcnn.datasets import load_digits_network

MODULE = """
import numpy as np
import torch
from skgmmcnn.datasets import load_digits_network

def make():
    return load_digits_network().network

def prepare(image):
    return torch.from_numpy(np.asarray(image.convert("L"), dtype=np.float32)[None] / 255)
"""
NETWORK = ["--preprocess", "mydigits:prepare"]
LOADED = ["--network", "mydigits:make", *NETWORK]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a module, photographs of digits, names of classes and a fitted model."""
    folder, digits = tmp_path_factory.mktemp("command line"), load_digits_network()
    (folder / "mydigits.py").write_text(MODULE, encoding="utf-8")
    (folder / "names.txt").write_text("\n".join(digits.class_names) + "\n", encoding="utf-8")
    (folder / "photographs").mkdir()
    for number, image in enumerate(digits.images[:120]):
        Image.fromarray((image.squeeze() * 255 / digits.images.max()).astype("uint8")).save(
            folder / "photographs" / f"{number:03}.png"
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        words = ["--words", "8", "--layers", "conv2", "conv3", "--class-names", "names.txt"]
        assert main(["fit", "mydigits:make", "photographs", "-o", "model.safetensors", *NETWORK, *words]) == 0
    return folder


@pytest.fixture
def inside(folder, monkeypatch):
    """The folder, as the current one."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def run(*arguments):
    return main(list(arguments))


def test_text_on_the_screen_names_the_photographs(inside, capsys):
    assert run("explain", "model.safetensors", "photographs/000.png", "photographs/001.png", *LOADED) == 0
    text = capsys.readouterr().out
    assert "photographs/000.png\ndecision_" in text
    assert "conv3_w" in text


@pytest.mark.parametrize("ending", ["html", "png", "svg", "graphml", "json", "txt"])
def test_one_photograph_one_file(inside, ending, capsys):
    assert run("explain", "model.safetensors", "photographs/000.png", "-o", f"why.{ending}", *LOADED) == 0
    assert (inside / f"why.{ending}").stat().st_size > 100
    assert f"Wrote why.{ending}" in capsys.readouterr().out


def test_several_photographs_are_numbered(inside):
    photographs = ["photographs/000.png", "photographs/001.png"]
    assert run("explain", "model.safetensors", *photographs, "-o", "several.txt", *LOADED) == 0
    assert sorted(file.name for file in inside.glob("several*")) == ["several_1.txt", "several_2.txt"]


def test_contrast(inside, capsys):
    words = ["explain", "model.safetensors", "photographs/000.png", *LOADED]
    assert run(*words, "--rather-than", load_digits_network().class_names[1]) == 0
    assert "rather than" in capsys.readouterr().out


def test_true_labels(inside, capsys):
    words = ["explain", "model.safetensors", "photographs/000.png", *LOADED]
    names = load_digits_network().class_names
    assert run(*words, "--label", names[9], "-o", "labelled.svg") == 0
    assert re.search(r"(right|wrong): labelled", (inside / "labelled.svg").read_text(encoding="utf-8"))
    assert run(*words, "--label", "9", "-o", "labelled.html") == 0
    assert f'"label":"\\ue000{9}' in (inside / "labelled.html").read_text(encoding="utf-8")
    assert run(*words, "--label", "9") == 1
    assert "shown only in .html, .png, .svg, .pdf files; the output is .txt" in capsys.readouterr().err


def test_report(inside, capsys):
    assert run("report", "model.safetensors", "photographs", "--images", "12", *LOADED) == 0
    assert "12 images" in capsys.readouterr().out


def test_layers_mark_the_defaults(inside, capsys):
    assert run("layers", "mydigits:make", "--shape", "1", "8", "8") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("* conv3") for line in lines)
    assert not all(line.startswith("*") for line in lines)


def test_demo(inside, capsys):
    assert run("demo") == 0
    assert (inside / "digits.html").stat().st_size > 10_000
    assert "log-odds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "nothing.safetensors", "photographs/000.png"], "no file 'nothing.safetensors'"),
        (["explain", "names.txt", "photographs/000.png"], "not written by skgmmcnn"),
        (["explain", "model.safetensors", "photographs/000.png"], "--network MODULE:CALLABLE"),
        (["explain", "model.safetensors", "none.png", *LOADED], "none.png"),
        (["explain", "model.safetensors", "photographs", "names.txt", *LOADED], "one folder"),
        (["explain", "model.safetensors", "photographs/000.png", "-o", "why.doc", *LOADED], "'.doc'"),
        (["explain", "model.safetensors", "photographs/000.png", "--rather-than", "cow", *LOADED], "'cow'"),
        (["fit", "mydigits:make", "photographs", "-o", "nowhere/m.safetensors"], "nowhere"),
        (["fit", "mydigits:make", "photographs", "-o", "model.pkl"], ".safetensors"),
        (["fit", "mydigits:absent", "photographs", "-o", "m.safetensors"], "no attribute 'absent'"),
        (["fit", "no_such_module:make", "photographs", "-o", "m.safetensors"], "no_such_module"),
        (["fit", "resnet999", "photographs", "-o", "m.safetensors"], "resnet999"),
        (["fit", "mydigits:make", "absent", "-o", "m.safetensors", *NETWORK], "absent"),
        (["layers", ":make"], "must name a module and something in it"),
        (["fit", "resnet18", "photographs", "-o", "m.safetensors", "--preprocess", "mydigits"], "something in it"),
        (["fit", "mydigits:", "photographs", "-o", "m.safetensors"], "something in it"),
        (["layers", "./mydigits.py:make"], "something in it"),
    ],
)
def test_mistakes_are_one_line(inside, capsys, arguments, message):
    assert run(*arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("skgmmcnn: error: ")
    assert message in lines[-1]


@pytest.mark.parametrize("error", [AttributeError, ValueError])
def test_errors_of_an_imported_module_are_its_own(inside, error):
    (inside / "faulty.py").write_text(f"raise {error.__name__}('of this module')", encoding="utf-8")
    with pytest.raises(error, match=r"^of this module$"):
        _import("faulty:make")


@pytest.mark.parametrize("arguments", [[], ["fit"], ["explain"], ["unknown"]])
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: skgmmcnn" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", "fit", "explain", "report", "layers", "demo"])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([*command.split(), "--help"])
    assert exit_.value.code == 0
    assert f"  skgmmcnn {command or 'demo'}" in capsys.readouterr().out


def test_module_runs():
    done = subprocess.run([sys.executable, "-m", "skgmmcnn", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("skgmmcnn ")
