# SPDX-License-Identifier: Apache-2.0
"""docs/api.md names every public name, and every public function has a comment in its header."""
import glob
import os
import re

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HEADERS = sorted(glob.glob(os.path.join(ROOT, "include", "netstar", "*.h")))
API = os.path.join(ROOT, "docs", "api.md")


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def without_comments(text):
    return re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.S)


def functions(text):
    """The declarations of exported functions, and inline ones: name, offset."""
    code = without_comments(text)
    for m in re.finditer(r"^(?:NST_API|static inline) (?!extern)[^;{]*?\b(nst_\w+)\(", code, flags=re.M):
        yield m[1], m.start()


def names(text):
    """Every public name of a header."""
    code = without_comments(text)
    found = {name for name, _ in functions(text)}
    found |= set(re.findall(r"^struct (nst_\w+)(?: \{|;)", code, flags=re.M))
    found |= set(re.findall(r"^#define (NST_\w+)", code, flags=re.M))
    for m in re.finditer(r"^enum (nst_\w+ )?\{(.*?)\}", code, flags=re.M | re.S):
        found |= set(re.findall(r"\bNST_\w+", m[2])) | ({m[1].strip()} if m[1] else set())
    found |= set(re.findall(r"^typedef \w+ (nst_\w+);", code, flags=re.M))
    for m in re.finditer(r"^NST_API extern [^;]*?(nst_\w+(?:, nst_\w+)*);", code, flags=re.M):
        found |= set(m[1].split(", "))
    return found


@pytest.mark.parametrize("header", HEADERS, ids=os.path.basename)
def test_every_name_is_in_the_reference(header):
    reference = set(re.findall(r"\b(?:nst|NST)_\w+", "\n".join(re.findall(r"`[^`]+`", read(API)))))
    assert names(read(header)) - reference == set()


def test_the_reference_names_nothing_else():
    public = set().union(*(names(read(h)) for h in HEADERS)) | {"nst_module"}
    mentioned = set(re.findall(r"\b(?:nst|NST)_\w+", "\n".join(re.findall(r"`[^`]+`", read(API)))))
    assert mentioned - public == set()


@pytest.mark.parametrize("header", HEADERS, ids=os.path.basename)
def test_every_header_begins_with_its_contract(header):
    text = read(header)
    name = os.path.relpath(header, os.path.join(ROOT, "include"))
    assert text.splitlines()[1].startswith(f"/* {name} - ")
    assert f"](../include/{name})" in read(API) or name == "netstar/netstar.h"


@pytest.mark.parametrize("header", HEADERS, ids=os.path.basename)
def test_every_function_has_a_comment(header):
    """Above it or beside it, without a blank line between, or at the head of its section."""
    text = read(header)
    for name, at in functions(text):
        above = text[:at].rsplit("\n\n", 1)[-1]
        beside = text[at:].split("\n", 1)[0]
        section = "/* ---- " in text[:at]
        assert "/*" in above or "/*" in beside or section, f"{os.path.basename(header)}: {name} has no comment"


def test_it_would_notice():
    text = "/* a.h - x */\n\nNST_API int nst_bare(void);\n\n/* Good. */\nNST_API void *nst_good(int a,\n    int b) NST_WAITS;\n"
    assert [name for name, _ in functions(text)] == ["nst_bare", "nst_good"]
    assert names("enum nst_e { NST_A, /* NST_NO */ NST_B };\n#define NST_C 1\nstruct nst_s;\nNST_API extern const int "
                 "nst_x, nst_y;\n") == {"nst_e", "NST_A", "NST_B", "NST_C", "nst_s", "nst_x", "nst_y"}


# ---- the other documents: what they name is there
DOCS = sorted(glob.glob(os.path.join(ROOT, "docs", "*.md")))


@pytest.mark.parametrize("doc", DOCS, ids=os.path.basename)
def test_links_lead_somewhere(doc):
    text = read(doc)
    headings = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, flags=re.M)}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if not path:
            assert anchor in headings, target
        elif "://" not in path:
            assert os.path.exists(os.path.join(os.path.dirname(doc), path)), target


@pytest.mark.parametrize("doc", DOCS, ids=os.path.basename)
def test_files_that_are_named_exist(doc):
    for path in re.findall(r"(?<![\w/])(?:src|include|nf|cli|tests|scripts|examples|docs|bench)/[\w./]*\w", read(doc)):
        if not path.startswith("nf/NAME"):
            assert os.path.exists(os.path.join(ROOT, path)), path


def test_functions_that_the_design_names_are_there():
    source = "".join(read(path) for pattern in ("src/*/*.[ch]", "include/netstar/*.h")
                     for path in glob.glob(os.path.join(ROOT, pattern)))
    defined = set(re.findall(r"\b(\w+)\(", without_comments(source)))
    named = set(re.findall(r"\b([a-z]\w+)\(\)", read(os.path.join(ROOT, "docs", "design.md"))))
    assert len(named) > 20 and named - defined == set()


def test_the_way_names_functions_in_their_files():
    """In the picture: `name()` followed by the file that it is in."""
    picture = read(os.path.join(ROOT, "docs", "design.md")).split("## A packet's way")[1].split("## ")[0]
    found = re.findall(r"\b(\w+)\(\)(?: +|[^()\n]*?→ +)(src/\w+/\w+\.[ch])", picture)
    assert len(found) >= 8
    for function, path in found:
        assert re.search(rf"\b{function}\(", read(os.path.join(ROOT, path))), (function, path)
