# SPDX-License-Identifier: Apache-2.0
"""The IPS on the underlay of tunnels, between real stacks that speak through them.

The kernel's own VXLAN where it has that; for every kind, also those that no kernel at hand has, ends of tunnels in
Python whose insides are the kernel's stacks (tunnels.py).
"""
import json
import os
import subprocess
import time

import pytest
from lab import DROPPED, RESET, LabError, NetStar, Process, entered, run, wait_for
from tunnels import KINDS, kernel_vxlan, tunnel

BLOB = os.urandom(400_000)
HOST = "10.99.0.2"


def curl(lab, path, *extra):
    with entered(lab.client):
        done = subprocess.run(["curl", "-sS", "--max-time", "20", "-o", "-", *extra, f"http://{HOST}{path}"],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=40)
    return done.returncode, done.stdout


def finish(netstar):
    status, report = netstar.interrupt()
    assert status == 0, netstar.text()
    return report["engine"]


@pytest.mark.parametrize("cores", ["1", "2"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_inside_is_inspected(lab, nginx, rules, kind, cores):
    nginx.add("inside", BLOB)
    with tunnel(lab, kind), NetStar(lab, "mem:", rules, extra=["--tunnels", "all", "--cores", cores]) as netstar:
        assert curl(lab, "/inside") == (0, BLOB)
        assert curl(lab, "/inside", "-H", f"X: {DROPPED.decode()}", "--max-time", "2")[0] != 0
        netstar.wait_alert(1001)
        if kind not in ("mpls", "gtpu"):  # there only the server hears of it
            started = time.monotonic()
            assert curl(lab, "/inside", "-H", f"X: {RESET.decode()}")[0] == 56, "a reset reaches the client"
            assert time.monotonic() - started < 15
        assert curl(lab, "/inside") == (0, BLOB)
        engine = finish(netstar)
    assert engine["tunnelled"] > 100 and engine["networks"] >= 1
    assert engine["stream_bytes"] >= 2 * len(BLOB)
    assert not any(engine["faults"].values()), engine["faults"]


def test_nobody_looks_where_nobody_asked(lab, nginx, rules):
    nginx.add("inside", BLOB)
    with tunnel(lab, "gre"), NetStar(lab, "mem:", rules) as netstar:
        assert curl(lab, "/inside", "-H", f"X: {DROPPED.decode()}") == (0, BLOB)
        engine = finish(netstar)
    assert engine["tunnelled"] == 0 and engine["stream_bytes"] == 0


@pytest.fixture
def vxlan(lab):
    try:
        with kernel_vxlan(lab):
            yield lab
    except LabError as e:
        pytest.skip(f"this kernel has no VXLAN: {e}")


def test_vxlan_of_the_kernel(vxlan, nginx, rules):
    lab = vxlan
    nginx.add("inside", BLOB * 10)
    with NetStar(lab, "mem:", rules, extra=["--tunnels", "vxlan", "--cores", "2"]) as netstar:
        server = Process(["iperf3", "-s", "-1", "--forceflush", "-p", "5299"], lab.path("iperf.log"), lab.server)
        try:
            wait_for(lambda: "listening" in server.text(), 10, "iperf3")
            told = json.loads(run("ip", "netns", "exec", lab.client, "iperf3", "-c", HOST, "-p", "5299", "-t", "3", "-P", "2",
                                  "-J", timeout=60))
        finally:
            server.kill()
        assert told["end"]["sum_received"]["bytes"] > 1_000_000
        assert curl(lab, "/inside") == (0, BLOB * 10)
        assert curl(lab, "/inside", "-H", f"X: {RESET.decode()}")[0] == 56
        engine = finish(netstar)
    assert engine["tunnelled"] > 1000 and engine["networks"] >= 1
    assert not any(engine["faults"].values()), engine["faults"]
