"""Text that a user or a developer reads uses the words of docs/glossary.md.

The retired words are those in code marks in the third column of its tables. To see where they are
used: python -m pytest tests/test_glossary.py --runxfail
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"

# Turns of phrase that are hard to read, and what to write instead.
TURNS = {
    "lest": "so that ... not",
    "whichever": "any, or name the thing",
    "so many": "the number",
    "by itself": "automatically, or alone",
    "by themselves": "automatically, or alone",
}
# Where a retired word has another meaning: a pattern and the reason.
EXCEPTIONS = {
    r"\bcopies of\b": "followed by what was copied: how near-duplicates are explained",
    r"\b(transformed|rotated) copies\b": "how test-time augmentation is explained",
    r"\bcopies (the|a|its|every|each|images|rows|columns|into|from)\b": "the verb, of memory",
    r"\bviews (the|a|its)\b": "the verb",
    r"\bspread (the|its|them|over|across)\b": "the verb, of work over machines",
    r"\bmake sure\b": "the idiom",
    r"\b(two|three|several|many|both|different) ways\b": "in the plain meaning",
    r"\bways to\b": "in the plain meaning",
    r"\b(neighbours'?|counts of|majority|weighted) votes\b": "of nearest neighbours and pairs",
    r"\bvotes weighted\b": "of nearest neighbours",
    r"\bmemory leaks?\b": "of memory, not of data",
    r"\bdrawn signs\b": "traffic signs and the like, as the subject of an image",
    r"\bthe file ends before the picture does\b": "a reason in images.csv of version 0.1",
}
# Attributes of HTML that a reader sees or hears.
SPOKEN = ("title", "alt", "aria-label", "placeholder", "data-label")


class Use(NamedTuple):
    """A retired word in a file."""

    file: str
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word!r}: say {self.instead}"


class Text(NamedTuple):
    """A text that somebody reads, and the line on which it begins."""

    line: int
    content: str


# --- the retired words -------------------------------------------------------------------------


def read_rows(markdown: str) -> list[list[str]]:
    """The cells of every row of the glossary's tables, without the headings."""
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if row[0] != "word"]


def read_retired(markdown: str) -> dict[str, str]:
    """Retired word -> the word to say."""
    retired = {}
    for say, _, instead in read_rows(markdown):
        for word in re.findall(r"`([^`]+)`", instead):
            retired[word] = f"{retired[word]}; {say}" if word in retired else say
    return retired


RETIRED = read_retired(GLOSSARY.read_text()) | TURNS


def make_pattern(words: list[str]) -> re.Pattern[str]:
    """One pattern for all words, longest first, in the singular and the plural."""
    longest_first = sorted(words, key=len, reverse=True)
    escaped = [re.escape(word).replace(r"\ ", r"\s+") for word in longest_first]
    return re.compile(rf"(?<![\w-])({'|'.join(escaped)})(?:s|es)?(?![\w-])", re.IGNORECASE)


PATTERN = make_pattern(list(RETIRED))


def find_uses(file: str, texts: Iterator[Text]) -> list[Use]:
    """Retired words in the texts of a file."""
    uses = []
    for text in texts:
        if not PATTERN.search(text.content):
            continue  # the exceptions take most of the time
        content = re.sub(r"`[^`\s]+`", blank, text.content)  # names of files, fields and options
        for exception in EXCEPTIONS:
            pattern = exception.replace(" ", r"\s+")
            content = re.sub(pattern, blank, content, flags=re.IGNORECASE)
        for match in PATTERN.finditer(content):
            line = text.line + content.count("\n", 0, match.start())
            word = " ".join(match.group(1).lower().split())
            uses.append(Use(file, line, word, RETIRED[word]))
    return uses


def blank(match: re.Match[str]) -> str:
    """The match with every character but line ends replaced by a full stop."""
    return re.sub(r"[^\n]", ".", match.group())


# --- the texts of a file -----------------------------------------------------------------------


def is_prose(value: str) -> bool:
    """Whether a string is text; a string without a space is a key, unless it is a heading."""
    return " " in value.strip() or bool(re.fullmatch(r"[A-Z][a-z-]+", value))


# The line of names above the description of parameters or fields in a numpydoc docstring.
PARAMETER_NAMES = re.compile(r"^( *)\*{0,2}[a-z]\w*(, \*{0,2}[a-z]\w*)*$(?=\n\1 +\S)", re.MULTILINE)


def read_python(source: str) -> Iterator[Text]:
    """Strings, docstrings and comments."""
    parts: set[int] = set()  # of f-strings: ast.walk comes to an f-string before its parts
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.JoinedStr(values=values):
                parts |= {id(value) for value in values}
                pieces = [v.value if isinstance(v, ast.Constant) else "{}" for v in values]
                yield Text(node.lineno, "".join(pieces))
            case ast.Constant(value=str(text)) if id(node) not in parts and is_prose(text):
                yield Text(node.lineno, PARAMETER_NAMES.sub(blank, text))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(token.start[0], token.string)


