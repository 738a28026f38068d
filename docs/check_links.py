"""Check the links between the built pages: ``check_links.py docs/_build/html``."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Anchors and links of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file, self.anchors, self.links = file, set(), []
        self.feed(file.read_text(encoding="utf8"))

    def handle_starttag(self, tag, attributes):
        """Record the ids, links and sources of a tag."""
        found = dict(attributes)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        self.links += [found[name] for name in ("href", "src") if found.get(name)]


def broken(root: Path) -> list[str]:
    """Return a line for each broken link below `root`."""
    pages = {file.resolve(): Page(file) for file in root.rglob("*.html") if "_static" not in file.parts}
    lines = []
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            missing = parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors
            if missing or not target.exists():
                lines.append(f"{file.relative_to(root.resolve())}: {link}")
    return lines


if __name__ == "__main__":
    found = broken(Path(sys.argv[1]))
    print("\n".join(found) or "All links lead somewhere.")
    sys.exit(bool(found))
