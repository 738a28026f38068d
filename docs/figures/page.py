"""Take the picture of the page that an example writes, in a real browser: its picture in the gallery.

``python examples/plot_page.py && python docs/figures/page.py digits.html docs/_static/page.png``
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from selenium import webdriver

options = webdriver.ChromeOptions()
for option in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size=1300,1390"):
    options.add_argument(option)
browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
browser.get(Path(sys.argv[1]).resolve().as_uri())
picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
picture.quantize(256).save(sys.argv[2], optimize=True)
browser.quit()
