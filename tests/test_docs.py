"""The documentation has every public name, and all of its code is run."""

import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from torch import nn
from torchvision.transforms import ToTensor

import skgmmcnn
from skgmmcnn._command_line import make_parser as command_line_parser

ROOT = Path(__file__).parents[1]
BUILT = {"generated", "gallery", "sg_execution_times.rst"}
README, CI = ROOT / "README.rst", ROOT / ".ci" / "run"
# Commands of pages, with the file and the text by which each is run.
RUN = {
    "pip install .": (README, "    pip install . && "),
    'pip install -e ".[test,docs]"': (CI, 'pip install ".[docs]"'),
    "pytest": (README, " && pytest"),
    "ruff check . && ruff format . && mypy": (CI, "\n    ruff check .\n    ruff format --check .\n    mypy\n"),
    "sphinx-build -W --keep-going -b html docs docs/_build/html": (
        CI,
        "\n    sphinx-build -W --keep-going -E -b html docs ",
    ),
    "python docs/check_links.py docs/_build/html": (CI, "\n    python docs/check_links.py docs/_build/html\n"),
    "torchrun --nproc-per-node=2 examples/two_processes.py": (ROOT / "tests/test_distributed.py", '"two_processes.py"'),
}
PAGES = [
    ROOT / "CONTRIBUTING.rst",
    *sorted(page for page in (ROOT / "docs").glob("**/*.rst") if not BUILT & set(page.parts)),
]


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
    text = (ROOT / "docs" / "api" / "index.rst").read_text(encoding="utf-8")
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


def test_the_guide_leads_to_every_name_and_example():
    """The build of the site adds the links back."""
    guide = "".join(page.read_text(encoding="utf-8") for page in PAGES if page.parent.name == "guide")
    linked = {target.rpartition(".")[2] for target in re.findall(r":(?:class|func|meth):`~?([^`<]+)`", guide)}
    assert not [name for name in listed_names() if name.rpartition(".")[2] not in linked]
    examples = set(re.findall(r":doc:`/gallery/([^`]+)`", guide))
    assert examples == {example.stem for example in (ROOT / "examples").glob("*.py")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_of_pages_is_run(page):
    """Code is doctests; commands are listed in `RUN`, and those of the package can be parsed."""
    for line in page.read_text(encoding="utf-8").splitlines():
        assert not re.match(r"\.\. code-block:: (?!console)", line)
        assert line.startswith("..") or not line.endswith("::"), "a literal block"
        if command := re.match(r" +\$ (.+)", line):
            if command[1].startswith("skgmmcnn "):
                check_command(command[1])
                continue
            file, text = RUN[command[1]]
            assert text in file.read_text(encoding="utf-8")


def test_files_of_the_architecture_exist():
    text = (ROOT / "docs" / "architecture.rst").read_text(encoding="utf-8")
    named = re.findall(r"``(\w+/_\w+\.py|_command_line\.py)``", text)
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / "skgmmcnn" / name).exists()]


def check_command(line):
    _, *words = shlex.split(line)
    assert callable(command_line_parser().parse_args(words).command)


def readme():
    return publish_doctree(README.read_text(encoding="utf-8"), settings_overrides={"report_level": 2, "halt_level": 2})


def test_commands_of_the_readme_are_those_that_are_run():
    blocks = [block for block in readme().findall(nodes.literal_block) if "python" not in block["classes"]]
    for block in blocks:
        if "console" in block["classes"]:
            for line in block.astext().splitlines():
                check_command(line.removeprefix("$ "))
    commands = [block.astext() for block in blocks if "console" not in block["classes"]]
    assert len(commands) == 2
    assert all(command.startswith("pip install") for command in commands)
    assert """sed -n 's/^    \\(pip install .*\\)$/\\1/p' README.rst""" in CI.read_text(encoding="utf-8")


def test_code_of_the_readme_runs(photographs, small_networks, capsys):
    """Blocks build on each other; `network` and `transform` stand for those of the reader."""
    namespace = {"network": nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2)), "transform": ToTensor()}
    code = [block for block in readme().findall(nodes.literal_block) if "python" in block["classes"]]
    for block in code:
        exec(compile(block.astext(), f"{README}, above line {block.line}", "exec"), namespace)
    assert len(code) == 2
    assert "decision_953 pineapple: probability >0.9999" in capsys.readouterr().out
    assert (photographs.parent / "why.png").stat().st_size > 10_000


def test_links_of_the_readme_lead_somewhere():
    links = [link["refuri"] for link in readme().findall(nodes.reference) if "refuri" in link]
    pictures = [picture["uri"] for picture in readme().findall(nodes.image)]
    assert len(links) > 10
    assert len(pictures) == 1
    assert not [target for target in links + pictures if "://" not in target and not (ROOT / target).exists()]


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda example: example.stem)
def test_examples_are_stories_in_cells(example):
    text = example.read_text(encoding="utf-8")
    assert re.match(r'"""\n(.+)\n=+\n\n', text)
    assert text.count("\n# %%\n") >= 3
