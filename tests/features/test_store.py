"""Activations kept on disk: found again, completed, refused."""

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from torchvision.transforms import ToTensor

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.datasets import DigitsNetwork
from skgmmcnn.features import maps_of_arrays
from skgmmcnn.features._sources import NetworkSource


@pytest.fixture
def extractor(digits, tmp_path):
    return FeatureExtractor(digits.network, ["conv2", "conv3"], store=tmp_path / "store", batch_size=16, device="cpu")


def passes(extractor):
    """Count the images that pass through the network from now on, but not those that fill up a part."""
    counted = []
    run = extractor._captured.run
    extractor._captured.run = lambda part: (counted.append(len(part.flatten(1).unique(dim=0))), run(part))[1]
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
    # Images are found again one by one; other weights, layers or preprocessing are other stores.
    run_through(extractor.transform(digits.images[50:150]))
    assert sum(counted) == 150
    assert len(list((extractor.store).iterdir())) == 1
    run_through(extractor.set_params(layers=["conv3"]).fit_transform(images))
    assert len(list((extractor.store).iterdir())) == 2


def test_maps_can_be_stored_by_themselves(digits, tmp_path):
    plain = FeatureExtractor(digits.network, ["conv2", "conv3"], device="cpu").fit_transform(digits.images[:60])
    kept = plain[10:50].store(tmp_path)
    assert_same(kept, plain[10:50])
    assert_same(kept[5:9], plain[15:19])
    half = plain.store(tmp_path, dtype="float16")
    for layer, values in arrays(half).items():
        np.testing.assert_array_equal(values, arrays(plain)[layer].astype(np.float16))
    with pytest.raises(ValueError, match="made from arrays, so there is no network"):
        maps_of_arrays({"dense": np.zeros((3, 2))}).store(tmp_path)


def test_half_precision_is_the_same_on_the_way_and_from_disk(digits, tmp_path):
    extractor = FeatureExtractor(digits.network, ["conv3"], device="cpu")
    maps = extractor.fit_transform(digits.images[:40]).store(tmp_path, dtype="float16")
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
run = extractor._captured.run
def slow(batch):
    time.sleep(0.2)
    print("batch", flush=True)
    return run(batch)
