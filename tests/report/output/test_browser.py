"""The page in a real browser: what is clicked, pointed at and typed does what it says."""

import dataclasses
import shutil

import numpy as np
import pytest

from fishfeat.records import BackboneSpec
from fishfeat.records.results import Curve, CurvePoint, FeatureMap
from fishfeat.report.content.backbones import compare
from fishfeat.report.content.contents import ReportContent
from fishfeat.report.output.comparison_page import write_comparison
from fishfeat.report.output.page import write_report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.common.exceptions import SessionNotCreatedException  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMES = ("chromium", "chromium-browser", "google-chrome")
CHROME = next(filter(None, map(shutil.which, CHROMES)), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROME and DRIVER), reason="no chromium with chromedriver")

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *(
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--force-prefers-reduced-motion",
        "--window-size=1400,1000",
    ),
)
# Bream is classified as cod, cod as dab and so on: see `make_run`.
WRONG = [*range(0, 12), 30, 31, 62]
NAMES = ("bream", "cod", "dab", "eel", *(f"plectroglyphidodon dickii {i}" for i in range(6)))
MANY = [f"species {i:02}" for i in range(34)]
NAMES_OF = {len(NAMES): NAMES, len(MANY): MANY}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One headless Chromium for all tests, with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROME
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    except SessionNotCreatedException as error:
        pytest.skip(f"the browser does not start: {error.msg}")
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pond(make_images, make_run, tmp_path_factory):
    """Images, the best run and the page of a report with a map and a learning curve."""
    images = make_images(180, class_names=NAMES)
    runs = [
        make_run(images, "svc", wrong=WRONG),
        make_run(images, "rf", wrong=[*WRONG, *range(40, 60)]),
        make_run(images, "svc", wrong=[3], split="random"),
    ]
    angle = np.arange(180) * 2.4  # a sunflower: no two marks are near each other
    xy = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.sqrt(np.arange(180))[:, None]
    laid_out = FeatureMap(images.keys, xy, "pca", 0.4, "nano")
    points = tuple(CurvePoint(s, 60 * s, 15 * s, 0.7, 0.6, 0.8, 0.7) for s in (0.25, 0.5, 1.0))
    curve = Curve("svc", False, 0, "grouped", "d", "nano", points, 0.0, -0.1, 0.1, 1.5)
    folder = tmp_path_factory.mktemp("pond")
    page = write_report(
        runs, images, folder, content=ReportContent(feature_map=laid_out, curves=[curve])
    )
    return images, runs[0], page


