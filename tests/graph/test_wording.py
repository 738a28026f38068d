"""Numbers as text."""

import pytest

from skgmmcnn.graph._wording import nats, percent, probable


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "<0.0001"), (0.004, "0.004"), (0.5, "0.50"), (0.93, "0.93"), (0.9991, "0.9991"), (1.0, ">0.9999")],
)
def test_probabilities(number, text):
    assert probable(number) == text


def test_numbers():
    assert [nats(value) for value in (12.34, -1, 0.5, -0.004, 0.0)] == [
        "+12.3 nats", "-1.0 nats", "+0.50 nats", "-0.0040 nats", "+0 nats",
    ]  # fmt: skip
    assert [percent(share) for share in (0.31, -0.1, 0.004, 1.2)] == ["31 %", "-10 %", "under 1 %", "120 %"]
