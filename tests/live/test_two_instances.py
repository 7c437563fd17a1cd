# SPDX-License-Identifier: Apache-2.0
"""docs/two-instances.md: its commands, typed one after another, do what it says."""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess

import pytest
from lab import ROOT, netstar_binary, run, sweep

HOWTO = os.path.join(ROOT, "docs", "two-instances.md")


def commands():
    with open(HOWTO, encoding="utf-8") as f:
        return "\n".join(re.findall(r"^```sh\n(.*?)^```$", f.read(), re.M | re.S))


def sweep_away(lab):
    """What is left when a command has failed: only what runs in the how-to's own namespaces."""
    for name in ("client", "server", "edge"):
        ns = f"{lab}-{name}"
        if os.path.exists(f"/run/netns/{ns}"):
            for pid in run("ip", "netns", "pids", ns).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            run("ip", "netns", "del", ns, check=False)


@pytest.mark.timeout(300)
def test_the_commands_do_what_the_text_says(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server here")
    sweep()
    lab, tools = f"nslab{os.getpid()}-h", tmp_path / "tools"
    tools.mkdir()
    os.symlink(netstar_binary(), tools / "netstar")
    env = {**os.environ, "LAB": lab, "DIR": str(tmp_path / "dir"), "PATH": f"{tools}:{os.environ['PATH']}"}
    try:
        with open(tmp_path / "out", "wb") as out:
            p = subprocess.Popen(["bash", "-euo", "pipefail", "-x", "-c", commands()], stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=out, env=env, start_new_session=True)
            try:
                status = p.wait(280)
            finally:
                if p.poll() is None:
                    p.kill()
                    p.wait()
        text = (tmp_path / "out").read_text(errors="replace")
        logs = "\n".join(f"== {n}\n{(tmp_path / 'dir' / n).read_text(errors='replace')[-3000:]}"
                         for n in ("edge1.log", "edge2.log") if (tmp_path / "dir" / n).exists())
        assert status == 0, text[-6000:] + logs
        assert re.search(r"^edge1 .* alive$", text, re.M) and re.search(r"^edge2 .* alive$", text, re.M)
        assert "2 rules, were 1" in text
        reports = [json.loads((tmp_path / "dir" / f"edge{n}.json").read_text()) for n in (1, 2)]
        assert all(r["buffers"]["whole"] for r in reports), reports
        assert reports[1]["module"]["directions_taken_over"] >= 3, reports[1]["module"]
    finally:
        sweep_away(lab)
