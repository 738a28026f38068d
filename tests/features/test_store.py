"""Activations kept on disk: found again, completed, refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary


@pytest.fixture
def extractor(digits, tmp_path):
    return FeatureExtractor(digits.network, ["conv2", "conv3"], store=tmp_path / "store", batch_size=16, device="cpu")


def passes(extractor):
    """Count the images that pass through the network from now on, but not those that fill up a part."""
    counted = []
    run = extractor._traced.run
    extractor._traced.run = lambda part: (counted.append(len(part.flatten(1).unique(dim=0))), run(part))[1]
    return counted


def arrays(maps):
    parts = list(maps.batches())
    return {layer: np.concatenate([part.activations[layer].numpy() for part in parts]) for layer in maps.layers}


def run_through(maps):
    for _ in maps.batches():
        pass


def assert_same(first, second):
    for layer, values in arrays(first).items():
        np.testing.assert_array_equal(values, arrays(second)[layer])
    np.testing.assert_array_equal(first.outputs, second.outputs)


def test_the_network_runs_once(extractor, digits):
    images = digits.images[:100]
    extractor.fit(images)
    counted = passes(extractor)
    LayerDictionary(5, random_state=0).fit(extractor.transform(images))
    assert sum(counted) == 100
    maps = extractor.transform(images)
    LayerDictionary(5, random_state=0).fit_transform(maps)
    InferenceGraph().fit(LayerDictionary(5, random_state=0).fit_transform(maps))
    assert sum(counted) == 100
    plain = FeatureExtractor(digits.network, ["conv2", "conv3"], batch_size=16, device="cpu").fit_transform(images)
    assert_same(maps, plain)
    assert_same(maps[[70, 3, 41]], plain[[70, 3, 41]])
    np.testing.assert_array_equal(maps.pictures()[5], plain.pictures()[5])
    # Other images, weights, layers or preprocessing are other stores.
    run_through(extractor.transform(digits.images[100:150]))
    assert sum(counted) == 150
    assert len(list((extractor.store).iterdir())) == 2


def test_maps_can_be_stored_by_themselves(digits, tmp_path):
    plain = FeatureExtractor(digits.network, ["conv2", "conv3"], device="cpu").fit_transform(digits.images[:60])
    kept = plain[10:50].store(tmp_path)
    assert_same(kept, plain[10:50])
    assert_same(kept[5:9], plain[15:19])
    half = plain.store(tmp_path, dtype="float16")
    for layer, values in arrays(half).items():
        np.testing.assert_array_equal(values, arrays(plain)[layer].astype(np.float16))
    with pytest.raises(ValueError, match="held in memory already"):
        plain.compute().store(tmp_path)


def test_half_precision_is_the_same_on_the_way_and_from_disk(digits, tmp_path):
    extractor = FeatureExtractor(digits.network, ["conv3"], store=tmp_path, store_dtype="float16", device="cpu")
    maps = extractor.fit_transform(digits.images[:40])
    first, second = arrays(maps), arrays(maps)
    np.testing.assert_array_equal(first["conv3"], second["conv3"])


def test_words_of_half_precision(digits, tmp_path):
    maps = FeatureExtractor(digits.network, ["conv2", "conv3"], device="cpu").fit_transform(digits.images[:300])
    dictionary = LayerDictionary(20, random_state=0).fit(maps)
    words, stored = dictionary.predict(maps), dictionary.predict(maps.store(tmp_path, dtype="float16"))
    for layer in maps.layers:
        assert (words[layer] != stored[layer]).mean() < 0.005


SCRIPT = """
import sys, time
from skgmmcnn import FeatureExtractor
from skgmmcnn.datasets import load_digits_network
digits = load_digits_network()
extractor = FeatureExtractor(digits.network, ["conv2", "conv3"], batch_size=8, device="cpu")
maps = extractor.fit_transform(digits.images[:600])
run = extractor._traced._capturing.forward
def slow(batch):
    time.sleep(0.2)
    print("batch", flush=True)
    return run(batch)
