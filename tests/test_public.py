"""The public face: every public name is documented in full."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from numpydoc.validate import validate

import skgmmcnn

# Examples stand with the classes; sections that repeat the summary help nobody.
IGNORED = {"EX01", "SA01", "ES01", "GL08", "RT02"}


def public_objects():
    """Yield the dotted name of every public class, method, property and function."""
    packages = ["skgmmcnn"] + [
        f"skgmmcnn.{module.name}"
        for module in pkgutil.iter_modules(skgmmcnn.__path__)
        if not module.name.startswith("_")
    ]
    for package in packages:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            yield f"{package}.{name}"
            for attribute, member in vars(value).items() if inspect.isclass(value) else ():
                if not attribute.startswith("_") and (inspect.isfunction(member) or isinstance(member, classmethod)):
                    yield f"{package}.{name}.{attribute}"


DOCUMENTED = list(public_objects())


def test_number_of_public_names():
    assert len(DOCUMENTED) > 50
    assert all(inspect.getdoc(getattr(skgmmcnn, name)) for name in skgmmcnn.__all__)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstring(name):
    errors = [(code, text) for code, text in validate(name)["errors"] if code not in IGNORED]
    assert not errors


def test_classes_have_runnable_examples():
    for name in skgmmcnn.__all__:
        assert ">>>" in inspect.getdoc(getattr(skgmmcnn, name)), name


def crossing_imports(file):
    """Yield the private modules of other folders that a file of a package imports from."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            absolute = ".".join(["skgmmcnn", file.parent.name][: 3 - node.level] if node.level else [])
            module = ".".join(part for part in (absolute, node.module) if part)
            modules = [module, *(f"{module}.{alias.name}" for alias in node.names if alias.name.startswith("_"))]
        for module in modules:
            match module.split("."):
                case ["skgmmcnn", folder, name, *_] if name.startswith("_") and folder != file.parent.name:
                    yield module


def test_folders_import_from_the_faces_of_others():
    root = Path(skgmmcnn.__file__).parent
    found = [(str(file.relative_to(root)), module) for file in root.glob("*/*.py") for module in crossing_imports(file)]
    assert not [pair for pair in found if not pair[1].startswith("skgmmcnn.graph._")]
