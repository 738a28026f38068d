"""Texts of figures, and a check that all can be read, on rendered boxes."""

import itertools


def texts_of(figure):
    """Return all texts that are drawn, with their boxes in pixels."""
    figure.canvas.draw()
    found = [text for ax in figure.axes for text in _texts_of(ax)]
    return [(text.get_text(), text.get_window_extent()) for text in found if text.get_text() and text.get_visible()]


def written(display):
    return [text for text, _ in texts_of(display.figure_)]


def _texts_of(ax):
    yield from ax.texts
    if ax.get_legend():
        yield from ax.get_legend().get_texts()
    if not ax.axison:
        return
    yield from (ax.title, ax.xaxis.label, ax.yaxis.label)
    frame = ax.bbox.padded(1)
    for tick in ax.get_xticklabels():  # those of ticks beyond the limits are not drawn
        if frame.x0 <= ax.transData.transform(tick.get_position())[0] <= frame.x1:
            yield tick
    for tick in ax.get_yticklabels():
        if frame.y0 <= ax.transData.transform(tick.get_position())[1] <= frame.y1:
            yield tick


def assert_readable(figure):
    """Check that no two texts overlap, and that all are within the figure."""
    boxes, page = texts_of(figure), figure.bbox
    assert boxes
    for text, box in boxes:
        assert page.x0 <= box.x0 < box.x1 <= page.x1, text
        assert page.y0 <= box.y0 < box.y1 <= page.y1, text
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        assert not box.padded(-0.5).overlaps(other_box.padded(-0.5)), (text, other)
