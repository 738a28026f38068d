from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from sklearn.pipeline import make_pipeline
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary, LayerHMM
from skgmmcnn.metrics import completeness, deletion, edge_effects, removal, trust_report

pytestmark = pytest.mark.filterwarnings("ignore:Counts know little")  # few images


@pytest.fixture(scope="module")
def report(pipe, digits):
    return trust_report(pipe, digits.test_images, verbose=0, random_state=0)


@pytest.fixture(scope="module")
def counts_report(counts_pipe, digits):
    return trust_report(
        counts_pipe, digits.test_images, digits.test_labels, n_images=25, layers=["conv3"], verbose=0, random_state=0
    )


def test_a_report_holds_what_the_measures_say(pipe, digits, report):
    assert report.n_images == 50
    images = digits.test_images[:50]
    assert list(report.results) == ["removal", "edges", "completeness"]
    np.testing.assert_array_equal(report.results["completeness"].right, completeness(pipe, images).right)
    np.testing.assert_allclose(report.results["removal"].without, removal(pipe, images).without, rtol=1e-5)
    pair, expected = (each.pairs["conv3", "conv2"] for each in (report.results["edges"], edge_effects(pipe, images)))
    np.testing.assert_allclose(pair.effects, expected.effects, rtol=1e-4, atol=1e-5)
    for result in report.results.values():
        assert all(f"\n{row.measure} " in str(report) for row in result.measurements())


def test_a_report_is_about_the_evidence_in_use(report, counts_report):
    assert (report.evidence, counts_report.evidence, counts_report.n_images) == ("influence", "counts", 25)
    assert str(report).startswith("Graphs of influence, measured on the first 50 of 450 images in ")
    questions, of_counts = ({verdict.question for verdict in each.verdicts()} for each in (report, counts_report))
    rests_on_counts = {"Do the words decide as the network?", "Were images of these decisions fitted?"}
    assert rests_on_counts <= of_counts
    assert not rests_on_counts & questions
    measures = {row.measure for row in counts_report.measurements()}
    assert {"network right", "coverage", "agreement, wrong decisions", "rank correlation, bits and effect"} <= measures


def test_table_and_picture(report):
    frame = report.to_frame()
    assert frame.columns.tolist() == ["measure", "where", "value", "low", "high", "good"]
    assert len(frame) == len(report.measurements()) > 10
    intervals = frame.dropna()
    assert ((intervals.low <= intervals.value + 1e-9) & (intervals.value <= intervals.high + 1e-9)).all()
    figure = report.plot()
    titles = [ax.get_title() for ax in figure.axes]
    assert {"Layers rebuilt from words", "Probability of each decision"} <= set(titles)


def test_verdicts_of_a_report(counts_report):
    answers = {verdict.question: verdict.answer for verdict in counts_report.verdicts()}
    used, words_used = list(answers)[:2]
    assert (used, words_used) == ("Does the network use the words shown?", "What happens without them?")
    assert set(answers.values()) <= {"yes", "partly", "no", ""}
    assert answers["Were images of these decisions fitted?"] == "yes"
    assert f"{used}  {answers[used].upper()}: " in str(counts_report)


@pytest.mark.parametrize(
    ("question", "estimate", "yes", "partly"),
    [
        ("Do the words decide as the network?", lambda results: results["fidelity"].agreement.value, 0.9, 0.7),
        ("Does the network use the words shown?", lambda results: results["removal"].used.value, 0.8, 0.5),
        (
            "Do words contain what the network needs of conv3?",
            lambda results: results["completeness"].completeness[0],
            0.8,
            0.5,
        ),
    ],
)
def test_verdicts_follow_the_measurements(counts_report, question, estimate, yes, partly):
    (answer,) = [verdict.answer for verdict in counts_report.verdicts() if verdict.question == question]
    value = estimate(counts_report.results)
    assert answer == ("yes" if value >= yes else "partly" if value >= partly else "no")


def test_arrows_follow_the_interval_of_the_rank_correlation(counts_report):
    pair = counts_report.results["edges"].pairs["conv3", "conv2"]
    (verdict,) = pair.verdicts()
    rho, low, _ = pair.correlation
    assert verdict.question == "Do arrows from conv2 to conv3 show what it computes?"
    assert verdict.answer == ("no" if not low > 0 else "yes" if rho >= 0.5 else "partly")


