"""The public face: every public name is documented in full."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import FunctionType

import pytest
from numpydoc.validate import validate

import skgmmcnn

# Examples stand with the classes; sections that repeat the summary help nobody.
IGNORED = {"EX01", "SA01", "ES01", "GL08", "RT02"}


MODULES = [module.name for module in pkgutil.iter_modules(skgmmcnn.__path__) if not module.name.startswith("_")]
PACKAGES = [skgmmcnn, *(importlib.import_module(f"skgmmcnn.{name}") for name in MODULES)]


def public_objects():
    """Yield the dotted name of every public class, method and function; methods also of the package's base classes."""
    for package in PACKAGES:
        for name in package.__all__:
            value = getattr(package, name)
            yield f"{package.__name__}.{name}"
            for attribute in dir(value) if inspect.isclass(value) else ():
                member = inspect.getattr_static(value, attribute)
                if attribute.startswith("_") or not isinstance(member, (FunctionType, classmethod)):
                    continue
                if member.__module__.startswith("skgmmcnn."):
                    yield f"{package.__name__}.{name}.{attribute}"


DOCUMENTED = list(public_objects())


def test_public_names_are_few_and_documented():
    assert len({name for package in PACKAGES for name in package.__all__}) <= 50
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
