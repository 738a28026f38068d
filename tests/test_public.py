"""The public face: every public name is documented in full."""

import importlib
import inspect
import pkgutil

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
