"""Every page is judged by axe in a real browser, with everything that can be unfolded unfolded."""

from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.site.test_browser import DESKTOP, PHONE, pages

GRAVE = ("serious", "critical")
QUICK = (("book/intro", DESKTOP, "light"), ("notebooks/13_learning_rate_or_batch_size", PHONE, "dark"))
VIEWS = ((DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"))
# What scrolls inside a page can be reached by the keyboard, also where it was unfolded.
REACHABLE = (
    "[...document.querySelectorAll('pre')].every(pre => pre.scrollWidth <= pre.clientWidth || pre.tabIndex === 0)"
)
# Unfolded cells fade in, reduced motion or not.
AT_REST = "document.getAnimations().every(animation => animation.playState !== 'running')"
Opener = Callable[[str, tuple[int, int], str], Page]


def identifier(case: object) -> str:
    return {DESKTOP: "desktop", PHONE: "phone"}[case] if isinstance(case, tuple) else str(case)


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator[Opener]:
    contexts = []

    def opener(name: str, size: tuple[int, int], scheme: str) -> Page:
        # Without motion no colour is caught half-way to another.
        width, height = size
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.goto(f"{address}/{name}.html", wait_until="networkidle")
        # On a busy machine the network may be idle before the page is complete.
        page.wait_for_load_state("load")
        page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
        page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
        page.wait_for_function(REACHABLE)
        page.wait_for_function(AT_REST)
        return page

    yield opener
    for context in contexts:
        context.close()


def grave_violations(page: Page) -> list[str]:
    """One line for each element that a rule of serious or critical impact complains of."""
    found = Axe().run(page).response["violations"]
    return [
        f"{violation['id']} ({violation['impact']}): {node['target'][-1]}: {node['html'][:120]}: "
        f"{node['failureSummary'].splitlines()[-1].strip()}"
        for violation in found
        if violation["impact"] in GRAVE
        for node in violation["nodes"]
    ]


def test_a_violation_is_found(browser: Browser):
    page = browser.new_page()
    page.set_content("<html lang='en'><title>t</title><main><h1>h</h1><img src='data:,'></main></html>")
    assert [line.split()[0] for line in grave_violations(page)] == ["image-alt"]
    page.close()


@pytest.mark.parametrize(("name", "size", "scheme"), QUICK, ids=identifier)
def test_a_page_is_accessible(opened: Opener, name, size, scheme):
    assert grave_violations(opened(name, size, scheme)) == []


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "size", "scheme"),
    [(name, *view) for name in pages() for view in VIEWS if (name, *view) not in QUICK],
    ids=identifier,
)
def test_every_page_is_accessible(opened: Opener, name, size, scheme):
    assert grave_violations(opened(name, size, scheme)) == []
