"""Report wording in documents, docstrings, comments and messages that a newcomer to the project would not understand.

Usage::

    python tools/check_language.py                 # every tracked file; one line per finding
    python tools/check_language.py --counts        # number of findings per file, most first
    python tools/check_language.py PATH [PATH ...] # these files or folders only

Each finding reads ``path:line: 'words' -> suggestion``. The exit status is 1 if there is any finding, otherwise 0.

Checked are Markdown, templates, configuration files and shell scripts line by line, and, in Python files, docstrings,
comments and string literals of more than one word. Text between backticks is code and is not checked. To change what is
reported, edit `RULES` and `DOCSTRING_OPENERS`. A line that has to keep a word, such as a name that earlier versions of
the program wrote, ends with the comment ``language: ok``.
"""

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT_SUFFIXES = {".md", ".toml", ".yml", ".yaml", ".j2", ".txt", ".sh", ".cff", ".def", ""}
SKIPPED = {"LICENSE", "tools/check_language.py"}
EXEMPTION = "language: ok"

# Nouns of "a row a structure", which is English for "a row per structure" only in this project.
COUNTED = "row|line|voxel|file|page|process|pass|column|value|name|call|folder|entry|image"
COUNTING = "structure|level|subject|disc|vertebra|voxel|step|session|column|participant|patch|case|row|line|file"
# Pattern of the words (case is ignored), and what to write instead.
RULES = (
    (r"witness(es|ed|ing)?", "evidence"),
    (r"hearsay|deaf(ness)?|unheard|second opinion", "evidence of other images; ignored; cross-check"),
    (r"(level )?scouts?", "level prior"),
    (r"pric(e|es|ed|ing)", "weight, cost, negative log-likelihood"),
    (r"looks(?! (like|up|for|at|as))", "test-time augmentation, passes"),
    (r"tells?|telling|told", "report, distinguish, state"),
    (r"yielding", "low-priority"),
    (r"(take|takes|taken|taking|took) (over|back)", "use, apply, inherit; reject"),
    (r"shar(e|es|ed) out|hand(s|ed)? out", "assign, return"),
    (r"(is|are|was|were) parted|part(s|ed)? (neighbouring|neighboring|vertebrae)", "separate"),
    (r"(the|this|whole) house|rooms?", "architecture, package"),
    (r"paint(s|ed|ing|er|ers)?", "draw, write, label"),
    (r"(what|that|which) (is|was|are) wanted|wanted", "requested, selected, region of interest"),
    (r"goes by|go by", "depends on, uses"),
    (r"whoever|whosoever|whatsoever", "code that, anyone who"),
    (r"say(s|ing)? (what|which) ", "show, list, describe"),
    (r"stands? (above|below|beside|in for)", "is above, replaces"),
    (r"not to be had|to be had", "not available"),
    (r"anew", "again"),
    (r"err(s|ed)?(?=[ .,;])(?! on )", "is wrong"),
    (r"\blent\b|borrow(s|ed|ing)?", "reuse, pass"),
    (r"ways? on\b(?! the)", "what to do next"),
    (r"last word", "summary line"),
    (r"shall", "must, does"),
    (
        r"(one|seconds|minutes|bytes|once|twice) (\w+ )?an (image|axis|epoch|edge)|a (row|file|page|line) an image",
        "per image",
    ),
    (rf"(one|a) ({COUNTED}) a ({COUNTING})", "one row per structure"),
    (r"tried and (not|never) (shipped|kept)", "leave history to git"),
)
# A docstring starts with a verb or, for a module or class, a noun; not with a clause or a question.
DOCSTRING_OPENERS = (
    r"(What|Whether|Which|Where|Who|Whose|How|If|Is|Are|Does|Do|Did|Has|Have|Can|Of|To|That|Those|Told)\b"
)


def compiled_rules() -> list[tuple[re.Pattern[str], str]]:
    """Compile `RULES` to patterns of whole words."""
    return [(re.compile(rf"(?<![\w./-])(?:{pattern})(?![\w/])", re.IGNORECASE), advice) for pattern, advice in RULES]


def without_code(text: str) -> str:
    """Remove text between backticks and link targets, keeping the line breaks."""
    text = re.sub(r"``?[^`\n]*``?", "", text)
    return re.sub(r"\]\([^)\n]*\)", "]", text)


def python_passages(source: str) -> Iterator[tuple[int, str, bool]]:
    """Yield line number, text and whether it is a docstring, for each comment, docstring and message of a module."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string, False
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings.add(first.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value, node in docstrings


def passages(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Yield line number, text and whether it is a docstring, for each passage of a file that people read."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from python_passages(source)
        return
    fenced = False
    for number, line in enumerate(source.splitlines(), start=1):
        if path.suffix == ".md" and line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced or "#" in line:
            yield number, line, False


def findings(path: Path, rules: list[tuple[re.Pattern[str], str]]) -> list[tuple[int, str, str]]:
    """List line number, words and suggestion for each finding in a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = set()
    for first_line, passage, is_docstring in passages(path):
        text = without_code(passage)
        opener = re.match(DOCSTRING_OPENERS, text) if is_docstring else None
        if opener:
            found.add((first_line, opener[0], "start the docstring with a verb or a noun"))
        for pattern, advice in rules:
            for match in pattern.finditer(text):
                found.add((first_line + text.count("\n", 0, match.start()), match[0], advice))
    return sorted(item for item in found if EXEMPTION not in lines[min(item[0], len(lines)) - 1])


def tracked_files(roots: list[Path]) -> list[Path]:
    """List the files under `roots` that git tracks and that hold text."""
    command = ["git", "ls-files", "-z", "--", *map(str, roots)]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    paths = [ROOT / name for name in names if name and name not in SKIPPED]
    return [path for path in paths if path.is_file() and (path.suffix == ".py" or path.suffix in TEXT_SUFFIXES)]


def main(arguments: list[str] | None = None) -> int:
    """Print the findings and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("paths", nargs="*", type=Path, help="files or folders; default: all tracked files")
    parser.add_argument("--counts", action="store_true", help="print the number of findings per file")
    options = parser.parse_args(arguments)
    rules = compiled_rules()
    by_file = {
        path.relative_to(ROOT): findings(path, rules) for path in tracked_files([p.resolve() for p in options.paths])
    }
    if options.counts:
        for path, count in Counter({path: len(found) for path, found in by_file.items() if found}).most_common():
            print(f"{count:5d} {path}")
    else:
        for path, found in by_file.items():
            for line, words, advice in found:
                print(f"{path}:{line}: {words!r} -> {advice}")
    return 1 if any(by_file.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
