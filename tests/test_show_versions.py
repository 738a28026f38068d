"""Versions and hardware in bug reports."""

import platform
import tomllib
from importlib.metadata import version
from pathlib import Path

import torch
from packaging.requirements import Requirement

from skgmmcnn import show_versions
from skgmmcnn._show_versions import DEPENDENCIES

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def printed(capsys):
    show_versions()
    lines = [line.partition(":") for line in capsys.readouterr().out.splitlines()]
    return {name.strip(): value.strip() for name, _, value in lines}


def test_versions_and_hardware(capsys):
    report = printed(capsys)
    assert report["python"].startswith(platform.python_version())
    assert report["machine"] == platform.platform()
    assert report["numpy"] == version("numpy")
    assert report["threads"] == str(torch.get_num_threads())
    assert report["instructions"] in {"DEFAULT", "AVX2", "AVX512"} or platform.machine() not in {"x86_64", "AMD64"}


def test_missing_packages_and_gpus(capsys, monkeypatch):
    monkeypatch.setattr("skgmmcnn._show_versions.DEPENDENCIES", ["no-such-package"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    report = printed(capsys)
    assert report["no-such-package"] == "not installed"
    assert report["GPUs"] == "none found"


def test_names_of_gpus(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: f"card {place}")
    assert printed(capsys)["GPUs"] == "card 0, card 1"


def test_dependencies_are_those_of_the_project():
    declared = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["export"]
    assert sorted(DEPENDENCIES) == sorted(Requirement(line).name for line in declared)
