import contextlib
import json
import re
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import TimeoutError

ROOT = Path(__file__).parents[2]
DESKTOP, PHONE = (1400, 900), (390, 844)
# Hints on speed that Chromium gives when it draws WebGL without a graphics card.
SLOW_DRAWING = re.compile("GPU stall due to ReadPixels|willReadFrequently")


def pages() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *(page["file"] for chapter in chapters for page in (chapter, *chapter.get("sections", [])))]


@pytest.fixture
def visit(browser, address):
    """Open a page of the site; at the end, nothing may have gone wrong and nothing left this host."""
    complaints, contexts, own = [], [], (address, "data:", "blob:")

    def heard(text: str) -> None:
        if not SLOW_DRAWING.search(text):
            complaints.append(text)

    def opener(name: str, size: tuple[int, int] = DESKTOP, scheme: str = "light"):
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda entry: entry.type in ("error", "warning") and heard(entry.text))
        page.on("pageerror", lambda error: complaints.append(f"uncaught: {error}"))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on("response", lambda answer: answer.status >= 400 and complaints.append(f"{answer.status}: {answer.url}"))
        page.on("request", lambda request: request.url.startswith(own) or complaints.append(f"left: {request.url}"))
        page.goto(f"{address}/{name}", wait_until="networkidle")
        return page

    yield opener
    for context in contexts:
        context.close()
    assert complaints == []


def check_page(visit, name: str, size: tuple[int, int], scheme: str) -> None:
    page = visit(f"{name}.html", size, scheme)
    assert page.locator(".bd-article h1").first.is_visible()
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    too_wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert too_wide <= 0, f"the page is {too_wide} pixels wider than the screen"
    images = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
    assert images == []
    formulas = page.locator(".math").count()
    if formulas:
        page.wait_for_selector(".math mjx-container")
    assert page.locator(".math mjx-container").count() >= formulas
    assert page.locator("mjx-merror").count() == 0


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", pages())
def test_every_page_opens(visit, name, size):
    check_page(visit, name, size, "light")


@pytest.mark.full
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", pages())
def test_every_page_opens_in_dark_mode(visit, name, size):
    check_page(visit, name, size, "dark")


def test_the_first_page_is_the_introduction(visit):
    page = visit("")
    page.wait_for_url("**/book/intro.html")
    assert page.request.get(page.url.replace("/book/intro.html", "/favicon.ico")).ok


def in_view(page, selector: str) -> bool:
    box = page.locator(selector).bounding_box()
    width = page.viewport_size["width"]
    return box is not None and box["width"] > 0 and box["x"] + box["width"] > 0 and box["x"] < width


@pytest.mark.parametrize(("size", "shown"), [(DESKTOP, True), (PHONE, False)], ids=["desktop", "phone"])
def test_the_contents_button_works(visit, size, shown):
    page = visit("book/intro.html", size)
    link = ".bd-sidebar-primary nav a[href*='notebooks/']"
    assert in_view(page, f"{link} >> nth=0") is shown
    page.locator("button.primary-toggle:visible").first.click()
    page.wait_for_timeout(600)
    opened = "#pst-primary-sidebar-modal" if size == PHONE else ".bd-sidebar-primary"
    assert in_view(page, f"{opened} a[href*='notebooks/'] >> nth=0") is not shown


def test_search_finds_pages(visit):
    page = visit("search.html?q=batch")
    page.wait_for_selector("#search-results ul.search li a")
    assert re.search(r"[1-9]\d* page", page.locator("#search-results").inner_text())


SURFACES = "notebooks/08_landscapes.html"
EYE = "document.querySelector('.loss-surface-view').layout.scene.camera.eye"


def eye_away(place: dict[str, float]) -> str:
    """How far the eye is from a place, as an expression for the browser."""
    return f"Math.hypot(...['x', 'y', 'z'].map(axis => {EYE}[axis] - ({place})[axis]))"


def until(page, condition: str, act) -> None:
    """Do something until the browser says that it had its effect: software drawing may swallow an event."""
    for _ in range(8):
        act()
        with contextlib.suppress(TimeoutError):
            page.wait_for_function(condition, timeout=20_000)
            return
    pytest.fail(f"never true: {condition}")


