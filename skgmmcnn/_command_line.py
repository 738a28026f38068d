"""The command line interface."""

from __future__ import annotations

import argparse
import importlib
import operator
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline, make_pipeline
from torchvision.models import ResNet18_Weights

from . import (
    FeatureExtractor,
    InferenceGraph,
    InferenceGraphDisplay,
    InferenceGraphPage,
    LayerDictionary,
    __version__,
    load,
    save,
    to_text,
)
from .datasets import load_digits_network
from .features import list_layers
from .graph import write_graph
from .metrics import trust_report

_PROGRAM = "skgmmcnn"
_NETWORK = "a torchvision name (resnet18), or module:callable"
_EXAMPLES = """
examples:
  skgmmcnn demo
  skgmmcnn layers resnet18
  skgmmcnn fit resnet18 photographs/ -o model.safetensors
  skgmmcnn explain model.safetensors mine.jpg
  skgmmcnn explain model.safetensors mine.jpg -o why.html
  skgmmcnn explain model.safetensors mine.jpg -o why.png --rather-than "tow truck"
  skgmmcnn report model.safetensors other_photographs/

A network of your own is named by its module and the function or class that returns it, as in
"mynetwork:make"; the module is found in the current folder, too.
"""
_PAGES, _PICTURES, _TEXTS = (".html",), (".png", ".svg", ".pdf"), (".txt",)
_GRAPHS = (".graphml", ".gexf", ".json", ".cyjs", ".dot")
_FAILED, _INTERRUPTED = 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in `arguments`, by default those of the process, and return its exit status.

    After an error, which is printed on one line, it is 1.  Wrong usage exits with 2, by :mod:`argparse`.
    """
    options = make_parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = _print_warning
        try:
            options.command(options)
        except KeyboardInterrupt:
            return _INTERRUPTED
        except BrokenPipeError:  # as by "skgmmcnn layers resnet18 | head"; the rest of the output is discarded
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _FAILED
        except (ArithmeticError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
            _print_line("error", str(error) or type(error).__name__)
            return _FAILED
    return 0


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _print_line("warning", str(message))


def _print_line(kind: str, message: str) -> None:
    print(f"{_PROGRAM}: {kind}: {' '.join(message.split())}", file=sys.stderr)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Explain an image classifier's decision by the visual words of its layers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_fit, _add_explain, _add_report, _add_layers, _add_demo):
        add(commands)
    return parser


def _add_command(commands: Any, run: Callable, example: str) -> argparse.ArgumentParser:
    """Add the command of a function `_name`, which its docstring describes."""
    name = run.__name__.removeprefix("_")
    description = run.__doc__ or ""
    parser = commands.add_parser(
        name,
        help=f"{description[:1].lower()}{description[1:]}".rstrip("."),
        description=description,
        epilog=f"example:\n  {_PROGRAM} {name} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def _add_fit(commands: Any) -> None:
    example = "resnet18 photographs/ -o model.safetensors --words 200 --layers layer2 layer3 layer4"
    add = _add_command(commands, _fit, example).add_argument
    add("network", metavar="NETWORK", help=_NETWORK)
    add(
        "--weights",
        help="torchvision weights by name, or a file with a state dict; 'none' for those the network has.  Default: "
        "DEFAULT for torchvision names, which are downloaded once; none for module:callable",
    )
    preprocess = "called with one PIL image, returns a tensor; default: that of the weights"
    add("--preprocess", metavar="MODULE:CALLABLE", help=preprocess)
    add("folder", metavar="FOLDER", help="some hundred images, of the classes to explain; no labels are needed")
    add("-o", "--output", required=True, metavar="FILE", help="the fitted model; safetensors, no pickle")
    add("--layers", nargs="+", metavar="LAYER", help=f"two to five; see '{_PROGRAM} layers NETWORK'")
    add("--words", type=int, default=100, metavar="N", help="words of a layer (%(default)s)")
    add("--nodes", type=int, default=3, metavar="N", help="words of a layer in a graph (%(default)s)")
    names = "text file, one name a line, in the order of the outputs; or imagenet"
    add("--class-names", metavar="NAMES", help=names)
    add("--no-patches", action="store_true", help="save no patches of images")
    add("--seed", type=int, default=0, metavar="N", help="of the words (%(default)s)")


def _fit(options: argparse.Namespace) -> None:
    """Learn the visual words of a network's layers from a folder of images."""
    output = Path(options.output)
    if not output.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(output.absolute().parent)!r} to write {output.name!r} to.")
    if output.suffix != ".safetensors":
        raise ValueError(f"The fitted model is a file that ends in .safetensors; got {str(output)!r}.")
    extractor = FeatureExtractor(
        _network(options.network),
        options.layers,
        weights=_weights(options),
        preprocess=_import(options.preprocess) if options.preprocess else "auto",
        class_names=_class_names(options.class_names),
        verbose=1,
    )
    words = LayerDictionary(options.words, keep_patches=not options.no_patches, random_state=options.seed, verbose=1)
    graph = InferenceGraph(options.nodes, random_state=options.seed, verbose=1)
    pipe = make_pipeline(extractor, words, graph).fit(options.folder)
    save(pipe, output)
    print(f"Wrote {output}: words of {', '.join(pipe[0].spec_.layers)}.")


