"""Formulas as MathML, which needs no script and no network."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml


def inline(writer, node):
    """Write an inline formula."""
    writer.body.append(str(tex2mathml(node.astext(), as_block=False)))
    raise nodes.SkipNode


def block(writer, node):
    """Write a displayed formula."""
    writer.body.append(writer.starttag(node, "div", CLASS="math"))
    if node["number"]:
        raise ValueError(f"Numbered formulas are not written: {node.astext()!r}.")
    writer.body.append(str(tex2mathml(node.astext(), as_block=True)))
    writer.body.append("</div>")
    raise nodes.SkipNode


def setup(app):
    """Register the renderer."""
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
