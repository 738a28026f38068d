"""The documentation knows every public name, and all of its code is run."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import skgmmcnn

ROOT = Path(__file__).parents[1]
BUILT = {"generated", "gallery", "sg_execution_times.rst"}
PAGES = sorted(page for page in (ROOT / "docs").glob("**/*.rst") if not BUILT & set(page.parts))


def public_objects():
    """Return every public object by its dotted names."""
    packages = [skgmmcnn] + [
        importlib.import_module(f"skgmmcnn.{module.name}")
        for module in pkgutil.iter_modules(skgmmcnn.__path__)
        if not module.name.startswith("_")
    ]
    return {f"{package.__name__}.{name}": getattr(package, name) for package in packages for name in package.__all__}


def listed_names():
    """Return the names in the lists of the API reference."""
    text = (ROOT / "docs" / "api" / "index.rst").read_text()
    return re.findall(r"^   (skgmmcnn\.\S+)$", text, re.MULTILINE)


def test_every_public_name_has_one_page():
    objects, listed = public_objects(), listed_names()
    assert not set(listed) - set(objects), "listed, but not public"
    pages = [id(objects[name]) for name in listed]
    assert len(set(pages)) == len(pages), "listed twice"
    assert not [name for name, value in objects.items() if id(value) not in pages], "public, but not listed"


def test_each_is_listed_by_the_shortest_name():
    objects = public_objects()
    for name in listed_names():
        assert name == min((other for other in objects if objects[other] is objects[name]), key=len)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_of_pages_is_run(page):
    """Doctests run; another block of Python, or a literal one, would not."""
    for line in page.read_text().splitlines():
        assert not re.match(r"\.\. code-block:: (?!console)", line)
        assert line.startswith("..") or not line.endswith("::"), "a literal block"


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda example: example.stem)
def test_examples_are_stories_in_cells(example):
    text = example.read_text()
    assert re.match(r'"""\n(.+)\n=+\n\n', text)
    assert text.count("\n# %%\n") >= 3