@pytest.fixture
def page(browser, pond):
    """The page of the pond, freshly opened; a test that leaves a complaint of the console fails."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get(pond[2].as_uri())
    browser.get_log("browser")
    yield browser
    assert browser.get_log("browser") == []


def one(browser, css):
    return browser.find_element(By.CSS_SELECTOR, css)


def every(browser, css):
    return browser.find_elements(By.CSS_SELECTOR, css)


def cell(browser, true, predicted, run="svc-grouped"):
    """The button in the confusion matrix of a run, found by the headings of row and column."""
    table = one(browser, f"table.confusion[data-run='{run}']")
    rows = [th.get_attribute("title") for th in every(table, "tbody th")]
    row = every(table, "tbody tr")[rows.index(true)]
    return one(row, f"td[data-column='{NAMES_OF[len(rows)].index(predicted)}'] button")


def shown_keys(browser):
    """Keys of the images in the window, in order."""
    return [img.get_attribute("alt") for img in every(browser, "dialog[open] img")]


def active(browser, what="textContent"):
    return browser.execute_script(f"return document.activeElement.{what}")


def expected(images, run, true, predicted):
    names = images.class_names.tolist()
    rows = (images.y == names.index(true)) & (run.predicted == names.index(predicted))
    return set(images.keys[rows].tolist())


RED = """
const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1});
canvas.getContext('2d').drawImage(arguments[0], 0, 0, 1, 1);
return canvas.getContext('2d').getImageData(0, 0, 1, 1).data[0];
"""


# --- confusion matrix ---------------------------------------------------------------------------


@pytest.mark.parametrize(("true", "predicted"), [("bream", "cod"), ("cod", "dab"), ("eel", "eel")])
def test_a_click_on_a_cell_shows_its_images_and_no_others(page, pond, true, predicted):
    images, run, _ = pond
    cell(page, true, predicted).click()
    wanted = expected(images, run, true, predicted)
    assert set(shown_keys(page)) == wanted
    assert len(shown_keys(page)) == len(wanted) > 0
    assert one(page, "#images-title").text.startswith(f"{len(wanted)} image")
    for img in every(page, "dialog[open] img"):
        row = images.keys.tolist().index(img.get_attribute("alt"))
        assert page.execute_script(RED, img) == pytest.approx(row * 7 % 256, abs=14)


def test_the_most_confident_predictions_come_first(page, pond):
    cell(page, "bream", "cod").click()
    margins = dict(zip(pond[0].keys, np.linspace(0.2, 0.9, 180), strict=True))
    shown = [margins[key] for key in shown_keys(page)]
    assert shown == sorted(shown, reverse=True)


def test_the_list_of_mistakes_opens_images_too(page, pond):
    images, run, _ = pond
    button = one(page, "details.run[open] .opens")
    true, predicted = one(page, "details.run[open] .pair tr:has(.opens) td").text.split("\n")
    button.click()
    assert set(shown_keys(page)) == expected(images, run, true, predicted)


def test_confused_classes_stand_together_on_request_and_numbers_stay_with_their_classes(page, pond):
    images, run, _ = pond
    names = images.class_names.tolist()

    def heads(part):
        return [
            th.get_attribute("title")
            for th in every(page, f"table.confusion[data-run='svc-grouped'] {part} th")
        ]

    assert heads("thead") == heads("tbody") == names
    one(page, "input[name='order-svc-grouped'][value='similar']").click()
    assert heads("thead") == heads("tbody")
    order = [names.index(name) for name in heads("thead")]
    assert sorted(order) == list(range(10))
    assert abs(order.index(0) - order.index(1)) == 1  # bream and cod
    cell(page, "bream", "cod").click()
    assert set(shown_keys(page)) == expected(images, run, "bream", "cod")
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    one(page, "input[name='order-svc-grouped'][value='class']").click()
    assert heads("thead") == heads("tbody") == names


def test_a_matrix_is_used_by_the_keyboard_alone(page, pond):
    images, run, _ = pond
    one(page, "input[name='order-svc-grouped']:checked").send_keys(Keys.TAB)
    if active(page, "tagName") != "BUTTON":  # the frame that scrolls takes part in tabbing
        page.switch_to.active_element.send_keys(Keys.TAB)
    assert "of bream classified correctly" in active(page, "ariaLabel")
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert "of bream classified as cod" in active(page, "ariaLabel")
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert set(shown_keys(page)) == expected(images, run, "bream", "cod")
    assert active(page, "id") == "images-title"
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert every(page, "dialog[open]") == []
    assert "of bream classified as cod" in active(page, "ariaLabel")  # where one was before


def test_the_window_is_closed_by_its_button(page):
    cell(page, "bream", "cod").click()
    one(page, "#images-close").click()
    assert every(page, "dialog[open]") == []


# --- the map ------------------------------------------------------------------------------------


def place_of(browser, images, row):
    """Where the mark of an image lies on the canvas, in pixels from its centre."""
    return browser.execute_script(
        """
        const {map} = JSON.parse(document.getElementById('page-data').textContent);
        const canvas = document.getElementById('map-canvas');
        const [width, height] = [Math.max(...map.x), Math.max(...map.y)];
        const [wide, high] = [canvas.clientWidth, canvas.clientHeight];
        const fit = Math.min((wide - 30) / width, (high - 30) / height);
        const k = map.rows.indexOf(arguments[0]);
        return [(map.x[k] - width / 2) * fit, (height / 2 - map.y[k]) * fit];
        """,
        row,
    )


@pytest.mark.parametrize("row", [0, 7, 62, 179])
def test_pointing_at_a_mark_shows_its_image_and_answer(page, pond, row):
    images, *_ = pond
    canvas = one(page, "#map-canvas")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    x, y = place_of(page, images, row)
    ActionChains(page, 0).move_to_element_with_offset(canvas, int(x), int(y)).perform()
    tip = one(page, "#map-tip")
    assert tip.is_displayed()
    assert one(tip, "img").get_attribute("alt") == images.keys[row]
    assert page.execute_script(RED, one(tip, "img")) == pytest.approx(row * 7 % 256, abs=14)
    assert ("✗" in tip.text) == (row in WRONG)
    ActionChains(page, 0).move_to_element_with_offset(canvas, int(x), int(y)).click().perform()
    assert shown_keys(page) == [images.keys[row]]
    assert "rf: " in one(page, "#images-note").text


def test_the_map_is_walked_by_arrow_keys_and_speaks(page, pond):
    images, *_ = pond
    canvas = one(page, "#map-canvas")
    canvas.send_keys(Keys.ARROW_RIGHT)
    first = one(page, "#map-tip img").get_attribute("alt")
    canvas.send_keys(Keys.ARROW_RIGHT)
    second = one(page, "#map-tip img").get_attribute("alt")
    assert first != second
    assert second in one(page, "#status").get_attribute("textContent")
    a, b = (place_of(page, images, images.keys.tolist().index(key)) for key in (first, second))
    assert b[0] > a[0]
    canvas.send_keys(Keys.ENTER)
    assert shown_keys(page) == [second]


def test_only_errors_are_pointed_at_where_only_errors_are_asked_for(page, pond):
    images, run, _ = pond
    one(page, "#map-errors").click()
    canvas = one(page, "#map-canvas")
    met = set()
    for key in (Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_RIGHT, Keys.ARROW_DOWN) * 3:
        canvas.send_keys(key)
        met.add(one(page, "#map-tip img").get_attribute("alt"))
    assert len(met) > 2
    assert met <= set(images.keys[run.predicted != images.y].tolist())


def test_a_class_is_highlighted_by_its_button(page):
    before = page.execute_script("return document.getElementById('map-canvas').toDataURL()")
    button = every(page, "#map-legend button")[1]
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    after = page.execute_script("return document.getElementById('map-canvas').toDataURL()")
    assert before != after
    canvas = one(page, "#map-canvas")
    for key in (Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_RIGHT):
        canvas.send_keys(key)
        assert one(page, "#map-tip figcaption").text.startswith(button.text)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"


# --- the page as a whole ------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1400])
def test_nothing_important_is_cut_off(page, width, scheme):
    """Neither the page nor the leaderboard nor a small matrix scrolls sideways."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    wide = page.execute_script(
        """return [...document.querySelectorAll('.scroll')]
            .filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.ariaLabel)"""
    )
    assert [label for label in wide if not label.startswith("Every pair")] == []
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_comparison_of_backbones_fits_a_telephone(browser, make_images, make_run, tmp_path):
    images = make_images(60)
    runs = []
    for k, name in enumerate(("vit_small_patch14_reg4_dinov2.lvd142m", "nano")):
        run = make_run(images, "logreg", wrong=range(k, 20 * k + 3))
        backbone = BackboneSpec("timm", name)
        features = dataclasses.replace(run.config.features, backbone=backbone)
        config = dataclasses.replace(run.config, features=features)
        runs.append(dataclasses.replace(run, config=config))
    page = write_comparison(compare(runs, images), tmp_path)
    for width in (360, 1400):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(page.as_uri())
        browser.execute_script(
            "for (const d of document.querySelectorAll('details')) d.open = true"
        )
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert every(browser, "svg.chart")
    assert browser.get_log("browser") == []


