"""Numbers and names as text for people."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

# Controls, bidirectional overrides, lone surrogates, unassigned, line and paragraph separators.
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_GAP = "\N{NO-BREAK SPACE}"


def escape_invisible(text: str) -> str:
    """Text with every invisible character escaped.

    File names may hold line breaks, direction marks and bytes that are not UTF-8.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape_character(character) for character in text)


def _escape_character(character: str) -> str:
    if unicodedata.category(character) not in _INVISIBLE:
        return character
    if "\udc80" <= character <= "\udcff":  # a byte that Python could not decode
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def percent(share: float | None) -> str:
    """'86.5' for 0.865, '–' for None; the unit is in the heading."""
    return "–" if share is None else f"{100 * share:.1f}"


def percent_sign(share: float) -> str:
    """'86.5 %' for 0.865."""
    return f"{percent(share)}{_GAP}%"


def interval(ends: Sequence[float] | None) -> str:
    """'80.1–91.2' for (0.801, 0.912), '' for None."""
    return "" if ends is None else f"{percent(ends[0])}–{percent(ends[1])}"


def points(difference: float | None) -> str:
    """'+11.6' for 0.116, with a true minus sign."""
    return "–" if difference is None else f"{100 * difference:+.1f}".replace("-", "−")


def metric(name: str, value: float) -> str:
    """A metric by name: rates in per cent, log loss as it is."""
    return f"{value:.3f}" if name == "log_loss" else percent_sign(value)


def p_value(p: float | None) -> str:
    """'0.034', '< 0.001', '–' for None."""
    if p is None:
        return "–"
    return f"<{_GAP}0.001" if p < 0.001 else f"{p:.3f}"


def loss(number: float | None) -> str:
    """'0.123', '–' for None."""
    return "–" if number is None else f"{number:.3f}"


def integer(number: float | None) -> str:
    """'1,002' for 1002."""
    return "–" if number is None else f"{number:,.0f}"


def mean_count(number: float | None) -> str:
    """'12' for 12, '12.3' for the mean 12.333 of several repeats."""
    if number is None or float(number).is_integer():
        return integer(number)
    return f"{number:,.1f}"


def count(number: int, noun: str, *, plural: str = "") -> str:
    """'1 image', '1,002 images'."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def span(low: float, high: float) -> str:
    """'31 to 351', '300' where both are equal."""
    return integer(low) if integer(low) == integer(high) else f"{integer(low)} to {integer(high)}"


def duration(seconds: float | None) -> str:
    """'0.42 s', '12.3 s', '3 min 12 s'."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.{2 if seconds < 10 else 1}f}{_GAP}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}{_GAP}min {rest}{_GAP}s"


def gigaflops(flops: float | None) -> str:
    """'1,900' for 1.9e12, '0.3' for 3e8, '–' for None; the unit is in the heading."""
    if flops is None:
        return "–"
    return f"{flops / 1e9:,.{1 if flops < 1e10 else 0}f}"


def setting(value: str | float | None) -> str:
    """'0.0003' for 3e-4, 'yes' for True: the value of a setting of a recipe."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def bytes_size(n_bytes: float) -> str:
    """'9.2 kB', '31.0 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f}{_GAP}B" if unit == "B" else f"{n_bytes:.1f}{_GAP}{unit}"


def join_items(items: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'; 'a, 1; b, 2 and c' where an item has a comma itself."""
    *head, last = items
    separator = "; " if any(", " in item for item in (*head, last)) else ", "
    return f"{separator.join(head)} and {last}" if head else last


def list_first(items: Sequence[str], n: int = 5) -> str:
    """'a, b and c', or 'a, b, c, d, e and 7 more'."""
    if len(items) <= n:
        return join_items(items)
    return join_items([*items[:n], f"{len(items) - n} more"])


def end_sentence(text: str) -> str:
    """The text with a full stop at its end."""
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else text + "."
