import base64
import copy
import re
from html.parser import HTMLParser

import pytest

from barycenter.tasks.report.rendering import html
from barycenter.tasks.report.rendering.meanings import MEANINGS

VOID = {"meta", "link", "img", "source", "br"}


class Reader(HTMLParser):
    """Checks that tags balance; gathers tags, attributes and the text people see."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def seen(page):
    return " ".join(" ".join(Reader(page).text).split())


def test_every_part_is_on_the_page(report, samples, images):
    text = seen(html(report, samples, images))
    for part in (
        "Averaging helped: the fused vector has 70.1 % accuracy",
        "alignment.dim 300 was clipped to 256",
        "side by side, gaps filled with the mean",
        "fused − image, complete +39.4 +37.0 to +42.0",
        "fused − concat, complete −1.0 −1.8 to +0.2",
        "3 of 5 stand above what randomly paired inputs reach",
        "Of 300 held-out rows, 62 % of the five nearest share the label",
        "item-2 · 0.91",
        "text → image 21.0 61.0 79.0 0.391",
        "bad: not an image 3",
        "embed text 2,000 19 s 105 tokenizing",
        "fit 2,000 1 min 35 s 21 done before",
        "good case",
        "a crimson dish",
        "encoders.text builtin/hashing",
        "Is that good? The fused vector gets 70.1 % of the 1,815 rows right",
        "1,452 rows to learn from, 363 held out by a hash of `design`",
        "543 are wrong (29.9 %)",
        "party 642 273 915",
        "99.1 % sure party predicted winter dots a plate in the snow item-9",
        "Look at the labels of 31 rows",
        "--set alignment.dim=512",
        "item-9 party winter dots 0.4",
        "party winter dots 273",
    ):
        assert part in text


def test_nothing_is_asked_of_the_network(report, samples, images):
    reader = Reader(html(report, samples, images))
    assert "script" not in reader.tags
    links = [value for _, name, value in reader.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert links
    assert all(value.startswith("data:") for value in links)
    assert not re.search(r"url\(|@import", html(report, samples, {}))


def test_pictures_are_embedded_whole_and_in_both_themes(report, samples, images):
    page = html(report, samples, images)
    embedded = {base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([^\"]+)", page)}
    assert embedded >= {content for name, content in images.items() if not name.startswith("probe")}


def test_every_figure_and_table_has_a_line_that_says_what_it_means(report, samples, images):
    page = html(report, samples, images)
    assert page.count("<figcaption>") == page.count('<span class="meaning">')
    shown = [table for table in page.split("<table")[1:] if "</table>" in table]
    assert all('class="meaning"' in table.split("</table>")[1][:60] for table in shown)
    text = seen(page)
    for line in MEANINGS.values():
        if line not in (MEANINGS["largest residuals"], MEANINGS["doubtful values"]):
            assert line in text


def test_numbers_are_residuals_and_no_labels(report, samples, images):
    report["mistakes"] = {"task": "regression", "how": "held out", "n": 40, "mean_absolute": 2.0}
    report["neighbors"] = {"n": 300, "difference": 3.21, "spread": 13.2, "good": 5, "bad": 2}
    samples["errors"][0] |= {"label": "12.5", "predicted": "40.1", "residual": -27.6}
    del samples["errors"][0]["certainty"]
    samples["map"]["value"] = [1.5] * 60
    text = seen(html(report, samples, images))
    assert "The largest residuals off by −27.6 12.5 predicted 40.1" in text
    assert "the mean of the five nearest is 3.21 off on average; the target spreads by 13.2" in text
    assert "colored by its number" in text
    assert "share the label" not in text


def test_one_input_shares_nothing(report, samples):
    report["reuse"] = {"text": {"read": 3}}
    text = seen(html(report, samples, {}))
    assert "What the inputs share" not in text
    assert "The alignment" in text


def test_what_is_so_is_written_as_in_a_job_file(report):
    report["lineage"] = {"dirty": True}
    cells = " ".join(re.sub(r"<[^>]*>", " ", html(report, {}, {})).split())
    assert "dirty true" in cells
    assert "dirty True" not in cells


@pytest.mark.parametrize("absent", ["name", "rows", "alignment", "retrieval", "probe", "speed", "neighbors", "lineage"])
def test_any_part_may_be_absent(report, samples, absent):
    without = copy.deepcopy(report)
    del without[absent]
    assert seen(html(without, samples, {}))
    assert seen(html({absent: report[absent]}, {}, {}))


def test_an_empty_report_makes_a_page():
    assert "Nothing to judge by" in seen(html({}, {}, {}))


def test_without_target_there_is_no_probe_section(report, samples):
    del report["probe"]
    assert "Did averaging help?" not in seen(html(report, samples, {}))


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "</style></title><svg onload=alert(1)>",
    "\u202eمرحبا שלום\u202c",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "x" * 10_000,
    "lone \ud800 surrogate \x00\x1b[31m control",
    "$\\frac{1}{$ & | `code` [link](javascript:alert(1))",
    "",
]


def hostile_everywhere(node, text):
    """The report with every value that is a word replaced."""
    if isinstance(node, dict):
        return {key: value if key == "metric" else hostile_everywhere(value, text) for key, value in node.items()}
    if isinstance(node, list):
        return [hostile_everywhere(value, text) for value in node]
    return text if isinstance(node, str) else node


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_texts(report, samples, text):
    harmless = Reader(html(report, samples, {}))
    hostile, shown = hostile_everywhere(report, text), hostile_everywhere(samples, text)
    hostile["rows"]["bad"] = {text: 1}
    hostile["speed"] = {text: report["speed"]["embed text"]}
    hostile["probe"]["candidates"][text] = {"complete": 0.5, text: 0.4}
    hostile["retrieval"][f"{text}->b"] = {"r1": 0.5}
    hostile["lineage"] = {text: {text: text}}
    hostile["mistakes"]["confusion"]["labels"] = [text, None]
    page = html(hostile, shown, {f"{text}.png": b"\x89PNG"})
    page.encode("utf-8")
    reader = Reader(page)
    assert set(reader.tags) <= set(harmless.tags) | {"figure", "picture", "source", "figcaption", "img"}
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    assert "49" not in seen(html({"name": text}, {}, {}))
    assert len(page) < 300_000
    assert max(len(word) for word in seen(page).split()) <= 500


def test_a_thumbnail_that_is_no_picture_is_left_out(report, samples):
    page = html(report, samples, {})
    assert page.count("data:image/jpeg;base64,") == 3
    samples["neighbors"][0]["thumbnail"] = samples["errors"][0]["thumbnail"] = "PHN2Zy8+"
    page = html(report, samples, {})
    assert page.count("data:image/jpeg;base64,") == 1
    assert "PHN2Zy8+" not in page
