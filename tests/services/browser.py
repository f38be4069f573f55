"""Debian's Chromium, headless, driven by its own ChromeDriver through selenium."""

from __future__ import annotations

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service as ChromeDriver

from tests.services import reaper
from tests.services.missing import program
from tests.services.process import private_directory, remove_directory

FLAGS = [
    "--headless=new",
    "--no-sandbox",  # root has none
    "--disable-dev-shm-usage",
    "--disable-gpu",
    # It would otherwise call home, at every start and many times.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
]


class Browser:
    """One browser with an empty profile of its own: two of them share no cookie and no cache."""

    def __init__(self) -> None:
        driver = program("chromedriver", "chromium-driver")
        options = ChromeOptions()
        options.binary_location = program("chromium", "chromium")
        self.directory = private_directory("browser")
        for flag in [*FLAGS, f"--user-data-dir={self.directory}/profile"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.service = ChromeDriver(
            driver,
            log_output=str(self.directory / "driver.log"),
            popen_kw={"start_new_session": True},
        )
        try:
            self.driver = Chrome(options=options, service=self.service)
        except BaseException:
            remove_directory(self.directory)
            raise
        reaper.register("session", self.service.process.pid)

    def console(self) -> list[str]:
        """What the pages wrote to the console since the last call, errors of theirs included."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def reset(self) -> None:
        self.driver.delete_all_cookies()
        self.driver.get("about:blank")
        self.console()

    def close(self) -> None:
        pid = self.service.process.pid
        try:
            self.driver.quit()
        finally:
            reaper.kill_session(pid)
            reaper.forget("session", pid)
            remove_directory(self.directory)
