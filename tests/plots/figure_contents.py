"""What can be read off a Figure."""

import io


def drawn(figure):
    """The Figure, once it has been drawn: warnings of its layout or its fonts would have failed the test."""
    assert figure_bytes(figure).startswith(b"\x89PNG")
    return figure


def figure_bytes(figure):
    """The Figure as a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def heading(figure):
    return figure.get_suptitle()


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def overlaps(texts):
    """Pairs of the texts whose boxes in the figure overlap."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    return [
        (one, other)
        for i, (one, box) in enumerate(boxes)
        for other, other_box in boxes[i + 1 :]
        if box.x0 < other_box.x1 and other_box.x0 < box.x1 and box.y0 < other_box.y1 and other_box.y0 < box.y1
    ]
