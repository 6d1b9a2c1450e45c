"""Snapshot.to_html(): hostile names stay text, and a real browser finds its way."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support import paused

from nsutil import USER, UTS, snapshot
from nsutil._tree import KINDS

HOSTILE = [
    "</script><script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "<!--<script>",
    "\" onload='window.hit=1' &amp;&lt;b&gt;",
    "\x1b[31m\u202e\u2028",
    "@@DATA@@ @@TREE@@",
]


@contextlib.contextmanager
def hostile() -> Iterator[int]:
    """A process in its own namespaces whose command line is an attack."""
    code = "import nsutil, time; nsutil.unshare(nsutil.USER | nsutil.UTS); print(flush=True); time.sleep(60)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", code, *HOSTILE, os.fsdecode(b"\xff\xfe")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


class Elements(HTMLParser):
    """What a browser would make of a page: tags, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


def data_of(text: str) -> dict[str, Any]:
    """The page's own copy of the snapshot."""
    found = json.loads(Elements(text).scripts[0])
    assert isinstance(found, dict)
    return found


def test_hostile_commands_stay_text() -> None:
    with hostile() as pid:
        snap = snapshot()
        text = snap.to_html()
    elements = Elements(text)
    template = Elements(snap.filter("false").to_html())
    assert [tag for tag, _ in elements.tags] == [tag for tag, _ in template.tags]
    assert not [attributes for tag, attributes in elements.tags if tag == "img" or "onload" in attributes]
    command = snap.of(pid)[UTS].command
    assert command is not None
    assert all(word in command for word in HOSTILE)
    assert command.endswith(r"\xff\xfe")
    assert command in [row["command"] for row in data_of(text)["namespaces"]]
    assert text.encode().decode() == text


def test_the_page_needs_nothing_else() -> None:
    text = snapshot().to_html()
    for tag, attributes in Elements(text).tags:
        assert tag not in ("img", "iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "data:,") == "data:,"
    assert "default-src 'none'" in text
    # The page without rows: the command lines of this machine may hold any of these words.
    text = snapshot().filter("false").to_html()
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp|innerHTML|document\.write|eval\(", text)


def test_the_page_holds_the_snapshot() -> None:
    with paused(USER | UTS):
        snap = snapshot()
    data = data_of(snap.to_html())
    plain = json.loads(snap.to_json())["namespaces"]
    assert [(row["type"], row["inode"]) for row in data["namespaces"]] == [(row["type"], row["inode"]) for row in plain]
    assert data["unseen"] == snap.unseen
    assert set(data["trees"]) == set(KINDS)
    for rows in data["trees"].values():
        assert sorted(row[0] for row in rows if row[0] >= 0) == list(range(len(plain)))
        assert all(above < number for number, (_, above, _, _) in enumerate(rows))


def test_in_a_notebook_it_is_a_frame_of_its_own() -> None:
    with hostile():
        snap = snapshot()
        frame = snap._repr_html_()
    ((tag, attributes),) = Elements(frame).tags
    assert tag == "iframe"
    assert attributes["sandbox"] == "allow-scripts"
    assert attributes["srcdoc"] == unescape(snap.to_html()) or attributes["srcdoc"] == snap.to_html()


def test_a_snapshot_of_nothing_has_a_page() -> None:
    assert data_of(snapshot().filter("false").to_html())["namespaces"] == []


# In a browser. The steps run in the page itself, and leave what they saw as text.

STEPS = """
<pre id="seen"></pre>
<script>
const seen = {};
const all = (selector, box = document) => [...box.querySelectorAll(selector)];
const labels = () => all("#tree .name").filter(name => name.offsetParent).map(name => name.textContent);
const search = document.getElementById("search");
const type = text => { search.value = text; search.dispatchEvent(new Event("input")); };
seen.first = labels();
all("#tree .fold")[0].click();
seen.folded = labels();
all("#tree .fold")[0].click();
seen.unfolded = labels();
for (const by of ["parent", "process", "owner"]) {
  document.querySelector("input[value=" + by + "]").click();
  seen[by] = labels();
}
type("@PID@");
seen.found = labels();
seen.count = document.getElementById("found").textContent;
seen.marks = all("#tree mark").map(mark => mark.textContent);
all("#tree .name").find(name => name.textContent.startsWith("uts:")).click();
seen.details = document.getElementById("details").textContent;
seen.chosen = all("#tree .chosen").length;
all("#details dd button")[0].click();
seen.owner = document.querySelector("#details h2").textContent;
type("nothing has this name");
seen.none = labels();
document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"}));
seen.again = labels();
seen.hit = window.hit === undefined;
document.getElementById("seen").textContent = JSON.stringify(seen);
</script>
</body>"""


def browse(text: str, tmp_path: Path) -> tuple[dict[str, Any], str]:
    """What the steps saw, and what the console said."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium")
    page = tmp_path / "page.html"
    page.write_text(text, encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    return json.loads(unescape(found[1])), "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.slow
def test_in_a_browser(tmp_path: Path) -> None:
    with hostile() as pid:
        snap = snapshot()
    seen, console = browse(snap.to_html().replace("</body>", STEPS.replace("@PID@", str(pid))), tmp_path)
    assert console == ""
    assert seen["hit"] is True, "a command line was run"
    names = sorted(map(str, snap.namespaces))
    for step in ("first", "unfolded", "owner", "parent", "process", "again"):
        if step != "owner":
            assert sorted(word for label in seen[step] for word in re.findall(r"\w+:\[\d+\]", label)) == names, step
    assert len(seen["folded"]) < len(seen["first"])
    user, uts = snap.of(pid)[USER], snap.of(pid)[UTS]
    shown = {word for label in seen["found"] for word in re.findall(r"\w+:\[\d+\]", label)}
    assert {str(user), str(uts)} <= shown
    assert len(shown) < len(names)
    assert str(pid) in seen["marks"]
    assert re.fullmatch(r"\d+ namespaces? found", seen["count"])
    assert seen["chosen"] == 1
    assert HOSTILE[0] in seen["details"]
    assert seen["owner"] == str(user)
    assert seen["none"] == []
