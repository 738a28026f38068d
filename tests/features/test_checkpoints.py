"""Weights that lie under prefixes or inside checkpoints, and files that hold none."""

import logging
import warnings

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from skgmmcnn import FeatureExtractor

X = np.random.default_rng(0).random((3, 3, 8, 8), dtype=np.float32)


def network(seed=0, channels=4):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.Flatten(), nn.Linear(36 * channels, 2)
    )


def extractor(file):
    return FeatureExtractor(network, ["2"], weights=file, preprocess=None, device="cpu").fit(X)


def under(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


STATE = network(1).state_dict()
OLD = {key: value for key, value in STATE.items() if "num_batches" not in key}
FORMS = {
    "plain": STATE,
    "without counters": OLD,
    "compiled": under("_orig_mod.", STATE),
    "compiled inside": {key.replace("4.", "4._orig_mod."): value for key, value in STATE.items()},
    "parallel": under("module.", STATE),
    "both": under("module._orig_mod.", STATE),
    "lightning": {"epoch": 3, "state_dict": {**under("model.", STATE), "loss.weight": torch.ones(2)}},
    "backbone": under("model.backbone.", STATE),
    "model": {"model": STATE, "optimizer": {"state": {0: {"step": torch.ones(())}}, "param_groups": [{"lr": 0.1}]}},
    "net": {"net": under("module.", STATE), "acc": 0.9},
    "ema": {"ema": {"shadow": STATE}},
    "the same twice": {"model": STATE, "ema": dict(STATE)},
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found(form, tmp_path, caplog):
    file = tmp_path / "weights.pth"
    torch.save(FORMS[form], file)
    with caplog.at_level(logging.INFO, logger="skgmmcnn"):
        found = extractor(file).network_.state_dict()
    assert all(torch.equal(value, STATE[key]) for key, value in found.items() if key in OLD)
    plain = form in ("plain", "without counters", "compiled", "compiled inside")
    assert len(caplog.messages) == (0 if plain else 1)
    if form == "lightning":
        assert "in ['state_dict'] and under the prefix 'model.'" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            under("model.", network(channels=5).state_dict()),
            r"2 of its 9 tensors.*prefix 'model\.'\. .*size mismatch for 0",
        ),
        (under("a.", {**STATE, "more": torch.ones(1)}), r"9 of its 9 .*prefix 'a\.'\. .*Unexpected key.*more"),
        (under("a.", {"0.weight": STATE["0.weight"]}), r"1 of its 9 .*Missing key.*0.bias"),
        (
            {"model": STATE, "ema": network(2).state_dict()},
            r"more than once: in \['model'\], in \['ema'\]\. Save",
        ),
        ({**under("student.", STATE), **under("teacher.", network(2).state_dict())}, "more than once"),
        ([torch.ones(2)], "contains no weights"),
        (torch.ones(2), "contains no weights"),
        ({"state_dict": 5}, "contains no weights"),
        ({}, "contains no weights"),
        (network(), "other objects than tensors"),
    ],
)
def test_weights_that_do_not_fit_are_counted(content, message, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(content, file)
    with pytest.raises(ValueError, match=rf"weights\.pth'.*{message}|{message}") as error:
        extractor(file)
    assert "weights.pth" in str(error.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin", ".ckpt"])
@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04" + bytes(60), bytes(range(256)) * 8])
def test_files_that_hold_no_weights_are_one_kind_of_error(suffix, content, tmp_path):
    file = tmp_path / f"junk{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"junk\{suffix}' cannot be read as weights"):
        extractor(str(file))


def test_files_that_were_cut_short(tmp_path):
    torch.save(STATE, tmp_path / "cut.pth")
    save_file(STATE, tmp_path / "cut.safetensors")
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-50])
        with pytest.raises(ValueError, match=rf"cut\{file.suffix}' cannot be read as weights"):
            extractor(file)


def test_torchscript_files(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network().eval(), torch.from_numpy(X)), tmp_path / "script.pt")
    with pytest.raises(ValueError, match=r"script\.pt' contains other objects than tensors"):
        extractor(tmp_path / "script.pt")


def test_a_torchvision_model_with_other_weights_is_preprocessed_as_usual(tmp_path):
    usual = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.transforms()
    model = torchvision.models.squeezenet1_1()
    torch.save(under("module.", model.state_dict()), tmp_path / "mine.pth")
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    extractor = FeatureExtractor("squeezenet1_1", ["features.12"], weights=tmp_path / "mine.pth")
    with pytest.warns(UserWarning, match=r"preprocessed as for SqueezeNet1_1_Weights\..* pass preprocess"):
        maps = extractor.fit_transform(images)
    batch = torch.stack([usual(Image.fromarray(image)) for image in images])
    with torch.no_grad():
        np.testing.assert_allclose(maps.outputs, model.eval()(batch), atol=1e-4)
    assert extractor.fit(batch).preprocess_ is None