extractor._captured.run = slow
maps.store(sys.argv[1])
"""


def test_completes_what_a_killed_process_left(digits, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    for _ in range(6):
        assert process.stdout.readline() == "batch\n"
    other = FeatureExtractor(digits.network, ["conv2", "conv3"], batch_size=8, device="cpu")
    plain = other.fit_transform(digits.images[:600])
    # While it writes, another process can use the same store.
    assert_same(plain[500:].store(tmp_path), plain[500:])
    process.kill()
    process.wait()
    process.stdout.close()
    done = len(list(tmp_path.glob("*/*.bin")))
    assert 100 < done < 600
    counted = passes(other)
    kept = plain.store(tmp_path)
    assert sum(counted) == 600 - done
    assert_same(kept, plain)


@pytest.fixture
def stored(extractor, digits):
    """Maps of 50 images, and the files of the store in their order."""
    maps = extractor.fit_transform(digits.images[:50])
    run_through(maps)
    (folder,) = extractor.store.iterdir()
    return maps, [folder / f"{key}.bin" for key in maps._source.network.images.hashes()]


REFUSAL = r"store/\w+' is damaged: the values of image 5 are not those that were written\. Delete the store"


@pytest.mark.parametrize("place", ["conv2", "conv3", "the outputs", "the decision", "checksum"])
def test_changed_values_are_refused(place, stored):
    maps, files = stored
    fields = {name.removeprefix("layer ").strip("'"): field for name, field in maps._source._record.fields.items()}
    content = bytearray(files[5].read_bytes())
    content[fields[place][1] + 2 if place in fields else -1] ^= 1
    files[5].write_bytes(content)
    with pytest.raises(ValueError, match=REFUSAL):
        run_through(maps)


def test_the_file_of_another_image_or_store_is_refused(stored, extractor, digits):
    maps, files = stored
    content = files[5].read_bytes()
    files[5].write_bytes(files[4].read_bytes())
    with pytest.raises(ValueError, match=REFUSAL):
        run_through(maps)
    run_through(FeatureExtractor(**extractor.get_params() | {"decision": least}).fit_transform(digits.images[:50]))
    (other,) = set(extractor.store.iterdir()) - {files[0].parent}
    files[5].write_bytes((other / files[5].name).read_bytes())
    with pytest.raises(ValueError, match=REFUSAL):
        run_through(maps)
    files[5].write_bytes(content)
    run_through(maps)


def test_a_lost_file_is_computed_again(extractor, digits):
    maps = extractor.fit_transform(digits.images[:100])
    expected = arrays(maps)["conv3"]
    counted = passes(extractor)
    batches = maps.batches()
    next(batches)
    (folder,) = extractor.store.iterdir()
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="is damaged: it has lost images"):
        list(batches)
    np.testing.assert_array_equal(arrays(maps)["conv3"], expected)
    assert sum(counted) == 100


def damage(data, chance):
    """Change, cut, lengthen or blank some bytes."""
    place, kind = chance.randrange(len(data)), chance.randrange(4)
    if kind == 0:
        data[place] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del data[place:]
    elif kind == 2:
        data += chance.randbytes(40)
    else:
        data[place : place + 500] = bytes(len(data[place : place + 500]))


def test_whatever_is_damaged_no_other_values_are_read(stored, extractor, digits):
    maps, files = stored
    expected, contents = arrays(maps), [file.read_bytes() for file in files]
    chance, refused = random.Random(0), 0
    for _ in range(200):
        place = chance.randrange(50)
        content = bytearray(contents[place])
        damage(content, chance)
        files[place].write_bytes(content)
        found = read_or_refused(extractor, digits.images[:50], files[0].parent)
        refused += found is None
        for layer, values in (found or {}).items():
            np.testing.assert_array_equal(values, expected[layer])
        files[place].write_bytes(contents[place])
    assert 150 < refused <= 200


def read_or_refused(extractor, images, folder):
    """Return what a store gives, None where it is refused by an error that names it and the remedy."""
    try:
        return arrays(extractor.transform(images))
    except ValueError as error:
        message = str(error)
    assert str(folder) in message
    assert "elete" in message
    return None


@pytest.mark.parametrize("way", ["before", "while writing"])
def test_a_full_disk(way, digits, tmp_path, monkeypatch):
    maps = FeatureExtractor(digits.network, ["conv2"], device="cpu").fit_transform(digits.images[:50])
    with monkeypatch.context() as patch, limited_files(100) if way == "while writing" else nullcontext():
        if way == "before":
            patch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100_000))
            patch.setattr(NetworkSource, "_pass", None)  # which is not reached
        with pytest.raises(OSError, match="No space for 0 MiB of activations; store float16"):
            maps.store(tmp_path)
        assert not list(tmp_path.glob("*/*"))
    assert maps.store(tmp_path).shape == (50,)  # and nothing stands in the way afterwards


@contextmanager
def limited_files(size):
    """Refuse files of more than `size` bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_values_beyond_half_precision_are_refused(digits, tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 3))
    with torch.no_grad():
        network[0].weight.fill_(1e6)
    maps = FeatureExtractor(network, ["0"], preprocess=None, device="cpu").fit_transform(digits.images[:20])
    with pytest.raises(ValueError, match="Layer '0' contains values beyond the range of float16"):
        maps.store(tmp_path, dtype="float16")
    assert maps.store(tmp_path).shape == (20,)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "bool", "complex64", "float64"])
def test_other_types_are_refused(dtype, digits, tmp_path):
    maps = FeatureExtractor(digits.network, ["conv3"], device="cpu").fit_transform(digits.images[:20])
    with pytest.raises(ValueError, match=f"stored as float32 or float16, not as '{dtype}'"):
        maps.store(tmp_path, dtype=dtype)


def test_errors_of_the_system_name_the_folder_and_the_remedy(digits, tmp_path):
    maps = FeatureExtractor(digits.network, ["conv3"], device="cpu").fit_transform(digits.images[:20])
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"The store cannot be used \(Not a directory.*use another one: .*/file/\w+'"):
        maps.store(tmp_path / "file")
    with pytest.raises(ValueError, match="give a path"):
        maps.store("")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["arrays", "tensors", "files"])
