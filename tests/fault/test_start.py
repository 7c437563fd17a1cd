# SPDX-License-Identifier: Apache-2.0
"""What can go wrong while netstar starts, however fit the machine looked a moment before."""
import json
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "live"))
from frames import conversation, write_pcap  # noqa: E402
from lab import netstar_binary  # noqa: E402

PROMISED = os.path.join(os.path.dirname(netstar_binary()), "tests", "fault", "promised_pages.so")
PAGES = "/sys/kernel/mm/hugepages"


def without_huge_pages(argv):
    """The command, run where DPDK finds no huge page."""
    try:
        with open(f"{PAGES}/hugepages-2048kB/free_hugepages", encoding="ascii") as f:
            free = int(f.read())
    except OSError:
        free = 0
    if free == 0:
        return argv
    if os.geteuid() != 0:
        pytest.skip("this machine has huge pages, which only root can hide")
    return ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {PAGES} && exec "$@"', "sh", *argv]


def test_huge_pages_that_go_to_others_meanwhile(tmp_path):
    """They are there when they are tried, and gone when DPDK starts: it starts again without, and does its work."""
    write_pcap(str(tmp_path / "in.pcap"), conversation(40000, [b"GET / HTTP/1.1\r\n\r\n"], [b"an answer"]))
    (tmp_path / "rules").write_text("id=1 action=drop content=\"attack\" msg=\"m\"\n")
    command = ["env", f"LD_PRELOAD={PROMISED}", netstar_binary(), "run", "ips", "-r", "in.pcap", "-w", "out.pcap",
               "--rules", "rules", "--alerts", "alerts", "--report", "-"]
    asan = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    done = subprocess.run(without_huge_pages(command), env={**os.environ, "ASAN_OPTIONS": asan},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=80, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("others took the huge pages meanwhile") == 1
    assert "packet buffers in ordinary pages" in done.stderr and "error" not in done.stderr
    report = json.loads(done.stdout)
    assert report["engine"]["forwarded"] == report["engine"]["packets"] > 0
    assert (tmp_path / "out.pcap").stat().st_size == (tmp_path / "in.pcap").stat().st_size