def test_poor_words_are_told_so(pipe, digits):
    poor = make_pipeline(pipe[0], LayerDictionary(1, random_state=0), InferenceGraph(evidence="counts"))
    report = trust_report(poor.fit(digits.images[:30]), digits.test_images, n_images=30, verbose=0, random_state=0)
    text = str(report)
    assert "Does the network use the words shown?  NO: for " in text
    assert "Were images of these decisions fitted?  NO: for " in text
    (agreement,) = [line for line in text.splitlines() if line.startswith("Do the words decide as the network?  NO: ")]
    assert "do not rely on these graphs" in agreement


def test_pictures_that_can_be_relied_on(report, counts_report):
    above = report.results["removal"].above_random
    expected = np.select([above >= 0.95, above >= 0.5], ["yes", "partly"], "no").tolist()
    verdicts = report.pictures()
    assert [verdict.answer for verdict in verdicts] == expected
    assert verdicts[0].question == "Is the picture of image 0 reliable?"
    assert f"reliable?  {expected.count('yes')} of 50 are, {expected.count('partly')} partly" in str(report)
    poor = [str(verdict) for verdict in verdicts if verdict.answer != "yes"]
    assert [line.strip() for line in str(report).splitlines() if "Is the picture of" in line] == poor
    denied = ~counts_report.results["fidelity"].agrees
    assert {verdict.answer for verdict, no in zip(counts_report.pictures(), denied, strict=True) if no} <= {"no"}


def test_what_cannot_be_measured_does_not_cost_the_rest(counts_pipe, test_images):
    report = trust_report(counts_pipe, test_images[:1], budget="full", layers=["conv3"], verbose=0, random_state=0)
    assert "fidelity" in report.results
    assert "Not measured, deletion conv3, resample: fill='resample' takes" in str(report)
    assert "1 images are few" in str(report)
    assert "deletion conv3, resample" in report.skipped
    assert "deletion conv3, resample" not in report.results


def test_layers_of_one_location_have_no_words_beside_each_other():
    """Whatever is kept or taken away there is all or nothing, so that no order can be better than another."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    rows = np.random.default_rng(0).normal(size=(80, 4)).astype("float32")
    extractor = FeatureExtractor(network, ["1", "3"], preprocess=None, device="cpu")
    pipe = make_pipeline(extractor, LayerHMM(4, random_state=0), InferenceGraph()).fit(rows)
    report = trust_report(pipe, rows, verbose=0, random_state=0)
    assert list(report.results) == ["edges", "completeness"]
    assert {verdict.question[:8] for verdict in report.verdicts()} == {"Do words", "Do arrow"}
    assert len(report.plot().axes) == 1


def test_one_picture_of_each(pipe, test_images):
    ax = completeness(pipe, test_images).plot()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["conv2", "conv3"]
    curves = deletion(pipe, test_images, "conv3", orders=["graph", "random"], random_state=0)
    line = curves.plot().lines[0]
    np.testing.assert_allclose(line.get_ydata(), curves.proba["graph"].mean(0))
    np.testing.assert_allclose(line.get_xdata(), curves.shares["graph"].mean(0))
    for named in (replace(curves, layer="$5$"), replace(completeness(pipe, test_images), layers=("$5$", "conv3"))):
        drawn = named.plot().figure  # names are never markup
        drawn.canvas.draw()
        written = [text for text in drawn.findobj(Text) if "$5$" in text.get_text()]
        assert written
        assert not any(text.get_parse_math() for text in written)


def test_a_full_report_says_first_how_long_it_takes(counts_pipe, test_images, capsys):
    report = trust_report(
        counts_pipe, test_images, budget="full", layers=["conv3"], n_images=15, verbose=0, random_state=0
    )
    assert "full report over 15 images may take" in capsys.readouterr().out
    assert {"stability", "randomised weights", "edges"} <= set(report.results)
    assert {"deletion conv3, zero", "insertion conv3, resample", "deletion conv3, by class"} <= set(report.results)
    assert report.results["completeness"].layers == ("conv3",)


def test_bad_input(pipe, test_images):
    with pytest.raises(ValueError, match="budget must be one of 'default', 'full'"):
        trust_report(pipe, test_images, budget="huge")
    with pytest.raises(ValueError, match="n_images must be at least 1; got 0"):
        trust_report(pipe, test_images, n_images=0)
