"""Public names and their documentation, and imports between packages."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import FunctionType

import pytest
from numpydoc.validate import validate

import skgmmcnn

# Methods have no examples of their own, and no sections that repeat the summary.
IGNORED = {"EX01", "SA01", "ES01", "GL08", "RT02"}


MODULES = [module.name for module in pkgutil.iter_modules(skgmmcnn.__path__) if not module.name.startswith("_")]
PACKAGES = [skgmmcnn, *(importlib.import_module(f"skgmmcnn.{name}") for name in MODULES)]


def public_objects():
    """Yield the dotted name of every public class, function and method, with methods of private base classes."""
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


def test_public_names_are_few():
    assert len({name for package in PACKAGES for name in package.__all__}) <= 50


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstring(name):
    errors = [(code, text) for code, text in validate(name)["errors"] if code not in IGNORED]
    assert not errors


def test_classes_have_runnable_examples():
    for name in skgmmcnn.__all__:
        assert ">>>" in inspect.getdoc(getattr(skgmmcnn, name)), name


def crossing_imports(file):
    """Yield the private modules of other packages that a file imports from."""
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


# Packages import only from those of earlier rows.
ROWS = ["features mixture datasets", "dictionary", "chain graph", "metrics plot persistence"]
ROW = {package: row for row, packages in enumerate(ROWS) for package in packages.split()}


def imported_packages(file):
    """Yield the other packages that a file of a package imports from."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (name.partition(".")[0] for name in names)


@pytest.mark.parametrize("package", MODULES)
def test_packages_import_from_earlier_ones(package):
    files = (Path(skgmmcnn.__file__).parent / package).glob("*.py")
    imports = {(file.name, other) for file in files for other in imported_packages(file)}
    assert not [pair for pair in imports if pair[1] in ROW and ROW[pair[1]] >= ROW[package]]


def test_packages_import_no_private_module_of_another():
    root = Path(skgmmcnn.__file__).parent
    assert not [(file.name, module) for file in root.glob("*/*.py") for module in crossing_imports(file)]