CONTRAST = """
const lum = (text) => {
  const c = document.createElement('canvas').getContext('2d');
  c.fillStyle = text; c.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...c.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => {
    v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (c !== 'rgba(0, 0, 0, 0)') return c;
  }
  return 'white';
};
return [...document.querySelectorAll(arguments[0])].map((e) => {
  const [a, b] = [lum(getComputedStyle(e).color), lum(behind(e))].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
});
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(page, scheme):
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    kinds = "p, th, td:not(.zero), .is-incorrect, .is-correct, .soft, .confusion button, "
    kinds += ".plain-button, a"
    assert min(page.execute_script(CONTRAST, kinds)) >= 4.5
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_matrix_of_many_classes_opens_on_request(browser, make_images, make_run, tmp_path):
    images = make_images(136, class_names=MANY)
    run = make_run(images, wrong=[0, 1, 2])
    browser.get(write_report([run], images, tmp_path).as_uri())
    one(browser, "details.matrix summary").click()
    cell(browser, MANY[0], MANY[1]).click()
    assert set(shown_keys(browser)) == expected(images, run, MANY[0], MANY[1])
    assert len(shown_keys(browser)) == 2
    one(browser, "#images-close").click()
    one(browser, "input[value='similar']").click()
    heads = [
        [th.get_attribute("title") for th in every(browser, f"table.confusion {part} th")]
        for part in ("thead", "tbody")
    ]
    assert heads[0] == heads[1]
    assert sorted(heads[0]) == MANY != heads[0]
    assert abs(heads[0].index(MANY[0]) - heads[0].index(MANY[1])) == 1
    assert every(browser, "#map-canvas") == []
    assert browser.get_log("browser") == []


def test_a_link_into_a_closed_run_opens_it(page):
    second = every(page, ".leaderboard tbody a")[1]
    second.click()
    target = second.get_attribute("href").split("#")[1]
    assert page.execute_script(
        f"return document.getElementById('{target}').closest('details').open"
    )


def test_what_is_printed_has_the_runs_open_and_no_tools(page):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not one(page, ".tools").is_displayed()
    assert one(page, "#map-canvas").is_displayed()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert len(page.execute_cdp_cmd("Page.printToPDF", {})["data"]) > 20_000