def test_folds_share_a_store(kind, extractor, digits, tmp_path, monkeypatch):
    """Each image passes once, whatever the folds."""
    X, y = digits.images[:120], digits.labels[:120]
    if kind == "tensors":
        X = torch.from_numpy(X)
    if kind == "files":
        X = [tmp_path / f"{i}.png" for i in range(120)]
        for image, file in zip(digits.images, X, strict=False):
            Image.fromarray((255 * image.squeeze()).astype(np.uint8)).save(file)
        extractor.set_params(preprocess=ToTensor())
    run, seen = NetworkSource._pass, []
    monkeypatch.setattr(
        NetworkSource, "_pass", lambda self, batch, *rest: seen.append(len(batch)) or run(self, batch, *rest)
    )
    pipe = make_pipeline(extractor, LayerDictionary(4, random_state=0), InferenceGraph(evidence="counts"))
    for cv in (KFold(3), KFold(4, shuffle=True, random_state=0)):
        GridSearchCV(pipe, {"layerdictionary__n_components": [3, 4]}, cv=cv, error_score="raise").fit(X, y)
    assert sum(seen) == 120


def test_an_image_that_comes_twice_is_computed_once(extractor, digits):
    images = digits.images[[3, 5, 3, 3, 7, 5]]
    maps = extractor.fit_transform(images)
    counted = passes(extractor)
    found = arrays(maps)["conv3"]
    assert sum(counted) == 3
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found, arrays(maps)["conv3"])


def test_images_count_as_they_are_when_they_are_read(extractor, digits):
    images = digits.images[:20].copy()
    maps = extractor.fit_transform(images)
    images[3] = 1 - images[3]
    changed = arrays(maps)["conv3"]
    np.testing.assert_array_equal(changed, arrays(extractor.transform(images))["conv3"])
    before = arrays(extractor.transform(digits.images[:20]))["conv3"]
    assert np.abs(before[3] - changed[3]).max() > 0.1


def test_files_of_equal_size_and_time_have_different_hashes(extractor, digits, tmp_path):
    file = tmp_path / "image.npy"
    plain = extractor.set_params(preprocess=ToTensor())
    outputs = []
    for image in digits.images[:2]:
        Image.fromarray((255 * image.squeeze()).astype(np.uint8)).save(file := tmp_path / "image.bmp")
        os.utime(file, (1, 1))
        outputs.append(plain.fit_transform([file]).outputs)
    assert np.abs(outputs[0] - outputs[1]).max() > 0.1


class Behind(torch.utils.data.Dataset):
    """Images of a file, which hashes of the data set do not see."""

    def __init__(self, file):
        self.file = file

    def __len__(self):
        return len(np.load(self.file))

    def __getitem__(self, i):
        return torch.from_numpy(np.load(self.file)[i])


def test_a_changed_file_behind_a_data_set(digits, tmp_path):
    np.save(tmp_path / "images.npy", digits.images[:30].reshape(-1, 1, 8, 8))
    extractor = FeatureExtractor(digits.network, ["conv3"], preprocess=None, store=tmp_path / "store", device="cpu")
    maps = extractor.fit_transform(Behind(tmp_path / "images.npy"))
    counted = passes(extractor)
    run_through(maps)
    run_through(maps)
    assert sum(counted) == 30
    run_through(extractor.transform(Behind(tmp_path / "images.npy")))
    assert sum(counted) == 38  # some are looked at again
    np.save(tmp_path / "images.npy", 1 - digits.images[:30].reshape(-1, 1, 8, 8))
    with pytest.raises(ValueError, match="is stale: layer 'conv3' of image 0 has changed"):
        run_through(extractor.fit_transform(Behind(tmp_path / "images.npy")))


class Listing(torch.utils.data.Dataset):
    """Lists its files as torchvision's data sets do."""

    def __init__(self, files):
        self.samples = [(str(file), 0) for file in files]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        return torch.from_numpy(np.load(self.samples[i][0])), self.samples[i][1]


