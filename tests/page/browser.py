# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium on the chat page: what the tests press, read and wait for."""
import contextlib
import json
import shutil
import time

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

WAIT_S = 15  # only hangs are caught by it


def find_browser():
    """(browser, driver) of this machine, or None."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Browser:
    def __init__(self, downloads):
        binary, driver = find_browser()
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars",
                     "--force-prefers-reduced-motion", "--window-size=1280,800", "--disable-gpu", "--disable-extensions",
                     "--disable-background-networking", "--disable-component-update", "--no-first-run"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        options.set_capability("unhandledPromptBehavior", "ignore")
        options.add_experimental_option("prefs", {"download.default_directory": downloads})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))
        self.requests = []
        self.console = []
        self.size(1280, 800)

    def close(self):
        self.driver.quit()

    def size(self, width, height, mobile=False):
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                    {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile})

    def prefer(self, scheme):
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia",
                                    {"features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def drain_logs(self):
        """Addresses asked for and lines of the console since the last call."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        self.console += [e for e in self.driver.get_log("browser")]

    def fresh(self, url):
        """The page as on the first visit."""
        self.driver.get(url + "page/icon.svg")
        self.driver.execute_async_script("""
            const done = arguments[0];
            localStorage.clear();
            const r = indexedDB.deleteDatabase('squish');
            r.onsuccess = r.onerror = r.onblocked = () => done();""")
        self.open(url)

    def open(self, url):
        self.driver.get(url)
        self.until(lambda: not self.all("body.starting") and self.js(
            "return document.querySelector('#model').options[0].value !== '' || !document.querySelector('#banner').hidden"))

    def js(self, script, *args):
        return self.driver.execute_script(script, *args)

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css):
        return self.until(lambda: next(iter(self.all(css)), None), css)

    def text(self, css):
        """What is in the elements, also where it is scrolled away or folded."""
        return self.js("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", css)

    def visible(self, css):
        return any(e.is_displayed() for e in self.all(css))

    def click(self, css):
        self.until(lambda: self.press(css), f"{css} visible")

    def press(self, css):
        for e in self.all(css):
            if e.is_displayed():
                e.click()
                return True
        return False

    def until(self, condition, what="condition"):
        """Waits for it. Lists are drawn anew while one looks at them: an element that went away is looked for again."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            with contextlib.suppress(StaleElementReferenceException):
                value = condition()
                if value:
                    return value
            time.sleep(0.02)
        raise AssertionError(f"{what}: did not come true in {WAIT_S} s")

    def keys(self, *keys):
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def chord(self, modifier, key):
        webdriver.ActionChains(self.driver).key_down(modifier).send_keys(key).key_up(modifier).perform()

    def put(self, css, text):
        """Fills a field as typing would, without the price of single keys."""
        self.js("""const e = document.querySelector(arguments[0]); e.focus(); e.value = arguments[1];
                e.dispatchEvent(new Event('input', {bubbles: true})); e.dispatchEvent(new Event('change', {bubbles: true}));""",
                css, text)

    def start(self, text):
        self.put("#box", text)
        self.one("#box").send_keys(Keys.ENTER)
        self.until(lambda: not self.js("return document.querySelector('#box').value"), "message taken")

    def say(self, text):
        """Sends and waits for the end of the answer; returns its text."""
        self.start(text)
        return self.answered()

    def answered(self):
        self.until(lambda: not self.all(".running") and self.all("article:last-child:not(.user)"), "answer ends")
        return self.text("article.assistant:last-of-type .body")[-1].strip()

    def open_settings(self):
        self.click("#settings-open")
        self.until(lambda: self.js("return document.querySelector('#settings').open"))

    def close_dialog(self):
        self.keys(Keys.ESCAPE)
        self.until(lambda: not self.all("dialog[open]"), "dialog closes")
