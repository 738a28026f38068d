"""Links from pages of the API reference and of examples back to the user guide."""

import re
from collections import defaultdict
from pathlib import Path

_ROLES = re.compile(r":(?:class|func|meth|doc):`~?([^`<]+)`")


def read_guide(app):
    """Record the pages of the guide that refer to each name and example."""
    app.guide_pages = defaultdict(set)
    for page in (Path(app.srcdir) / "guide").glob("*.rst"):
        for target in _ROLES.findall(page.read_text(encoding="utf8")):
            for name in [target] if "/" in target else target.split("."):
                app.guide_pages[name].add(page)


def add_links(app, docname, source):
    """Append the list of these pages."""
    name = {"api/generated": docname.rpartition(".")[2], "gallery": f"/{docname}"}.get(docname.rpartition("/")[0])
    pages = sorted(app.guide_pages.get(name, ()))
    if pages:
        links = "".join(f"- :doc:`/guide/{page.stem}`\n" for page in pages)
        source[0] += f"\n\n.. rubric:: In the user guide\n\n{links}"
    for page in pages:
        app.env.note_dependency(page)


def setup(app):
    """Register both."""
    app.connect("builder-inited", read_guide)
    app.connect("source-read", add_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