def _weights(options: argparse.Namespace) -> str | None:
    if options.weights is None:
        return None if ":" in options.network else "DEFAULT"
    return None if options.weights == "none" else options.weights


def _class_names(place: str | None) -> list[str] | None:
    if place == "imagenet":
        return ResNet18_Weights.DEFAULT.meta["categories"]
    return None if place is None else Path(place).read_text(encoding="utf-8").splitlines()


def _network(name: str) -> Any:
    """Return a torchvision name unchanged, or the object at ``module:callable``."""
    return _import(name) if ":" in name else name


def _import(place: str) -> Any:
    """Return the object at ``module:name``, where the module may lie in the current folder."""
    module, _, name = place.partition(":")
    if not module or module.startswith(".") or not name:
        raise ValueError(f"{place!r} must name a module and something in it, as in 'mynetwork:make'.")
    if "" not in sys.path:
        sys.path.insert(0, "")
    loaded = importlib.import_module(module)
    try:
        return operator.attrgetter(name)(loaded)
    except AttributeError as error:
        raise ImportError(f"{place!r} does not exist: {error}.") from error


def _add_fitted(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=f"file that '{_PROGRAM} fit' has written")
    parser.add_argument("--network", metavar="MODULE:CALLABLE", help="the network, where it is not torchvision's")
    parser.add_argument("--preprocess", metavar="MODULE:CALLABLE", help="the preprocessing, where it is your function")


def _load(options: argparse.Namespace) -> Pipeline:
    places = {"model": options.network, "preprocess": options.preprocess}
    try:
        pipe = load(options.model, **{name: _import(place) for name, place in places.items() if place})
    except ValueError as error:
        if "load(path," in str(error):  # the missing code, as an argument of a function
            raise ValueError(f"{error} Here: --network MODULE:CALLABLE, --preprocess MODULE:CALLABLE.") from error
        raise
    return pipe.set_params(**{f"{name}__verbose": 0 for name, _ in pipe.steps})


def _add_explain(commands: Any) -> None:
    parser = _add_command(commands, _explain, 'model.safetensors mine.jpg -o why.html --rather-than "tow truck"')
    _add_fitted(parser)
    parser.add_argument("photographs", nargs="+", metavar="PHOTO", help="image files, or one folder")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="by its ending: .html, a page of all photographs; .png, .svg or .pdf, pictures; .graphml, .gexf, .json, "
        ".cyjs or .dot, graphs for other programs; .txt.  One file a photograph, except for the page: why_1.png, "
        "why_2.png, ...  Default: text on the screen",
    )
    contrast = "contrast the decision with this class, by name or number"
    parser.add_argument("--rather-than", metavar="CLASS", type=_class, help=contrast)
    label = "true class of the photographs, for a page or pictures"
    parser.add_argument("--label", metavar="CLASS", type=_class, help=label)


def _class(name: str) -> int | str:
    return int(name) if name.isdecimal() else name


