"""Examples that the documentation does not run, on photographs of scikit-learn and small networks."""

import runpy
from pathlib import Path

from torchvision.models import ResNet50_Weights, VGG16_Weights

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_resnet50_on_photographs(photographs, small_networks, capsys):
    runpy.run_path(str(EXAMPLES / "photographs_resnet50.py"))
    output = capsys.readouterr().out
    assert small_networks == [("resnet50", ResNet50_Weights.IMAGENET1K_V2)]
    assert "8  pineapple\n" in output
    assert "decision_953 pineapple: probability " in output
    assert all((photographs.parent / name).stat().st_size > 10_000 for name in ("why.png", "why_all.png", "why.html"))


def test_a_vgg16_on_photographs(photographs, small_networks, capsys):
    runpy.run_path(str(EXAMPLES / "photographs_vgg16.py"))
    output = capsys.readouterr().out
    assert small_networks == [("vgg16", VGG16_Weights.IMAGENET1K_V1)]
    assert "have a wrong decision:\n  photographs/pineapple/8.jpg: swing\n" in output
    assert "pineapple rather than swing" in output
    assert all((photographs.parent / name).stat().st_size > 10_000 for name in ("why.png", "why_not.png"))