def test_a_surface_turns_under_the_mouse_and_the_keys(visit):
    page = visit(SURFACES)
    assert page.evaluate("typeof Plotly") == "undefined"  # loaded only when a reader comes to it
    figure = page.locator("figure.loss-surface").first
    view = figure.locator(".loss-surface-view")
    figure.scroll_into_view_if_needed()
    page.wait_for_selector("figure.loss-surface[data-state=drawn] canvas", timeout=120_000)
    view.evaluate("node => node.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box, start = view.bounding_box(), page.evaluate(EYE)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag() -> None:
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 60, y + 10, steps=6)
        page.mouse.move(x + 120, y + 20, steps=6)
        page.mouse.up()

    until(page, f"{eye_away(start)} > 0.1", drag)
    view.focus()
    dragged = page.evaluate(EYE)
    until(page, f"{eye_away(dragged)} > 0.1", lambda: page.keyboard.press("ArrowLeft"))
    until(page, f"{eye_away(start)} < 1e-3", lambda: page.keyboard.press("Home"))
    assert "Keys" in figure.locator("figcaption").inner_text()


def test_a_surface_takes_the_colours_of_the_page(visit):
    for scheme in ("light", "dark"):
        page = visit(SURFACES, DESKTOP, scheme)
        page.locator("figure.loss-surface").first.scroll_into_view_if_needed()
        page.wait_for_selector("figure.loss-surface[data-state=drawn]", timeout=120_000)
        written = page.evaluate("document.querySelector('.loss-surface-view').layout.font.color")
        assert written == page.evaluate("getComputedStyle(document.querySelector('.bd-article p')).color")
        ground = page.locator(".cell_output .text_html:has(figure.loss-surface)").first
        assert ground.evaluate("node => getComputedStyle(node).backgroundColor") == "rgba(0, 0, 0, 0)"


def test_on_a_phone_a_surface_waits_to_be_asked_for(visit):
    page = visit(SURFACES, PHONE)
    figure = page.locator("figure.loss-surface").first
    figure.scroll_into_view_if_needed()
    assert figure.locator("button").is_visible()
    assert figure.locator("[role=img]").get_attribute("aria-label").startswith("Training loss of")
    assert page.locator("#fig-plane img").first.is_visible()  # the same numbers, flat
    page.wait_for_timeout(300)
    assert page.evaluate("typeof Plotly") == "undefined"


@pytest.mark.parametrize(("size", "folder"), [(DESKTOP, "/_images/"), (PHONE, "/narrow/")], ids=["desktop", "phone"])
def test_figures_of_several_panels_have_a_form_for_phones(visit, size, folder):
    page = visit("notebooks/07_training_dynamics.html", size)
    for name in ("fig-course", "fig-sharpness", "fig-beside"):
        image = page.locator(f"#{name} img")
        image.scroll_into_view_if_needed()
        assert folder in image.evaluate("image => image.currentSrc")
        shape = image.evaluate("image => [image.naturalWidth, image.naturalHeight, image.clientWidth]")
        assert (shape[0] < shape[1]) is (size == PHONE)
        if size == PHONE:
            assert shape[2] > 320  # as wide as the page, so that 13 points stay 13


def test_no_other_page_loads_the_script_of_surfaces(site):
    with_script = [path.name for path in site.rglob("*.html") if "loss-surface.js" in path.read_text(encoding="utf-8")]
    assert with_script == ["08_landscapes.html"]


def test_spectra_follow_what_the_reader_picks(visit):
    page = visit("book/intro.html")
    figure = page.locator("figure.spectrum-explorer")
    families = json.loads(figure.locator("script").text_content())
    drawing, said = figure.locator(".spectrum-explorer-drawing"), figure.locator(".spectrum-explorer-said")
    chosen, curves = families[-1], "svg > path[fill=none]"
    figure.locator("select").nth(0).select_option(str(len(families) - 1))
    assert drawing.locator(curves).count() == len(chosen["train"])
    largest = chosen["train"][-1]
    value = f"{largest['values'][0]:.3g}"
    assert f"{float(value):g} at B = {largest['batch_size']}" in said.text_content()
    assert drawing.locator("svg > path:not([fill=none]) > title").count() == sum(
        len(line["values"]) for line in chosen["train"]
    )
    figure.locator("button").last.click()
    assert figure.locator("button").last.get_attribute("aria-pressed") == "false"
    assert drawing.locator(curves).count() == len(chosen["train"]) - 1
    assert f"B = {largest['batch_size']}" not in said.text_content()
    figure.locator("button").last.press("Enter")
    assert drawing.locator(curves).count() == len(chosen["train"])
    figure.locator("select").nth(1).select_option("test")
    assert chosen["title"] in drawing.locator("svg > title").text_content()
    assert "test loss" in drawing.locator("svg > title").text_content()
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    page.wait_for_function("document.querySelector('.spectrum-explorer-drawing svg').viewBox.baseVal.width < 390")
