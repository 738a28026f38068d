"""``python -m skgmmcnn``."""

import sys

from ._command_line import main

sys.exit(main())
