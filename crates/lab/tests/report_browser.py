"""Looks at a page of `sansprop report` in a real browser, with Chromium and its driver.

Usage: report_browser.py PAGE EXPECTED.json

EXPECTED holds {"series": {"FIGURE": NUMBER, …}, "rule": "RULE"}: how many lines each figure shows (a figure that is
not named must not be there), and the rule that is switched off by keyboard. Exit code 0: all as it should be;
77: no browser or no selenium here; anything else: the message says what is wrong.
"""

import base64
import json
import pathlib
import shutil
import sys
import tempfile
import time

MISSING = 77

try:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
except ImportError:
    print("the Python package selenium is not installed")
    sys.exit(MISSING)

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
]


def start(profile):
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        print("chromium or chromedriver is not installed")
        sys.exit(MISSING)
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver))


def check(right, message):
    if not right:
        sys.exit(f"wrong: {message}")


def until(found, message, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.1)
    sys.exit(f"wrong: {message}, after {seconds} s")


def traces(driver):
    """{figure: [[rule, visible], …]}"""
    return driver.execute_script(
        """const all = {};
        for (const plot of document.querySelectorAll(".canvas"))
          all[plot.id.slice(5)] = plot.data.map((t) => [t.meta, t.visible !== false]);
        return all;"""
    )


def check_series(driver, expected):
    found = {figure: len(series) for figure, series in traces(driver).items()}
    check(found == expected, f"lines of the figures are {found}, not {expected}")
    drawn = driver.execute_script(
        "return [...document.querySelectorAll('.canvas')].every((p) => p.querySelector('.scatterlayer .trace'))"
    )
    check(drawn, "a figure is empty")


def check_keyboard(driver, rule):
    """Tab to the rule's box and Space: its lines vanish everywhere, others stay; again: they are back."""
    driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    for _ in range(80):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        here = driver.execute_script("return [document.activeElement.tagName, document.activeElement.dataset.rule]")
        if here == ["INPUT", rule]:
            break
    else:
        sys.exit(f"wrong: Tab never reaches the box of {rule}")
    for shown in [False, True]:
        ActionChains(driver).send_keys(Keys.SPACE).perform()
        for figure, series in traces(driver).items():
            for name, visible in series:
                check(visible == (shown or name != rule), f"{figure}: {name} is {visible} with {rule} {shown}")


def check_log(driver):
    kind = "return document.getElementById('plot-width').layout.xaxis.type"
    before = driver.execute_script(kind)
    box = driver.find_element(By.CSS_SELECTOR, "figure:has(#plot-width) input[data-log=x]")
    box.click()
    after = driver.execute_script(kind)
    check({before, after} == {"log", "linear"}, f"the axis was {before} and is {after}")
    box.click()


def check_selectors(driver):
    """No choice leaves a figure empty: where two exclude each other, the one made last counts."""
    empty = driver.execute_script(
        """const empty = [];
        for (const figure of document.querySelectorAll("figure")) for (const select of figure.querySelectorAll("select")) {
          const before = select.value;
          for (const option of [...select.options].reverse().concat(select.options[before])) {
            select.value = option.value;
            select.dispatchEvent(new Event("change"));
            const plot = figure.querySelector(".canvas");
            if (!plot.data.some((t) => t.x.length) || select.value !== option.value)
              empty.push([plot.id, select.dataset.key, option.text]);
          }
        }
        return empty;"""
    )
    check(not empty, f"choices that leave a figure empty: {empty}")


def check_hover(driver):
    point = driver.find_element(By.CSS_SELECTOR, "#plot-width .scatterlayer .point")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    ActionChains(driver).move_to_element(point).perform()
    label = "return document.querySelector('#plot-width .hoverlayer')?.textContent"
    text = until(lambda: driver.execute_script(label), "no value on hover")
    check("Width" in text and "seed" in text, f"hover says {text!r}")
    ActionChains(driver).move_by_offset(0, -300).perform()


def check_downloads(driver, folder):
    behaviour = {"behavior": "allow", "downloadPath": str(folder)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    for kind, begins in [("SVG", "<svg"), ("CSV", "rule,part,")]:
        button = driver.find_element(By.CSS_SELECTOR, f"figure:has(#plot-width) button[aria-label$='{kind}']")
        button.click()
        path = folder / f"sansprop-width.{kind.lower()}"
        until(lambda: path.exists() and path.stat().st_size > 0, f"no {path.name}")
        text = path.read_text()
        check(text.startswith(begins), f"{path.name} begins with {text[:40]!r}")
    points = driver.execute_script(
        "return document.getElementById('plot-width').data.reduce((n, t) => n + t.x.length, 0)"
    )
    check(len(text.splitlines()) == points + 1, f"{len(text.splitlines())} lines of CSV for {points} points")


def check_phone(driver):
    size = {"width": 375, "height": 812, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    time.sleep(1)
    wide = driver.execute_script("return document.documentElement.scrollWidth")
    check(wide <= 375, f"the page is {wide} wide on a screen of 375")
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def check_themes(driver):
    def grounds():
        return driver.execute_script(
            """const plot = document.querySelector(".canvas");
            return [getComputedStyle(document.body).backgroundColor, plot.layout.paper_bgcolor]"""
        )

    light = grounds()
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    dark = until(lambda: (now := grounds())[1] != light[1] and now, "figures stay light")
    check(dark[0] != light[0], f"the page's ground stays {light[0]}")
    driver.find_element(By.ID, "theme").click()
    check(grounds() == light, "the button does not bring the light theme")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def check_print(driver):
    pdf = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    check(pdf.startswith(b"%PDF") and len(pdf) > 20_000, f"a PDF of {len(pdf)} bytes")
    printing = "return document.documentElement.dataset.printing"
    check(driver.execute_script(printing) is None, "the page stays as it was printed")


def check_quiet(driver):
    severe = [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]
    check(not severe, f"the console says {severe}")
    for line in driver.get_log("performance"):
        message = json.loads(line["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            address = message["params"]["request"]["url"]
            if message["params"]["documentURL"].startswith("chrome:"):
                continue  # The browser's own first page.
            check(address.startswith(("file:", "data:", "blob:")), f"the page asks for {address}")


def main():
    page, expected = pathlib.Path(sys.argv[1]), json.loads(pathlib.Path(sys.argv[2]).read_text())
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        driver = start(work / "profile")
        try:
            driver.get(page.resolve().as_uri())
            check_series(driver, expected["series"])
            check_keyboard(driver, expected["rule"])
            check_selectors(driver)
            check_log(driver)
            check_hover(driver)
            check_downloads(driver, work)
            check_themes(driver)
            check_phone(driver)
            check_print(driver)
            check(driver.execute_script("return window.owned") is None, "text from a file ran as a script")
            check_quiet(driver)
        finally:
            driver.quit()
    print("ok")


main()
