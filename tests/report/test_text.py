import pytest
from markupsafe import Markup

from fishfeat.report import text
from fishfeat.report.output.html import finalize_value


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Röhren-Aal 鰻 𝒜.png", "Röhren-Aal 鰻 𝒜.png"),
        ("a\tb\r\n", "a\\tb\\r\\n"),
        ("x\udcff", "x\\xff"),
        ("x\ud800", "x\\ud800"),
        ("a\u202eb\u2028", "a\\u202eb\\u2028"),
    ],
)
def test_only_invisible_characters_are_escaped(given, expected):
    assert text.escape_invisible(given) == expected
    assert text.escape_invisible(given).encode()


def test_markup_and_numbers_pass_through():
    assert finalize_value(Markup("a\nb")) == "a\nb"
    assert finalize_value(3) == 3


def test_numbers_read_well():
    gap = "\N{NO-BREAK SPACE}"
    assert text.percent(0.8649) == "86.5"
    assert text.percent(None) == "–"
    assert text.interval((0.801, 0.912)) == "80.1–91.2"
    assert text.points(-0.012) == "−1.2"
    assert text.duration(0.417) == f"0.42{gap}s"
    assert text.duration(192) == f"3{gap}min 12{gap}s"
    assert text.bytes_size(9211) == f"9.2{gap}kB"
    assert text.count(1, "class", plural="classes") == "1 class"
    assert text.count(1002, "image") == "1,002 images"
    assert text.join_items(["a", "b", "c"]) == "a, b and c"
    assert text.join_items(["a, 1", "b, 2", "c"]) == "a, 1; b, 2 and c"
    assert text.join_items(["1,002", "3", "4"]) == "1,002, 3 and 4"
    assert text.list_first(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert [text.gigaflops(flops) for flops in (1.9e12, 3e8, None)] == ["1,900", "0.3", "–"]
    assert [text.setting(value) for value in (1e6, True, 3, "flip")] == [
        "1e+06",
        "yes",
        "3",
        "flip",
    ]
    assert text.metric("log_loss", 0.31051) == "0.311"