extractor._traced._capturing.forward = slow
maps.store(sys.argv[1])
"""


def test_completes_what_a_killed_process_left(digits, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    for _ in range(6):
        assert process.stdout.readline() == "batch\n"
    other = FeatureExtractor(digits.network, ["conv2", "conv3"], batch_size=8, device="cpu")
    plain = other.fit_transform(digits.images[:600])
    # While it writes, another process can use the same store, and does not write.
    assert_same(plain.store(tmp_path), plain)
    process.kill()
    process.wait()
    process.stdout.close()
    (folder,) = tmp_path.iterdir()
    done = np.fromfile(folder / "present.bin", np.uint8).sum()
    assert 0 < done < 600
    counted = passes(other)
    kept = plain.store(tmp_path)
    assert sum(counted) == 600 - done
    assert_same(kept, plain)


def damaged(extractor, digits):
    maps = extractor.fit_transform(digits.images[:50])
    run_through(maps)
    (folder,) = extractor.store.iterdir()
    return maps, folder


def test_a_truncated_store_is_refused(extractor, digits):
    _, folder = damaged(extractor, digits)
    with open(folder / "layer1.bin", "r+b") as file:
        file.truncate(100)
    with pytest.raises(ValueError, match=r"is damaged: layer1.bin has 100 bytes instead of \d+"):
        extractor.transform(digits.images[:50])
    (folder / "layer1.bin").unlink()
    with pytest.raises(ValueError, match=r"layer1\.bin has 0 bytes"):
        extractor.transform(digits.images[:50])


def test_changed_values_are_refused(extractor, digits):
    maps, folder = damaged(extractor, digits)
    with open(folder / "layer0.bin", "r+b") as file:
        file.seek(5 * 16 * 8 * 8 * 4 + 100)
        file.write(b"\xff")
    with pytest.raises(ValueError, match="the values of image 5 are not those that were written"):
        run_through(maps)


def test_another_store_in_its_place_is_refused(extractor, digits):
    _, folder = damaged(extractor, digits)
    about = folder / "store.json"
    about.write_text(about.read_text(encoding="utf-8").replace('"weights": "', '"weights": "f'), encoding="utf-8")
    with pytest.raises(ValueError, match="holds activations of other weights"):
        extractor.transform(digits.images[:50])


WITHOUT = """
import os, sys
sys.modules.update(fcntl=None, resource=None)
del os.posix_fallocate
import numpy as np
from skgmmcnn import FeatureExtractor
from skgmmcnn.datasets import load_digits_network
digits = load_digits_network()
plain = FeatureExtractor(digits.network, ["conv2"], device="cpu").fit_transform(digits.images[:20])
(written,), (read,) = plain.store(sys.argv[1]).batches(), plain.store(sys.argv[1]).batches()
(folder,) = os.scandir(sys.argv[1])
assert np.fromfile(os.path.join(folder.path, "present.bin"), np.uint8).all()
assert written.activations["conv2"].equal(read.activations["conv2"])
print("stored")
"""


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system has none of it anyway")
def test_stores_without_what_only_some_systems_have(tmp_path):
    """Windows has neither `fcntl` nor `resource`, and like macOS no `os.posix_fallocate`."""
    command = [sys.executable, "-c", WITHOUT, str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "stored\n"


@pytest.mark.parametrize("fast", [True, False])
def test_a_full_disk_is_found_before_work(fast, digits, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    if not fast:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    maps = FeatureExtractor(digits.network, ["conv2"], device="cpu").fit_transform(digits.images[:50])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="No room for 0 MiB of activations; store float16"):
            maps.store(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert maps.store(tmp_path).shape == (50,)  # and nothing stands in the way afterwards


def test_values_beyond_half_precision_are_refused(digits, tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 3))
    with torch.no_grad():
        network[0].weight.fill_(1e6)
    maps = FeatureExtractor(network, ["0"], preprocess=None, device="cpu").fit_transform(digits.images[:20])
    with pytest.raises(ValueError, match="Layer '0' holds values beyond the range of float16"):
        maps.store(tmp_path, dtype="float16")
    assert maps.store(tmp_path).shape == (20,)


def positive(outputs):
    return (outputs["logit"][:, 0] > 0).long()


@pytest.mark.parametrize("form", ["one logit", "a dict"])
def test_outputs_that_are_no_scores_are_not_made_up(form, tmp_path):
    """The decisions are kept; what the network returned is not replaced by zeros."""

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 1))

        def forward(self, x):
            return self.body(x) if form == "one logit" else {"logit": self.body(x)}

    settings = {} if form == "one logit" else {"decision": positive, "class_names": ["no", "yes"]}
    X = np.random.default_rng(0).normal(size=(20, 1, 8, 8)).astype(np.float32)
    maps = FeatureExtractor(Network(), ["body.0"], preprocess=None, device="cpu", **settings).fit_transform(X)
    kept = maps.store(tmp_path)
    for batch, its in zip(maps.batches(), kept.batches(), strict=True):
        np.testing.assert_array_equal(its.decisions, batch.decisions)
        assert its.outputs is None
    with pytest.raises(ValueError, match=r"no \(n, C\) tensor of scores"):
        kept.outputs.sum()


def test_what_cannot_be_hashed_is_refused(digits, tmp_path):
    extractor = FeatureExtractor(digits.network, ["conv3"], preprocess=lambda image: image, store=tmp_path)
    with pytest.raises(ValueError, match="cannot be hashed"):
        extractor.fit_transform(digits.images[:20])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_grid_in_two_processes_reads_one_store(extractor, digits):
    images = digits.images[:200]
    maps = extractor.fit_transform(images)
    run_through(maps)
    counted = passes(extractor)
    before = time.time()
    search = GridSearchCV(
        make_pipeline(LayerDictionary(random_state=0), InferenceGraph()),
        {"layerdictionary__n_components": [5, 10]},
        n_jobs=2,
        cv=2,
    ).fit(maps)
    assert search.best_score_ > 0.2
    assert not counted
    (folder,) = Path(extractor.store).iterdir()
    assert max(os.stat(folder / name).st_mtime for name in os.listdir(folder) if name != "lock") < before
