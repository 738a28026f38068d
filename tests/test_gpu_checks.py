"""The script of GPU checks, on a CPU."""

import pytest
import torch

from skgmmcnn import LayerDictionary


@pytest.fixture
def script(benchmark, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return benchmark("gpu")


def test_all_agrees_with_itself(script, capsys):
    assert script.main() == 0
    printed = capsys.readouterr().out
    assert "proves little" in printed
    assert printed.count("  ok") >= 9
    assert "All results agree." in printed


def test_other_words_are_noticed(script, capsys, monkeypatch):
    transform = LayerDictionary.transform
    calls = []

    def second_is_wrong(self, maps):
        words = transform(self, maps)
        calls.append(1)
        if len(calls) == 2:
            words.words["layer4"][:] = (words.words["layer4"] + 1) % 5
            words.proba["layer4"][:] = 1
        return words

    monkeypatch.setattr(LayerDictionary, "transform", second_is_wrong)
    assert script.main() > 0
    assert "DISAGREES" in capsys.readouterr().out