def read_template(source: str) -> Iterator[Text]:
    """What an HTML template shows, and its comments."""

    def show_code(match: re.Match[str]) -> str:
        code = match.group()
        kept = [s for s in re.findall(r"\"[^\"]*\"|'[^']*'", code) if is_prose(s[1:-1])]
        return " ".join(kept) + "\n" * (code.count("\n") - " ".join(kept).count("\n"))

    def show_tag(match: re.Match[str]) -> str:
        tag = match.group()
        kept = re.findall(rf"\b(?:{'|'.join(SPOKEN)})=\"([^\"]*)\"", tag)
        return " ".join(kept) + "\n" * (tag.count("\n") - " ".join(kept).count("\n"))

    source = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", show_code, source, flags=re.DOTALL)
    yield Text(1, re.sub(r"</?[a-zA-Z][^<>]*>", show_tag, source))


SCRIPT = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`""", re.DOTALL
)


def read_script(source: str) -> Iterator[Text]:
    """Comments and strings of a script or a style sheet."""
    for match in SCRIPT.finditer(source):
        token = match.group()
        if token.startswith("/") or is_prose(token[1:-1]):
            yield Text(source.count("\n", 0, match.start()) + 1, token.replace("`", '"'))


def read_markdown(source: str) -> Iterator[Text]:
    """A page without the targets of its links and without comments."""
    source = re.sub(r"\]\([^)]*\)|<!--.*?-->", blank, source, flags=re.DOTALL)
    yield Text(1, source)


def read_glossary(source: str) -> Iterator[Text]:
    """The glossary without its third column."""
    for n, line in enumerate(source.splitlines(), start=1):
        yield Text(n, line.rsplit("|", 2)[0] if line.startswith("| ") else line)


def read_changelog(source: str) -> Iterator[Text]:
    """The newest entry."""
    entries = source.split("\n## ")
    line = entries[0].count("\n") + 2
    yield from (Text(line, text.content) for text in read_markdown(entries[1]))


READERS = {
    ".py": read_python,
    ".j2": read_template,
    ".js": read_script,
    ".css": read_script,
    ".md": read_markdown,
}


def list_files() -> list[Path]:
    """Every file with text that a user or a developer reads."""
    folders = ("fishfeat", "cli", "docs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return sorted(path for path in files if path.suffix in READERS)


def check_file(path: Path) -> list[Use]:
    """Retired words in one file."""
    readers = {"glossary.md": read_glossary, "CHANGELOG.md": read_changelog}
    read = readers.get(path.name, READERS[path.suffix])
    return find_uses(path.relative_to(ROOT).as_posix(), read(path.read_text()))


# --- tests -------------------------------------------------------------------------------------


def test_no_retired_word_comes_back():
    uses = [use for path in list_files() for use in check_file(path)]
    assert not uses, f"{len(uses)} retired words:\n" + "\n".join(map(str, uses))


def test_the_glossary_retires_the_words_that_it_should():
    retired = read_retired(GLOSSARY.read_text())
    assert len(retired) > 50
    assert retired["picture"] == "image"
    assert retired["spread"] == "standard deviation (std)"
    assert all(row[0] and row[1].endswith(".") for row in read_rows(GLOSSARY.read_text()))


def test_every_exception_has_a_reason():
    assert all(reason for reason in EXCEPTIONS.values())


@pytest.mark.parametrize(
    ("read", "source", "line", "word"),
    [
        (read_python, 'x = 1\nraise ValueError(f"{x} pictures of\\n one")', 2, "picture"),
        (read_python, 'def f():\n    """Short.\n\n    No siblings\n    """', 4, "sibling"),
        (read_python, "x = 1\ny = 2  # what mends it", 2, "mends"),
        (read_python, 'title = "Sharpness"', 1, "sharpness"),
        (read_template, "<p>\n{{ a.views }} belong\ntogether</p>", 2, "belong together"),
        (read_template, '<p\n title="Doubtful labels">', 1, "doubtful label"),
        (read_template, "{{ 'no pictures' if x }}", 1, "picture"),
        (read_script, "let a = 1;\n// in force\n", 2, "in force"),
        (read_script, 'let text = "3 pictures";', 1, "picture"),
        (read_markdown, "# Title\n\nIt is named\nrightly.", 3, "named rightly"),
        (read_glossary, "| picture | An image. | `pictures` |", 1, "picture"),
        (read_changelog, "# Changelog\n\n## 2\n\n- views\n\n## 1\n\n- pictures", 5, "views"),
    ],
)
def test_a_retired_word_is_found_with_its_line(read, source, line, word):
    uses = find_uses("file", read(source))
    assert [(use.line, use.word) for use in uses] == [(line, word)]


@pytest.mark.parametrize(
    ("read", "source"),
    [
        (read_python, 'KEYS = ("views", "half-read", "copies.csv")'),
        (read_python, 'views = spec["views"]  # the key `views` of files of version 0.1'),
        (read_python, '"""Copies of\n one photograph."""'),
        (read_python, '"""Title.\n\n    clf, views\n        All runs.\n    """'),
        (read_template, '<p class="suspects">{{ suspects.views }}</p>'),
        (read_script, 'let spread = data["spread"];'),
        (read_markdown, "See `copies.csv` and [the page](pictures.md)."),
        (read_glossary, "| image | One file. | `pictures` |"),
        (read_changelog, "# Changelog\n\n## 2\n\n- images\n\n## 1\n\n- pictures"),
    ],
)
def test_keys_and_explained_uses_are_no_retired_words(read, source):
    assert find_uses("file", read(source)) == []
