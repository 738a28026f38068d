"""Configuration of the documentation; see ``contributing.rst``."""

import sys
from pathlib import Path

import matplotlib as mpl

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import skgmmcnn

mpl.use("Agg")

project = "skgmmcnn"
copyright = "The skgmmcnn developers, BSD-3-Clause"
author = "The skgmmcnn developers"
version = release = skgmmcnn.__version__

extensions = [
    "guide_links",
    "matplotlib.sphinxext.plot_directive",
    "mathml",
    "numpydoc",
    "public_names",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "gallery/GALLERY_HEADER.rst"]
nitpicky = True
# Other projects' pages cannot be linked without a network; their names are set as code.
nitpick_ignore_regex = [(r"py:.*", r"(sklearn|torch|torchvision|numpy|networkx|pandas|matplotlib)(\..*)?")]

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections tell the types
numpydoc_show_class_members = False  # the template lists them

plot_formats = ["svg"]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_include_source = False
plot_rcparams = {"svg.fonttype": "none", "font.size": 10}
plot_apply_rcparams = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "within_subsection_order": "gallery_order.StoryOrder",
    "backreferences_dir": "api/backreferences",
    "doc_module": ("skgmmcnn",),
    "abort_on_example_error": True,
    "min_reported_time": 60,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "matplotlib_animations": False,
}

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_title = f"skgmmcnn {release}"
html_theme_options = {
    "logo": {"text": "skgmmcnn"},
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
}
html_sidebars = {"getting_started": [], "changelog": [], "contributing": [], "glossary": []}
