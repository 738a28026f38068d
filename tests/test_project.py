"""Files of the project agree with ``pyproject.toml``."""

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import skgmmcnn

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
FORMS = [".github/ISSUE_TEMPLATE/bug_report.yml", ".github/ISSUE_TEMPLATE/feature_request.yml"]


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def versions(lines, operator):
    """Return the version after `operator`, the only bound, of each package."""
    parsed = [Requirement(line) for line in lines]
    assert all([part.operator for part in line.specifier] == [operator] for line in parsed)
    return {line.name: Version(next(iter(line.specifier)).version) for line in parsed}


def test_lowest_versions_are_those_of_the_project():
    lines = (ROOT / ".ci" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = versions([line for line in lines if not line.startswith("#")], "==")
    assert pinned == versions(PROJECT["dependencies"] + EXTRAS["export"], ">=")


def test_hooks_lint_with_the_pinned_version():
    (revision,) = [hook["rev"] for hook in read(".pre-commit-config.yaml")["repos"] if "ruff" in hook["repo"]]
    assert f"ruff=={revision.removeprefix('v')}" in EXTRAS["test"]


def test_workflow_covers_systems_and_versions_with_the_script_that_all_use():
    jobs = read(".github/workflows/ci.yml")["jobs"]
    matrix = jobs["tests"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["system"]} == {"ubuntu", "macos", "windows"}
    pythons = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert matrix["python"] == [pythons[0], pythons[-1]]
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    parts = [step["run"].split() for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {command for command, *_ in parts} == {".ci/run"}
    assert {part for _, *some in parts for part in some} == {"wheel", "tests", "lint", "docs", "lowest"}


def test_citation_names_this_version():
    cited = read("CITATION.cff")
    assert (cited["version"], cited["license"]) == (skgmmcnn.__version__, PROJECT["license"])
    assert len(cited["references"]) == 2


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_issues_can_be_read(form):
    assert {"name", "description", "body"} <= set(read(form))


def test_a_report_asks_for_versions():
    assert "show_versions" in str(read(FORMS[0])["body"])
