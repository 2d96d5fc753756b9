"""How large the report of a 20-minute comparison is, and how soon it can be used after opening.

    python experiments/benchmarks/report_time.py

Runs ``configs/video.yaml`` twice over its 20 minutes (with and without energy), compares, writes
the page and opens it in headless Chromium, a fresh browser context each time. From the start of the
navigation it takes: the first figure on the page, every figure on the page, and an answer to a
click on a table's head (sent as soon as the document is there). Interactive is the latest of the
first figure and that answer. Prints medians and writes ``results/report_time.json``; skips with a
word if there is no Chromium or no Playwright.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ipa_energy.cli import main as ipa_energy

REPEATS = 7
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
CONFIG = Path(__file__).parents[2] / "configs" / "video.yaml"

CLICK = """() => new Promise((resolve) => {
  const head = document.querySelector("thead button");
  head.click();
  requestAnimationFrame(() => requestAnimationFrame(() => resolve(
    [head.closest("th").getAttribute("aria-sort"), performance.now() / 1000])));
})"""


def write_report(folder: Path) -> tuple[Path, float]:
    """The page, and seconds of ``compare --html`` without hindsight."""
    for name, weight in (("ipa", "0"), ("energy", "2")):
        words = ["run", str(CONFIG), "--energy-weight", weight, "--out", str(folder / name)]
        if ipa_energy([*words, "--quiet"]) != 0:
            raise SystemExit(f"the run {name} failed")
    page = folder / "report.html"
    begin = time.perf_counter()
    words = ["compare", str(folder / "ipa"), str(folder / "energy"), "--html", str(page)]
    if ipa_energy([*words, "--no-hindsight", "--quiet"]) != 0:
        raise SystemExit("the comparison failed")
    return page, time.perf_counter() - begin


def opened(browser: Any, page: Path) -> dict[str, float]:
    """Seconds from the start of the navigation, in a context that has cached nothing."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    tab = context.new_page()
    tab.goto(page.as_uri(), wait_until="domcontentloaded")
    state, answered_s = tab.evaluate(CLICK)
    if state != "ascending":
        raise SystemExit("the table did not sort")
    count = tab.locator(".plot").count()
    tab.wait_for_selector(f"html[data-drawn='{count}']", state="attached", timeout=120_000)
    marks_s = [
        tab.evaluate(f"performance.getEntriesByName('figure-{number}')[0].startTime / 1000")
        for number in (1, count)
    ]
    context.close()
    return {
        "table_sorted_s": answered_s,
        "first_figure_s": marks_s[0],
        "interactive_s": max(answered_s, marks_s[0]),
        "every_figure_s": marks_s[1],
    }


def main() -> None:
    """Write the page once, open it several times, the first for warming up."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        print("skipped: it takes Chromium (apt-get install chromium) and the extra dev")
        sys.exit(0)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page, written_s = write_report(Path(folder))
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        trials = [opened(browser, page) for _ in range(REPEATS + 1)][1:]
        version = browser.version
        browser.close()
        size_bytes = page.stat().st_size
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "chromium": version,
        "repeats": REPEATS,
        "page_bytes": size_bytes,
        "compare_and_write_s": round(written_s, 3),
        "median_s": {
            name: round(statistics.median(trial[name] for trial in trials), 3) for name in trials[0]
        },
        "best_s": {name: round(min(trial[name] for trial in trials), 3) for name in trials[0]},
        "worst_s": {name: round(max(trial[name] for trial in trials), 3) for name in trials[0]},
    }
    print(f"page                 {size_bytes / 1e6:7.2f} MB   written in {written_s:.2f} s")
    for name in trials[0]:
        median_s, best_s = (report[key][name] for key in ("median_s", "best_s"))
        print(f"{name:20s} {median_s:7.3f} s   best {best_s:.3f} s")
    path = Path(__file__).parent / "results" / "report_time.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    main()
