"""Every kind of value comes back as it was."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchvision.models import SqueezeNet1_1_Weights
from torchvision.transforms import InterpolationMode

from skgmmcnn.mixture._emissions import Parameters
from skgmmcnn.persistence._networks import ALL_KINDS
from skgmmcnn.persistence._values import Packer, Unpacker, allowed_classes


def there_and_back(value):
    pack = Packer(ALL_KINDS, embed=True)
    text = json.dumps(pack(value), allow_nan=False)
    return Unpacker(ALL_KINDS, pack.arrays, {}, {})(json.loads(text))


def assert_same(first, second):
    assert type(first) is type(second)
    if isinstance(first, np.ndarray) and first.dtype != object:
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    elif isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    elif isinstance(first, (list, tuple, np.ndarray)):
        for a, b in zip(first, second, strict=True):
            assert_same(a, b)
    elif isinstance(first, dict):
        assert_same(list(first.items()), list(second.items()))
    elif isinstance(first, str):
        assert str(first) == str(second)  # numpy's strings with NUL do not equal themselves
    else:
        assert first == second or first != first


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.floats(width=32).map(np.float32),
    st.integers(-100, 100).map(np.int16), st.text(max_size=3).map(np.str_),
)  # fmt: skip
dtypes = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(sizes=(16, 32, 64))
)
arrays = hnp.arrays(dtypes.filter(lambda dtype: dtype.isnative), hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
values = st.recursive(
    scalars | arrays,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.tuples(st.text(max_size=2), st.integers()) | st.text(max_size=2), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(values)
def test_values_come_back(value):
    assert_same(value, there_and_back(value))


def test_special_values_come_back():
    state = np.random.RandomState(3)
    state.normal(size=3)
    again = there_and_back(state)
    assert_same(state.normal(size=5), again.normal(size=5))
    for value in [
        torch.arange(6.0).reshape(2, 3).bfloat16(),
        torch.tensor(True),
        np.array([["a", "<script>\n"], ["", "é"]]),
        np.array(["a", "bc"]),
        np.array([], "U1"),
        np.array([None, (1, "b")], dtype=object),
        np.array([[1, 2], [3, 4]], dtype=">i4").T,
        torch.device("cpu"),
        torch.float16,
        SqueezeNet1_1_Weights.IMAGENET1K_V1,
        InterpolationMode.BICUBIC,
        np.float64(0.5),
        np.float64("nan"),
        np.str_("a"),
        {"b", 1},
        frozenset({(1, "b")}),
    ]:
        returned = there_and_back(value)
        if isinstance(value, np.ndarray) and value.dtype.kind == "i":
            np.testing.assert_array_equal(returned, value)
        else:
            assert_same(returned, value)


def test_arrays_lie_in_memory_as_they_did(rng):
    for order in [(2, 0, 1), (1, 0, 2), (0, 1, 2)]:
        array = rng.random((3, 4, 5)).transpose(order)
        for value in (array, torch.from_numpy(array), torch.from_numpy(array).bfloat16()):
            returned = there_and_back(value)
            assert_same(value, returned)
            strides = [v.strides if isinstance(v, np.ndarray) else v.stride() for v in (value, returned)]
            assert strides[0] == strides[1]


def test_records_come_back_and_share_their_tensors():
    mean = torch.rand(2, 3)
    first, second = there_and_back([Parameters(mean, mean), Parameters(mean, torch.rand(2))])
    assert type(first) is Parameters
    assert first.mean is first.variance is second.mean
    assert torch.equal(first.mean, mean)


def test_names_of_classes_are_unique():
    """Files name classes without their modules, so that classes can move."""
    import sys

    classes = {
        value
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "skgmmcnn"
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__.partition(".")[0] == "skgmmcnn"
    }
    kept = [value for value in classes if value in allowed_classes().values()]
    assert len({value.__name__ for value in kept}) == len(kept) > 15


@pytest.mark.parametrize("value", [object(), 1j, np.zeros(2, "c8"), np.zeros(2, [("a", "i4")]), len])
def test_other_values_are_refused(value):
    with pytest.raises(TypeError, match=r"which save does not support.*joblib\.dump"):
        there_and_back({"a": [value]})


@pytest.mark.parametrize(
    "packed",
    [
        {"items": ["O", [2**40], [1, 2]]},
        {"items": ["|U100000000", [2], ["a", "b"]]},
        {"items": ["U", [1], []]},
        {"dtype": "quint8"},
        {"random_state": ["MT19937", {"array": ["1", [0]]}, 2**20, 0, {"float": "0.0"}]},
        {"random_state": ["MT19937", {"array": ["0", [0]]}, 3, 0, {"float": "0.0"}]},
    ],
)
def test_sizes_and_types_are_checked_first(packed):
    arrays = {"0": torch.zeros(3, dtype=torch.uint32), "1": torch.zeros(624, dtype=torch.uint32)}
    with pytest.raises(ValueError, match=r"^it contains"):
        Unpacker(ALL_KINDS, arrays, {}, {})(packed)


@dataclasses.dataclass
class Foreign:
    """A record of another package."""

    a: int = 1


def test_foreign_records_are_refused():
    with pytest.raises(TypeError, match=r"test_values\.Foreign, which save does not support"):
        there_and_back(Foreign())
