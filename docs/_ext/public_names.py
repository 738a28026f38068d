"""Resolution of references to public names, by any of their modules, to the page of each."""

from sphinx.addnodes import pending_xref

_FIELDS = "Alias for field number"
_OBJECTS = {"class", "exception", "function"}


def resolve(app, env, node: pending_xref, content):
    """Find ``LayerDictionary.fit``, also with a module before it, as ``skgmmcnn.LayerDictionary.fit``.

    Attributes stand in a section of their class and lead there.
    """
    if node.get("refdomain") != "py":
        return None
    domain = env.get_domain("py")
    named = {
        page.rpartition(".")[2]: page
        for page, found in domain.objects.items()
        if found.objtype in _OBJECTS and not found.aliased
    }
    names = node["reftarget"].split(".")
    for start in [place for place, name in enumerate(names) if name in named]:
        page = named[names[start]]
        target = page if node["reftype"] == "attr" else ".".join([page, *names[start + 1 :]])
        if target in domain.objects:
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, content)
    return None


def skip(app, what, name, member, skipped, options):
    """Skip members that repeat the section "Parameters", and members of base classes of other packages."""
    module = getattr(getattr(member, "fget", member), "__module__", None) or "skgmmcnn"
    repeated = (getattr(member, "__doc__", None) or "").startswith(_FIELDS)
    return True if repeated or (what == "class" and not module.startswith("skgmmcnn")) else None


def setup(app):
    """Register both."""
    app.connect("missing-reference", resolve)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
