# SPDX-License-Identifier: Apache-2.0
"""`netstar replay`: the numbers have the shape that they must have; how large they are is not looked at."""
import json
import subprocess

import pytest
from scapy.all import Ether, wrpcap
from test_command import COUNTER, NETSTAR, capture, frame
from test_ips import RULES, START, busy_traffic

PARTS = {"receive", "turns_and_bursts", "parse_and_look_up", "inspectors", "network_function", "store", "send"}


def netstar(*argv, cwd=None):
    return subprocess.run([NETSTAR, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=80, cwd=cwd)


@pytest.fixture
def traffic(tmp_path):
    packets = [Ether(f) for f in busy_traffic(3, flows=40)]
    for i, p in enumerate(packets):
        p.time = START + i * 0.001
    wrpcap(str(tmp_path / "in.pcap"), packets)
    (tmp_path / "rules").write_text(RULES)
    return tmp_path, len(packets), sum(len(p) for p in packets)


@pytest.mark.parametrize("nf", ["ips", "ips-callback"])
def test_the_report(traffic, nf):
    folder, packets, size = traffic
    options = ["--rules", "rules", "--alerts", "alerts", "-r", "in.pcap", "--flows", "4096", "--packets", "4096"]
    done = netstar("replay", nf, *options, "--times", "4", "--report", "-", cwd=folder)
    assert done.returncode == 0, done.stderr
    r = json.loads(done.stdout)
    assert (r["packets"], r["bytes"], r["left_out"], r["times"]) == (packets, size, 0, 4)
    assert r["memory"] >= size
    for name in "ns_per_packet", "cycles_per_byte":
        assert 0 < r[name]["min"] <= r[name]["median"] <= r[name]["max"]
    assert set(r["passes_ns_per_packet"]) == {"bare", "lookup", "inspect", "whole", "store"}
    assert all(len(p) == 4 and min(p) > 0 for p in r["passes_ns_per_packet"].values())
    assert min(r["passes_ns_per_packet"]["whole"]) == pytest.approx(r["ns_per_packet"]["min"])
    parts = r["parts_ns_per_packet"]
    assert set(parts) == PARTS
    assert sum(parts.values()) == pytest.approx(r["ns_per_packet"]["median"])
    assert parts["receive"] > 0 and parts["send"] > 0 and parts["store"] > 0
    for words in ("ns per packet", "cycles per byte", "median", "parse and look up", "network function", "store"):
        assert words in done.stderr
    # What an NF does in a pass is what it does in a run, in the last pass too: its flows are its own.
    alerts = (folder / "alerts").read_text()
    run = netstar("run", nf, *options, "--report", "run", cwd=folder)
    assert run.returncode == 0, run.stderr
    engine = json.loads((folder / "run").read_text())["engine"]
    assert (r["flows"], r["events"], r["forwarded"]) == (engine["flows_opened"], engine["events"], engine["forwarded"])
    assert sorted(alerts.splitlines()) == sorted((folder / "alerts").read_text().splitlines()) != []


def test_an_nf_without_a_store(tmp_path):
    path = capture(tmp_path / "in.pcap", [frame(b"x" * 100, flow=i % 9) for i in range(2000)])
    done = netstar("replay", COUNTER, "-r", path, "-r", path, "--times", "1", "--report", "-", "--quiet")
    assert done.returncode == 0, done.stderr
    r = json.loads(done.stdout)
    assert (r["packets"], r["flows"], r["store"]) == (4000, 9, None)
    assert r["parts_ns_per_packet"]["store"] == 0
    assert r["ns_per_packet"]["min"] == r["ns_per_packet"]["max"]
    assert done.stderr == ""


def test_memory_is_bounded(tmp_path):
    path = capture(tmp_path / "in.pcap", [frame(b"x" * 1200)] * 1000)
    done = netstar("replay", COUNTER, "-r", path, "--memory", "1M")
    assert done.returncode == 1 and "its packets take more than 1 MiB of memory" in done.stderr
    assert netstar("replay", COUNTER, "-r", path, "--memory", "2M", "--times", "1").returncode == 0


def test_a_broken_capture_is_no_measurement(tmp_path):
    path = capture(tmp_path / "in.pcap", [frame(b"x")] * 10, cut=5)
    done = netstar("replay", COUNTER, "-r", path)
    assert done.returncode == 1 and "cannot be read beyond packet 9" in done.stderr


@pytest.mark.parametrize("argv, words", [
    (["replay"], "replay needs the name of a network function"),
    (["replay", "-r", "x"], "replay needs the name of a network function"),
    (["replay", COUNTER], "Give -r FILE"),
    (["replay", COUNTER, "-r", "x", "--times", "0"], "--times 0: expected a whole number from 1 to 1000"),
    (["replay", COUNTER, "-r", "x", "--ports", "a,b"], "unknown option --ports"),
    (["replay", COUNTER, "-r", "x", "-w", "y"], "unknown option -w"),
    (["run", COUNTER, "-r", "x", "--times", "3"], "unknown option --times"),
])
def test_mistakes(argv, words):
    done = netstar(*argv)
    assert done.returncode == 2 and words in done.stderr


def test_help():
    for argv in (["help", "replay"], ["replay", "--help"], ["replay", "ips", "--help"]):
        done = netstar(*argv)
        assert done.returncode == 0 and "--times N" in done.stdout and "--ports" not in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 100


def test_the_file_of_a_run(traffic):
    """What it says of ports, cores and output is left to runs, and -r takes the place of the ports."""
    folder, packets, _ = traffic
    (folder / "edge.yaml").write_text("""nf: ips
ports: [eth1, eth2]
instance: edge1
busy-poll: true
cores: 2
cpu: [0, 1]
store: "mem:"
flows: 4096
packets: 4096
no-huge: true
options:
  rules: rules
  alerts: alerts
""")
    done = netstar("replay", "-c", "edge.yaml", "-r", "in.pcap", "--times", "1", "-q", "--report", "-", cwd=folder)
    assert done.returncode == 0, done.stderr
    by_file = json.loads(done.stdout)
    assert by_file["packets"] == packets
    done = netstar("replay", "ips", "--rules", "rules", "--alerts", "alerts", "-r", "in.pcap", "--times", "1", "-q", "--flows", "4096",
                   "--packets", "4096", "--no-huge", "--report", "-", cwd=folder)
    by_options = json.loads(done.stdout)
    for name in "flows", "events", "forwarded", "packets":
        assert by_file[name] == by_options[name]


def test_a_file_with_mistakes(traffic):
    folder, _, _ = traffic
    (folder / "bad.yaml").write_text("nf: ips\nflow: 3\nspeed: quick\noptions:\n  rules: rules\n")
    done = netstar("replay", "-c", "bad.yaml", "-r", "in.pcap", cwd=folder)
    assert done.returncode == 2
    assert "bad.yaml:2:1" in done.stderr and "bad.yaml:3:" in done.stderr and "2 mistakes" in done.stderr
    (folder / "ports.yaml").write_text("nf: ips\nports: [eth1, eth2]\noptions:\n  rules: rules\n  alerts: alerts\n")
    done = netstar("replay", "-c", "ports.yaml", cwd=folder)
    assert done.returncode == 2 and "Give -r FILE" in done.stderr
