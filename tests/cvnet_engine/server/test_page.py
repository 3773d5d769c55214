"""The page in a real browser, over fake engines."""

from __future__ import annotations

import base64
import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from cvnet_engine.engine.gallery.writer import GalleryWriter
from cvnet_engine.server.served_gallery import id_of
from tests.cvnet_engine.server.conftest import IMAGES, TOKEN, add
from tests.galleries import INFO
from tests.pictures import photo

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]
# a file as it is carried by a clipboard or a mouse
CARRY = """content => {
    const carried = new DataTransfer();
    const bytes = Uint8Array.from(atob(content), character => character.charCodeAt(0));
    carried.items.add(new File([bytes], "carried.jpg", {type: "image/jpeg"}));
    return carried;
}"""
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser) -> Iterator[Callable]:
    """Opens a page in a fresh browser; what its console complains of fails the test."""
    complaints, contexts = [], []

    def open_page(url: str, **options):
        context = browser.new_context(**options)
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if "Security Policy" in line.text else None)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def expect(locator):
    return playwright.expect(locator)


def fits(page) -> bool:
    """Whether nothing reaches beyond the page's width, once cards have come to rest."""
    page.evaluate("Promise.allSettled(document.getAnimations().map(animation => animation.finished)).then(() => null)")
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def require_accessible(page) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    found = axe.Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []


def finished(page) -> None:
    expect(page.locator("#status")).to_contain_text("reranking of")


