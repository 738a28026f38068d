import numpy as np
import pytest

from skgmmcnn.metrics._results import Measurement, Result, Thresholds, Verdict


class Example(Result):
    def measurements(self):
        return [Measurement("agreement", "decision", 0.5, 0.25, 0.75, "near 1"), Measurement("R2", "conv10", -1.234)]

    def verdicts(self):
        return [Verdict("Is it so?", "partly", "for some."), Verdict("How many?", "", "two.")]


def test_text_is_a_table_and_the_verdicts():
    assert str(Example()).splitlines() == [
        "measure    where     value  95 % interval  good",
        "agreement  decision   0.50   0.25 to 0.75  near 1",
        "R2         conv10    -1.23",
        "Is it so?  PARTLY: for some.",
        "How many?  Two.",
    ]


@pytest.mark.parametrize(
    ("value", "answer", "why"),
    [
        (0.8, "yes", "so."),
        (0.79, "partly", "so; perhaps."),
        (0.5, "partly", "so; perhaps."),
        (np.nan, "no", "so; stop."),
    ],
)
def test_thresholds(value, answer, why):
    verdict = Thresholds(0.8, 0.5).verdict("Really?", value, "so", partly="; perhaps", no="; stop")
    assert verdict == Verdict("Really?", answer, why)
