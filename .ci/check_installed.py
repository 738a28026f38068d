"""Check that the package is the installed one, not that of the checkout named, and has its data; tell the versions."""

import sys
from pathlib import Path

import skgmmcnn

folder = Path(skgmmcnn.__file__).parent
if Path(sys.argv[1]).resolve() in folder.resolve().parents:
    sys.exit(f"{folder} lies in the checkout")
missing = [name for name in ("py.typed", "datasets", "plot/page") if not (folder / name).exists()]
if missing:
    sys.exit(f"the wheel lacks {', '.join(missing)}")
skgmmcnn.show_versions()