@pytest.mark.parametrize("options", [{"viewport": {"width": 1280, "height": 900}}, PHONE], ids=["desktop", "phone"])
def test_upload_stream_box_and_more_like_this(run, visit, photos, tmp_path, options):
    server = run()
    page = visit(server.url, **options)
    expect(page.locator(".hit img")).to_have_count(IMAGES)
    expect(page.locator("#banner")).to_contain_text("untrained")
    require_accessible(page)

    server.engines.gate.clear()
    page.set_input_files("#file", photos[3])
    expect(page.locator(".hit .similarity").first).to_have_text("1.000")  # the global ranking, before any pair
    expect(page.locator(".hit .pair").first).to_have_text("–")
    first_ranking = page.locator(".hit .name").all_text_contents()
    server.engines.gate.set()
    finished(page)
    scores = [float(text) for text in page.locator(".hit .score").all_text_contents()]
    assert scores == sorted(scores, reverse=True)
    assert page.locator(".hit .name").all_text_contents() != first_ranking
    assert page.locator(".hit .move.up").count() > 0
    assert fits(page)
    require_accessible(page)
    page.screenshot(path=tmp_path / "found.png")

    at = page.locator("#photo").bounding_box()
    page.mouse.move(at["x"] + at["width"] / 4, at["y"] + at["height"] / 4)
    page.mouse.down()
    page.mouse.move(at["x"] + at["width"] * 3 / 4, at["y"] + at["height"])
    page.mouse.up()
    finished(page)
    width, height = 80, 64  # of the photo
    assert page.locator("#box").input_value() == f"{width // 4},{height // 4},{width * 3 // 4},{height}"
    assert server.engines.shapes == [(height, width, 3), (height * 3 // 4, width // 2, 3)]
    outline = page.locator("#bbx").bounding_box()
    assert outline["width"] == pytest.approx(at["width"] / 2, abs=3)

    second = page.locator(".hit").nth(1)
    id_ = second.get_attribute("data-id")
    second.get_by_role("button", name="More like this").click()
    finished(page)
    expect(page.locator(f'.hit[data-id="{id_}"]')).to_have_count(0)
    expect(page.locator(".hit")).to_have_count(IMAGES - 1)
    assert page.url.endswith(f"#id={id_}")
    page.go_back()
    expect(page.locator("#heading")).to_have_text("Photos of the gallery")


def test_a_permalink_filters_and_the_keyboard(run, visit, photos, tmp_path):
    page = visit(f"{run().url}#id={id_of(photos[0])}&name=VIEW+1&box=8,4,72,60")
    finished(page)
    expect(page.locator("#query-name")).to_have_text(str(photos[0]))
    expect(page.locator(".hit")).to_have_count(3)
    expect(page.locator("#bbx")).to_be_visible()
    page.select_option("#folder", str(tmp_path / "Abbey"))
    expect(page.locator(".hit")).to_have_count(2)
    page.fill("#name", "nothing of the kind")
    expect(page.locator(".empty")).to_contain_text("No photo matches")
    page.get_by_role("button", name="Back to the gallery").press("Enter")
    page.fill("#name", "view 1")
    expect(page.locator(".hit")).to_have_count(2)
    page.locator(".hit button").first.press("Enter")
    finished(page)
    expect(page.locator("#results")).to_be_focused()


def test_an_unreadable_upload_is_explained_on_a_dark_page(run, visit):
    page = visit(run().url, color_scheme="dark")
    expect(page.locator(".hit img")).to_have_count(IMAGES)
    require_accessible(page)
    page.set_input_files("#file", {"name": "notes.jpg", "mimeType": "image/jpeg", "buffer": b"no image"})
    expect(page.locator("#trouble")).to_contain_text("not an image")
    expect(page.locator(".hit")).to_have_count(0)
    require_accessible(page)


def test_an_approximate_search_is_called_one(run, visit, approximate_gallery, photos):
    page = visit(f"{run(approximate_gallery).url}#rerank=0")
    page.set_input_files("#file", photos[3])
    expect(page.locator("#status")).to_contain_text("approximate search of 2,400 images")


def test_an_empty_gallery_says_how_to_fill_it(run, visit, tmp_path):
    GalleryWriter(tmp_path / "empty", INFO).close()
    page = visit(run(tmp_path / "empty").url)
    expect(page.locator(".empty")).to_contain_text("cvnet-engine index")


def test_the_page_waits_for_a_stopped_server(run, visit, photos):
    server = run()
    page = visit(server.url)
    expect(page.locator(".hit img")).to_have_count(IMAGES)
    page.wait_for_load_state("networkidle")
    server.stop()
    page.set_input_files("#file", photos[3])
    expect(page.locator("#trouble")).to_contain_text("Waiting for it")
    run(port=server.port)
    finished(page)  # what was asked is asked again
    expect(page.locator("#trouble")).to_be_hidden()


def test_the_page_waits_for_a_server_killed_during_a_search(run, visit, gallery, photos):
    command = [sys.executable, "-m", "tests.cvnet_engine.server.running", gallery]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, contextlib.ExitStack() as end:
        end.callback(process.kill)
        port = int(process.stdout.readline())
        page = visit(f"http://127.0.0.1:{port}")
        expect(page.locator(".hit img")).to_have_count(IMAGES)
        page.set_input_files("#file", photos[3])
        expect(page.locator(".hit .similarity").first).to_have_text("1.000")
    expect(page.locator("#trouble")).to_contain_text("stopped in the middle")
    expect(page.locator(".hit")).to_have_count(0)
    run(port=port)
    finished(page)
    expect(page.locator("#trouble")).to_be_hidden()


IN_TWO_SECONDS = """
const send = window.fetch;
window.fetch = (path, options) => {
    if (options?.body instanceof FormData) options.body.append("deadline_s", "2");
    return send(path, options);
};
"""


def test_past_the_deadline_the_ranking_by_similarity_stays(run, visit, photos):
    server = run()
    page = visit(server.url)
    server.engines.gate.clear()
    page.evaluate(IN_TWO_SECONDS)
    page.set_input_files("#file", photos[3])
    expect(page.locator("#trouble")).to_contain_text("not finished by the deadline")
    expect(page.locator("#status")).to_contain_text("similarity only")
    expect(page.locator(".hit .similarity").first).to_have_text("1.000")


def test_past_the_deadline_the_ranking_of_an_earlier_query_goes(run, visit, photos):
    server = run()
    page = visit(server.url)
    page.set_input_files("#file", photos[3])
    finished(page)
    late = {"status": 504, "detail": "not finished by the deadline"}
    page.route("**/v1/search*", lambda route: route.fulfill(status=504, json=late))
    page.set_input_files("#file", photos[4])
    expect(page.locator("#trouble")).to_contain_text("not finished by the deadline")
    expect(page.locator(".hit")).to_have_count(0)


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_a_photo_is_pasted_or_dropped(run, visit, photos, way):
    page = visit(run().url)
    expect(page.locator(".hit img")).to_have_count(IMAGES)
    content = base64.b64encode(photos[3].read_bytes()).decode()
    transfer = page.evaluate_handle(CARRY, content)
    if way == "paste":
        page.evaluate("carried => dispatchEvent(new ClipboardEvent('paste', {clipboardData: carried}))", transfer)
    else:
        page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
        expect(page.locator("#over")).to_be_visible()
        page.dispatch_event("body", "drop", {"dataTransfer": transfer})
        expect(page.locator("#over")).to_be_hidden()
    finished(page)
    expect(page.locator(f'.hit[data-id="{id_of(photos[3])}"] .similarity')).to_have_text("1.000")
    expect(page.locator("#query-name")).to_have_text("carried.jpg")


@pytest.mark.parametrize(("clipboard", "told"), [("undefined", "Not allowed"), ("{async writeText() {}}", "Copied")])
def test_a_button_reports_copying_then_shows_its_label(run, visit, photos, clipboard, told):
    """A page over plain HTTP from another machine has no clipboard."""
    page = visit(f"{run().url}#id={id_of(photos[0])}")
    finished(page)
    page.evaluate(f"Object.defineProperty(navigator, 'clipboard', {{value: {clipboard}}})")
    button = page.locator("#link")
    button.click()
    expect(button).to_contain_text(told)
    button.click()
    expect(button).to_have_text("Copy link")


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desktop", "phone"])
def test_near_duplicates_are_folded(run, visit, gallery, photos, tmp_path, options):
    copies = [photos[3].with_name(f"copy {number}.jpg") for number in range(3)]
    for copy in copies:
        copy.write_bytes(photos[3].read_bytes())
    add(gallery, copies)
    page = visit(f"{run().url}#id={id_of(photos[3])}", **options)
    finished(page)
    shown = page.locator(".hit:visible")
    expect(shown).to_have_count(IMAGES)
    more = page.get_by_role("button", name="2 near-duplicates")
    more.click()
    expect(more).to_have_attribute("aria-expanded", "true")
    expect(shown).to_have_count(IMAGES + 2)
    names = [name.rpartition("/")[2] for name in page.locator(".hit .name").all_text_contents()]
    together = sorted(names.index(path.name) for path in copies)
    assert together == list(range(together[0], together[0] + 3))
    assert fits(page)
    require_accessible(page)
    page.screenshot(path=tmp_path / "folded.png")
    more.press("Enter")
    expect(shown).to_have_count(IMAGES)
    page.locator("#options").evaluate("options => options.open = true")
    page.get_by_label("Group near-duplicates").uncheck()
    expect(page.locator(".hit .same")).to_have_count(0)
    expect(shown).to_have_count(IMAGES + 2)


def test_dates_are_shown_and_filter(run, visit):
    page = visit(run().url)
    expect(page.locator(".hit time")).to_have_count(IMAGES // 2)
    expect(page.locator(".hit time").first).to_have_text("1 Jun 2019")
    page.get_by_label("Taken from").fill("2019-06-03")
    expect(page.locator(".hit")).to_have_count(4)
    page.get_by_label("Taken to").fill("2019-06-04")
    expect(page.locator(".hit")).to_have_count(2)
    page.locator(".hit button").first.click()
    finished(page)
    expect(page.locator(".hit")).to_have_count(1)
    assert "taken_from=2019-06-03&taken_to=2019-06-04" in page.url
    page.reload()
    finished(page)
    expect(page.get_by_label("Taken from")).to_have_value("2019-06-03")
    require_accessible(page)


def test_a_gallery_without_dates_has_no_date_filter(run, visit, tmp_path):
    add(tmp_path / "undated", [photo(tmp_path / "undated.jpg")])
    page = visit(run(tmp_path / "undated").url)
    expect(page.locator(".hit img")).to_have_count(1)
    expect(page.get_by_label("Taken from")).to_be_hidden()


def test_the_page_asks_for_the_token_once(run, visit):
    page = visit(run(token=TOKEN).url)
    expect(page.locator("#search")).to_be_hidden()
    page.get_by_label("Access token of this server").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#trouble")).to_contain_text("wrong token")
    require_accessible(page)
    page.locator("#token").fill(TOKEN)
    page.locator("#token").press("Enter")
    expect(page.locator(".hit img")).to_have_count(IMAGES)
    page.reload()
    expect(page.locator(".hit img")).to_have_count(IMAGES)