def _explain(options: argparse.Namespace) -> None:
    """Show the words by which the network decided for each photograph."""
    pipe = _load(options)
    X = _photographs(options.photographs)
    output, contrast, label = options.output, options.rather_than, options.label
    ending = output.suffix.lower() if output else _TEXTS[0]
    formats = (*_PAGES, *_PICTURES, *_GRAPHS, *_TEXTS)
    if ending not in formats:
        raise ValueError(f"The output's ending {ending!r} names no format; use one of {', '.join(formats)}.")
    if label is not None and ending not in _PAGES + _PICTURES:
        raise ValueError(f"--label is shown only in {', '.join(_PAGES + _PICTURES)} files; the output is {ending}.")
    words = pipe[:-1].transform(X)
    y = None if label is None else [label] * len(words)
    if ending in _PAGES:
        page = InferenceGraphPage.from_estimator(pipe[-1], words, y, contrast=True if contrast is None else contrast)
        _write_page(page, output)
        return
    graphs = None if ending in _PICTURES else pipe[-1].explain(words, contrast=contrast)
    for number, file in enumerate(_files(output, len(words))):
        if graphs is None:
            display = InferenceGraphDisplay.from_estimator(pipe[-1], words, y, image=number, contrast=contrast)
            display.figure_.savefig(file)
        elif ending in _GRAPHS:
            write_graph(graphs[number], file)
        elif file is None:
            heading = f"{X[number]}\n" if isinstance(X, list) and len(X) > 1 else ""
            print(f"{heading}{to_text(graphs[number])}\n")
        else:
            file.write_text(f"{to_text(graphs[number])}\n", encoding="utf-8")
        if file is not None:
            print(f"Wrote {file}")


def _photographs(places: Sequence[str]) -> Any:
    """Return one folder, or a list of files."""
    folders = [name for name in places if Path(name).is_dir()]
    if folders and len(places) > 1:
        raise ValueError(f"Give image files, or one folder; got the folder {folders[0]!r} beside others.")
    return folders[0] if folders else list(places)


def _files(output: Path | None, n: int) -> list[Any]:
    """Return the output file of each photograph, numbered from 1 if there are several; None is the screen."""
    if output is None or n == 1:
        return [output] * n
    return [output.with_stem(f"{output.stem}_{number}") for number in range(1, n + 1)]


def _write_page(page: InferenceGraphPage, output: str | Path) -> None:
    page.save(output)
    print(f"Wrote {output}; open it in a browser.")


def _add_report(commands: Any) -> None:
    parser = _add_command(commands, _report, "model.safetensors other_photographs/ --images 50")
    _add_fitted(parser)
    parser.add_argument("folder", metavar="FOLDER", help="images, best others than the fitted ones")
    parser.add_argument("--images", type=int, metavar="N", help="number of images, the first ones; default: 50")


def _report(options: argparse.Namespace) -> None:
    """Measure how far the graphs can be relied on."""
    print(trust_report(_load(options), options.folder, n_images=options.images, random_state=0))


def _add_layers(commands: Any) -> None:
    parser = _add_command(commands, _layers, "resnet18")
    parser.add_argument("network", metavar="NETWORK", help=_NETWORK)
    shape = "of its input: channels, height and width (3 224 224), or the length of a vector"
    parser.add_argument("--shape", nargs="+", type=int, default=(3, 224, 224), metavar="N", help=shape)


def _layers(options: argparse.Namespace) -> None:
    """List a network's layers, with a star those taken by default."""
    X = np.random.RandomState(0).rand(1, *options.shape).astype(np.float32)
    for layer in list_layers(_network(options.network), X, preprocess=None):
        field = "whole image" if layer.field is None else "sees {} x {}".format(*layer.field)
        size = " x ".join(map(str, layer.shape))
        print(f"{'*' if layer.default else ' '} {layer.name:40} {layer.kind:20} {size:16} {field}")


def _add_demo(commands: Any) -> None:
    parser = _add_command(commands, _demo, "-o digits.html")
    parser.add_argument("-o", "--output", default="digits.html", metavar="FILE", help="the page (%(default)s)")


def _demo(options: argparse.Namespace) -> None:
    """Explain decisions of a small network that reads digits; nothing is downloaded."""
    digits = load_digits_network()
    layers = {"conv1": 16, "conv2": 30, "conv3": 40}
    pipe = make_pipeline(
        FeatureExtractor(digits.network, list(layers), class_names=digits.class_names),
        LayerDictionary(layers, random_state=0),
        InferenceGraph(random_state=0),
    ).fit(digits.images)
    words = pipe[:-1].transform(digits.test_images[3:4])
    print(f"{to_text(*pipe[-1].explain(words))}\n")
    _write_page(InferenceGraphPage.from_estimator(pipe, digits.test_images), options.output)
