"""The page in a real browser: clicks, keys, layouts, and no complaint; skipped where there is no Chromium."""

import base64
import itertools
import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from skgmmcnn import InferenceGraph, InferenceGraphPage
from skgmmcnn.graph import probable
from skgmmcnn.graph._influence_wording import InfluenceWording
from skgmmcnn.plot import _page_data
from skgmmcnn.plot._cells import cells_of

# Without these Chromium looks for the network, and fails noisily where there is none.
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
# Tips of arrows that are not at the lower side of a node.
LOOSE_ARROWS = """
const graph = document.getElementById("graph").getBoundingClientRect();
const scale = graph.width / document.getElementById("graph").offsetWidth;
const sides = [...document.querySelectorAll(".node")].map(e => e.getBoundingClientRect());
return [...document.querySelectorAll(".arrows path")].filter(e => {
  const [x, y] = e.getAttribute("d").match(/^M([\\d.-]+) ([\\d.-]+)/).slice(1).map(Number);
  const [right, down] = [scale * x + graph.left, scale * y + graph.top];
  return !sides.some(s => Math.abs(s.bottom - down) < 1 && s.left - 1 < right && right < s.right + 1);
}).length"""
NASTY = "<script>alert(1)</script>"
WIDE, PHONE = (1400, 1000, False), (390, 844, True)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium and chromedriver on the PATH (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as browser:
        yield browser


@pytest.fixture(scope="module")
def named(words):
    """Words with a nasty name of a class, and with long names in the lowest layer."""
    names = {("conv1", word): f"{word} has a name that fits on no card" for word in range(8)}
    return replace(
        words,
        spec=replace(words.spec, class_names=(NASTY, *map(str, range(1, 10)))),
        vocabulary=replace(words.vocabulary, names=names),
    )


@pytest.fixture(scope="module")
def explained(named):
    return InferenceGraph(n_nodes=4, evidence="counts").fit(named)


@pytest.fixture(scope="module")
def page(explained, named):
    zero = int(np.flatnonzero(named.decisions == 0)[0])
    return InferenceGraphPage.from_estimator(explained, named, images=[7, zero])


@pytest.fixture(scope="module")
def file(page, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "why.html"
    page.save(path)
    return path


class Looking:
    """A page in a browser window of some size."""

    def __init__(self, browser, file, width, height, mobile, scheme="light"):
        self.browser = browser
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.get(file.as_uri())

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def one(self, selector):
        (element,) = self.all(selector)
        return element

    def text(self, selector):
        return self.one(selector).text

    def node(self, key):
        return self.one(f'.node[data-key="{key}"]')

    def keys_of(self, selector):
        return {node.get_attribute("data-key") for node in self.all(f".node{selector}")}

    def choose(self, fieldset, number):
        self.browser.execute_script("arguments[0].click()", self.all(f"#{fieldset} input")[number])

    def press(self, *keys):
        self.browser.switch_to.active_element.send_keys(*keys)

    def focused(self):
        return self.browser.switch_to.active_element.get_attribute("data-key")

    def point_at(self, element):
        from selenium.webdriver import ActionChains

        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(self.browser).move_to_element(element).perform()

    def boxes(self, selector):
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.getBoundingClientRect().toJSON())"
        return self.browser.execute_script(script, selector)


@pytest.fixture
def open_page(browser, file):
    """Open the page, or another; whatever is done with it, the console stays empty."""
    browser.get_log("browser")
    yield lambda *size, page=file, scheme="light": Looking(browser, page, *(size or WIDE), scheme=scheme)
    assert browser.get_log("browser") == []


def overlapping(boxes):
    return [
        (a, b)
        for i, a in enumerate(boxes)
        for b in boxes[:i]
        if min(a["right"], b["right"]) - max(a["left"], b["left"]) > 1
        and min(a["bottom"], b["bottom"]) - max(a["top"], b["top"]) > 1
    ]


def name_of(key, page):
    """Return what the page calls a word."""
    node = page.graphs[7][0].nodes[key]
    return node.get("word_name", f"word {node['word']}")


def test_every_node_edge_and_patch_is_there(open_page, page):
    shown, graph = open_page(), page.graphs[7][0]
    assert shown.keys_of("") == set(graph)
    assert len(shown.all(".arrows line")) == graph.number_of_edges()
    for key, node in graph.nodes.items():
        if node["layer"] != "decision":
            text = shown.node(key).text.split("\n")
            assert f"{node['score']:.1f} bits" in text
            assert f"{node['count']} of {node['n_locations']} locations" in text
    decoded = "return Promise.all([...document.querySelectorAll('img')].map(e => e.decode())).then(all => all.length)"
    assert shown.browser.execute_script(decoded) > 2
    sheets = (
        "return Promise.all([...document.querySelectorAll('svg image')].map("
        "e => createImageBitmap(e).then(b => b.width)))"
    )
    assert min(shown.browser.execute_script(sheets)) > 0


def test_pointing_at_a_word_shows_it_and_lights_up_the_image(open_page, page, named):
    shown, graph = open_page(), page.graphs[7][0]
    for key, node in list(graph.nodes.items())[1:6]:
        shown.point_at(shown.node(key))
        assert shown.text("#facts h2") == name_of(key, page)
        assert f"{node['count']} of {node['n_locations']} locations in this image" in shown.text("#facts")
        _, *cells = shown.one("#query .rest").get_attribute("d").split("M")[1:]  # all else, and in it these
        assert shown.one(f'.node[data-key="{key}"] .rest').get_attribute("d").split("M")[2:] == cells
        rows, columns = np.nonzero(named.words[node["layer"]][7] == node["word"])
        y, x = (ends.round(4).tolist() for ends in cells_of(named.spec, node["layer"]))
        assert cells == [
            f"{x[j]:g} {y[i]:g}H{x[j + 1]:g}V{y[i + 1]:g}H{x[j]:g}z" for i, j in zip(rows, columns, strict=True)
        ]
        assert len(shown.all("#facts .near li")) == graph.degree(key)
        statistics = named.vocabulary.statistics[node["layer"]]
        assert shown.all("#facts .bars dd")[1].text == f"{100 * statistics.purity[node['word']]:.0f} %"
    shown.point_at(shown.one("h1"))
    assert shown.text("#facts h2") == shown.text("h1")


def test_a_chosen_word_shows_only_what_explains_it(open_page, page):
    import networkx as nx

    shown, graph = open_page(), page.graphs[7][0]
    for key in [list(graph)[1], list(graph)[5]]:
        kept = {key, *nx.ancestors(graph, key)}
        shown.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", shown.node(key))
        shown.node(key).click()
        assert shown.keys_of(":not(.gone)") == kept
        assert shown.keys_of("[aria-pressed=true]") == {key}
        inside = sum(tail in kept and head in kept for tail, head in graph.edges)
        assert len(shown.all(".arrows g:not(.gone) > line")) == inside
        assert f"what explains it: {len(kept) - 1} word" in shown.text("[role=status]")
    shown.one("#all").click()
    assert shown.keys_of(".gone") == set()
    shown.node(key).click()
    shown.node(key).click()
    assert shown.keys_of(".gone") == set()


def test_neighbours_lead_on(open_page, page):
    shown, graph = open_page(), page.graphs[7][0]
    explained = sorted(graph.in_edges(graph.graph["root"], data="contribution"), key=lambda edge: -edge[2])
    shown.all(".near button")[0].click()
    assert shown.focused() == explained[0][0]
    assert shown.text("#facts h2") == name_of(explained[0][0], page)


def test_switches_of_image_scope_and_question(open_page, page):
    shown = open_page()
    of_image, contrast, of_class, _ = page.graphs[7]
    assert shown.text("h1") == f"Why \u201c{of_image.graph['class_name']}\u201d?"
    shown.choose("questions", 1)
    assert shown.keys_of("") == set(contrast)
    assert f"rather than \u201c{contrast.graph['contrast_name']}\u201d" in shown.text("h1")
    shown.choose("scopes", 1)
    assert shown.keys_of("") == set(page.graphs[7][3])
    shown.choose("questions", 0)
    assert shown.keys_of("") == set(of_class)
    assert f"ver all {of_class.graph['n_images']} images" in shown.text("#about")
    assert len(shown.all(".node .mosaic img")) == 4
    other = list(page.graphs)[1]
    shown.choose("images", 1)  # the scope stays
    assert shown.keys_of("") == set(page.graphs[other][2])
    shown.choose("scopes", 0)
    assert shown.keys_of("") == set(page.graphs[other][0])


def test_a_class_name_is_shown_as_written(open_page):
    shown = open_page()
    shown.choose("images", 1)
    assert shown.text("h1") == f"Why \u201c{NASTY}\u201d?"
    assert shown.browser.title == f"Why \u201c{NASTY}\u201d?"
    assert NASTY in shown.text("#graph")
    assert len(shown.all("script")) == 2


def test_keys_alone_are_enough(open_page, page):
    from selenium.webdriver.common.keys import Keys

    shown, graph = open_page(), page.graphs[7][0]
    root = graph.graph["root"]
    for _ in range(20):
        shown.press(Keys.TAB)
        if shown.focused():
            break
    assert shown.focused() == root  # one stop for the whole graph
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert shown.browser.execute_script(outline) == "solid"
    visited = set()
    for arrow in [Keys.DOWN, Keys.LEFT, Keys.LEFT, Keys.RIGHT, Keys.RIGHT, Keys.DOWN, Keys.DOWN, Keys.DOWN]:
        shown.press(arrow)
        visited.add(shown.focused())
    assert {graph.nodes[key]["layer"] for key in visited} == {"conv1", "conv2", "conv3"}
    shown.press(Keys.UP)
    key = shown.focused()
    assert graph.nodes[key]["layer"] == "conv2"
    assert shown.text("#facts h2") == name_of(key, page)
    shown.press(Keys.ENTER)
    assert shown.keys_of("[aria-pressed=true]") == {key}
    assert root in shown.keys_of(".gone")
    shown.press(Keys.ESCAPE)
    assert shown.keys_of(".gone") == set()
    assert shown.focused() == key
    assert f"{graph.nodes[key]['count']} of " in shown.node(key).get_attribute("aria-label")


def test_radio_buttons_keep_the_focus(open_page):
    from selenium.webdriver.common.keys import Keys

    shown = open_page()
    before = shown.keys_of("")
    shown.browser.execute_script("document.querySelector('#questions input:checked').focus()")
    shown.press(Keys.RIGHT)
    assert "rather than" in shown.text("h1")
    shown.press(Keys.LEFT)
    assert shown.keys_of("") == before


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["1400", "390"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_layout(size, scheme, open_page):
    shown = open_page(*size, scheme=scheme)
    assert shown.browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
    for scope in [0, 1]:
        shown.choose("scopes", scope)
        assert_in_place(shown)
    assert min(box["height"] for box in shown.boxes("label, .near button") if box["height"]) >= 36  # 0: not shown
    colours = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    text, ground = (
        np.array([int(part) for part in colour[4:-1].split(",")]) for colour in shown.browser.execute_script(colours)
    )
    assert (text.mean() > 200) == (ground.mean() < 50) == (scheme == "dark")


def assert_in_place(shown):
    """Nothing leaves what it belongs to, and nothing covers anything."""
    assert overlapping(shown.boxes(".node, .layer")) == []
    assert overlapping(shown.boxes(".arrows rect, .layer")) == []
    (frame,) = shown.boxes("#frame")
    for box in shown.boxes(".node, .layer"):
        assert frame["left"] <= box["left"] < box["right"] <= frame["right"] + 1
        assert frame["top"] <= box["top"] < box["bottom"] <= frame["bottom"]
    inside = "return [...document.querySelectorAll('.node')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert shown.browser.execute_script(inside) == 0
    assert shown.browser.execute_script(LOOSE_ARROWS) == 0
    outside = """return [...document.querySelectorAll('.mosaic img')].filter(e => {
        const a = e.getBoundingClientRect(), b = e.parentElement.getBoundingClientRect();
        return a.right > b.right + 1 || a.bottom > b.bottom + 1;
    }).length"""
    assert shown.browser.execute_script(outside) == 0


def test_a_phone_shows_a_word_in_a_sheet(open_page, page):
    shown, graph = open_page(*PHONE), page.graphs[7][0]
    assert not shown.one("#panel").is_displayed()
    key = list(graph)[5]
    shown.node(key).click()
    (sheet,), (node,) = shown.boxes("#panel"), shown.boxes(f'.node[data-key="{key}"]')
    assert sheet["bottom"] == pytest.approx(844, abs=1)
    assert 0 <= node["top"] < node["bottom"] <= sheet["top"]
    assert shown.one("#query .rest").is_displayed()
    shown.one("#close").click()
    assert not shown.one("#panel").is_displayed()
    assert shown.keys_of(".gone") == set()


def test_a_cut_graph_says_so(open_page, named, tmp_path, monkeypatch):
    monkeypatch.setattr(_page_data, "_MOST_NODES", 19)
    monkeypatch.setattr(_page_data, "_MOST_EDGES", 30)
    estimator = InferenceGraph(n_nodes=12, evidence="counts").fit(named)
    InferenceGraphPage.from_estimator(estimator, named, images=[3]).save(tmp_path / "x.html")
    shown = open_page(*PHONE, page=tmp_path / "x.html")  # of 22 to 26 nodes with other seeds
    assert "too large for a page: it shows the strongest 19 of" in shown.text("#remark")
    assert shown.browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert overlapping(shown.boxes(".node")) == []


@pytest.mark.filterwarnings("ignore:Counts know little", "ignore:The counts of all words together")
def test_words_without_images(open_page, tmp_path):
    from tests.graph.random_words import random_words

    words = random_words(0)
    estimator = InferenceGraph(evidence="counts").fit(words)
    InferenceGraphPage.from_estimator(estimator, words).save(tmp_path / "x.html")
    shown = open_page(page=tmp_path / "x.html")
    for node in shown.all(".node"):
        shown.point_at(node)
    assert "locations in this image" in shown.text("#facts")
    assert "no patches stored" in shown.text("#graph")


@pytest.fixture(scope="module")
def used(named, tmp_path_factory):
    """A page of what the network used, with words that speak against it, and its graphs."""
    estimator = InferenceGraph(n_nodes=3, n_against=1, evidence="influence").fit(named)
    page = InferenceGraphPage.from_estimator(estimator, named, images=[7])
    page.graphs[7][0].graph["held"] = False
    path = tmp_path_factory.mktemp("page") / "used.html"
    page.save(path)
    return path, page.graphs[7]


def test_influence_is_shown(open_page, used):
    file, (graph, *_) = used
    shown = open_page(page=file)
    assert shown.text("#remark") == "Incomplete: these words alone do not keep the decision."
    colours = [line.value_of_css_property("stroke") for line in shown.all(".arrows line")]
    effects = sorted((effect for *_, effect in graph.edges.data("effect")), key=abs, reverse=True)
    assert len(set(colours)) == 2
    for sign in (True, False):
        assert len({colour for colour, effect in zip(colours, effects, strict=True) if (effect > 0) == sign}) == 1
    for key in list(graph)[1:]:
        shown.point_at(shown.node(key))
        assert f"without it {probable(graph.graph['probability'])} \u2192 " in shown.node(key).text
        assert "of the log-odds" in shown.text("#facts")
    shown.one("#help summary").click()
    assert [part.text for part in shown.all("#evidence li")] == list(InfluenceWording.help)


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["1400", "390"])
def test_layout_of_influence(size, open_page, used):
    shown = open_page(*size, page=used[0])
    for scope in [0, 1]:
        for question in [0, 1]:
            shown.choose("scopes", scope)
            shown.choose("questions", question)
            assert_in_place(shown)


def test_words_are_named_and_the_names_downloaded(open_page, named, page, tmp_path):
    from selenium.webdriver.common.keys import Keys

    shown, graph = open_page(), page.graphs[7][0]
    key, other, *_ = (key for key, node in graph.nodes.items() if node["layer"] == "conv3")
    assert not shown.one("#names").is_displayed()
    shown.node(key).click()
    shown.one("#facts input").send_keys(f" {NASTY} ")
    shown.point_at(shown.node(other))  # what is written is not taken away
    assert shown.text("#facts h2") == NASTY == shown.text(f'.node[data-key="{key}"] b')
    assert shown.node(key).get_attribute("aria-label").startswith(f"{NASTY}, layer conv3.")
    shown.press(Keys.ENTER)
    assert shown.focused() == key
    shown.choose("images", 1)
    shown.choose("images", 0)
    assert shown.text(f'.node[data-key="{key}"] b') == NASTY
    folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
    shown.browser.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    shown.one("#download").click()
    file = tmp_path / "word_names.json"
    for _ in range(100):
        if file.exists():
            break
        time.sleep(0.05)
    names = json.loads(file.read_text())
    before = {named.vocabulary.key(*word): name for word, name in named.vocabulary.names.items()}
    assert names.items() >= {key: NASTY}.items()
    assert names.items() <= {**before, key: NASTY}.items()


def test_everything_has_a_name_for_screen_readers(open_page, used):
    shown = open_page(page=used[0])
    shown.all(".node")[1].click()
    elements = shown.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {}
    for element in elements:
        if not element["ignored"]:
            roles.setdefault(element["role"]["value"], []).append(element.get("name", {}).get("value"))
    for role in ("button", "radio", "textbox", "image", "heading", "complementary", "DisclosureTriangle"):
        assert roles[role], role
        assert all(roles[role]), role
    assert {"Decision", "Layer conv1", "Layer conv2", "Layer conv3"} <= set(roles["group"])
    headings = shown.browser.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3')].map(e => +e.tagName[1])"
    )
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))
    ids = shown.browser.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["1400", "390"])
def test_print(size, open_page, used):
    shown = open_page(*size, page=used[0])
    nodes = shown.boxes(".node")
    paper = base64.b64decode(shown.browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert paper.startswith(b"%PDF")
    assert shown.boxes(".node") == nodes  # as before, when it is printed
    shown.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown.browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert shown.browser.execute_script(LOOSE_ARROWS) == 0
    assert overlapping(shown.boxes(".node, .layer")) == []
    assert not any(part.is_displayed() for part in shown.all("#controls, #help, #panel, #status"))
    (graph,) = shown.boxes("#graph")
    assert graph["width"] <= 718  # pixels of CSS between the margins of A4, as is the height
    assert graph["height"] <= 901
    shown.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    shown.browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert shown.boxes(".node") == nodes