def test_a_changed_file_that_a_data_set_lists_is_computed_again(digits, tmp_path):
    files = [tmp_path / f"{i:02}.npy" for i in range(30)]
    for file, image in zip(files, digits.images, strict=False):
        np.save(file, image.reshape(1, 8, 8))
    extractor = FeatureExtractor(digits.network, ["conv3"], preprocess=None, store=tmp_path / "store", device="cpu")
    data = torch.utils.data.Subset(Listing(files), range(1, 30))
    before, hashed = extractor.fit_transform(data).outputs, joblib.hash(extractor.transform(data))
    counted = passes(extractor)
    np.save(files[12], 1 - digits.images[12].reshape(1, 8, 8).astype(np.float64))
    maps = extractor.transform(data)
    np.testing.assert_array_equal(np.flatnonzero((maps.outputs != before).any(1)), [11])
    assert sum(counted) == 9  # some are looked at again
    assert joblib.hash(maps) != hashed


def halve(image):
    return image / 2


def least(outputs):
    return outputs.argmin(1)


def test_a_data_set_that_cannot_be_hashed(digits, tmp_path):
    data = Behind(tmp_path / "images.npy")
    data.open = lambda: None
    np.save(data.file, digits.images[:30].reshape(-1, 1, 8, 8))
    extractor = FeatureExtractor(digits.network, ["conv3"], preprocess=None, store=tmp_path / "store")
    with pytest.raises(ValueError, match="The data set cannot be hashed, so a store cannot identify its images"):
        run_through(extractor.fit_transform(data))


class Own(DigitsNetwork):
    """Whose forward can be changed."""


CHANGES = {"preprocess": (halve, lambda image: image / 3), "decision": (least, lambda outputs: outputs.argmax(1))}


@pytest.mark.parametrize("what", ["preprocess", "decision", "forward"])
def test_changed_code(what, digits, tmp_path, monkeypatch):
    def stored():
        settings = {"preprocess": halve, "decision": least}
        return FeatureExtractor(network, ["conv3"], store=tmp_path, device="cpu", **settings).fit_transform(images)

    network = Own()
    network.load_state_dict(digits.network.state_dict())
    images = digits.images[:30]
    run_through(stored())
    if what == "forward":
        monkeypatch.setattr(Own, "forward", lambda self, x: DigitsNetwork.forward(self, 2 * x))
    else:
        before, after = CHANGES[what]
        monkeypatch.setattr(before, "__code__", after.__code__)
    with pytest.raises(ValueError, match=r"is stale: .*has changed.*Delete the store"):
        run_through(stored())


def test_threads_that_open_one_store_at_once(digits, tmp_path):
    extractor = FeatureExtractor(digits.network, ["conv2", "conv3"], device="cpu").fit(digits.images[:40])
    plain = extractor.transform(digits.images[:40])
    expected = arrays(plain)["conv3"]

    def read(number):
        rows = np.random.default_rng(number).permutation(40)[:20]
        np.testing.assert_array_equal(arrays(plain[rows].store(tmp_path / "store"))["conv3"], expected[rows])

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(read, range(60)))
    (folder,) = (tmp_path / "store").iterdir()
    assert len(os.listdir(folder)) <= 40
    assert {file.suffix for file in folder.iterdir()} == {".bin"}


def test_stored_maps_can_be_pickled(digits, tmp_path):
    maps = FeatureExtractor(
        digits.network, ["conv3"], preprocess=halve, decision=least, store=tmp_path, device="cpu"
    ).fit_transform(digits.images[:30])
    assert_same(pickle.loads(pickle.dumps(maps)), maps)
    assert_same(maps, pickle.loads(pickle.dumps(maps)))


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
    for batch, stored in zip(maps.batches(), kept.batches(), strict=True):
        np.testing.assert_array_equal(stored.decisions, batch.decisions)
        assert stored.outputs is None
    with pytest.raises(ValueError, match=r"not return a tensor of scores \(n, C\)"):
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
    assert max(file.stat().st_mtime for file in folder.iterdir()) < before
