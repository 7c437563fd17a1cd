# SPDX-License-Identifier: Apache-2.0
"""Configuration files: the examples are right, `netstar check -c` tells every mistake, and a run by file is the run by options."""
import json
import os
import shutil
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("NETSTAR_BUILD", os.path.join(ROOT, "build"))
NETSTAR = os.path.join(os.path.abspath(BUILD), "netstar")
EXAMPLES = os.path.join(ROOT, "examples", "config")
RULES = os.path.join(ROOT, "nf", "ips", "rules.example")
CAPTURE = os.path.join(ROOT, "tests", "captures", "http_small.pcap.gz")


def netstar(*argv, cwd=None):
    return subprocess.run([NETSTAR, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                          cwd=cwd)


def problems(done):
    return [line.split(None, 2)[1:] for line in done.stdout.splitlines() if line.startswith("problem")]


@pytest.fixture
def capture(tmp_path):
    path = tmp_path / "in.pcap"
    with open(path, "wb") as out:
        subprocess.run(["gzip", "-dc", CAPTURE], stdout=out, check=True)
    return str(path)


@pytest.mark.parametrize("name", sorted(os.listdir(EXAMPLES)))
def test_the_examples_are_right(name, capture, tmp_path):
    """With the command line in place of what this machine has not, no example has a mistake."""
    if not name.endswith(".yaml"):
        pytest.skip("not a configuration")
    own = {"firewall.yaml": ["--rules", RULES.replace("ips", "firewall"), "--log", "/dev/null"],
           "nat.yaml": [],
           "lb.yaml": ["--services", os.path.join(ROOT, "nf", "lb", "services.example")]}
    there = own.get(name, ["--rules", RULES, "--alerts", "/dev/null"])
    there += ["--store", "mem:", "-r", capture, "--no-huge", "--cores", "1", "--cpu", "0"]
    if "capture" not in name:
        there[there.index("-r"):there.index("-r") + 2] = ["--ports", "net_null0,net_null1"]
    done = netstar("check", "-c", os.path.join(EXAMPLES, name), *there, cwd=tmp_path)
    found = [p for p in problems(done) if p[0] not in ("privileges", "hugepages")]
    assert found == [], done.stdout + done.stderr
    assert f"ok       {os.path.join(EXAMPLES, name)} the options of " in done.stdout
    assert "memory" in done.stdout


def test_all_mistakes_in_one_go(tmp_path):
    (tmp_path / "bad.yaml").write_text("nf: ips\nprots: [eth1, eth2]\nbudget: fast\nfail: open\nfail: closed\n"
                                       "options:\n  rulse: x\n  ttl: [1, 2]\ncores: two\n")
    done = netstar("check", "-c", "bad.yaml", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr == ""
    found = dict(problems(done))
    assert sorted(found) == [f"bad.yaml:{at}" for at in ("2:1", "3:9", "5:1", "7:3", "9:8")]
    assert found["bad.yaml:2:1"] == "unknown key prots; did you mean ports?"
    assert found["bad.yaml:9:8"].startswith("cores two: expected a whole number from 1 to ")
    assert "5 problems" in done.stdout
    run = netstar("run", "-c", "bad.yaml", cwd=tmp_path)
    assert run.returncode == 2 and run.stdout == ""
    assert all(f"netstar: error: {where}: {what}" in run.stderr for where, what in found.items())


def test_what_the_file_names_is_looked_at(tmp_path):
    (tmp_path / "bad.rules").write_text("id=1 action=drop content=\"x\" msg=\"x\"\nid=2 action=explode\n")
    (tmp_path / "edge.yaml").write_text("nf: ips\nread: nowhere.pcap\noptions: {rules: bad.rules}\n")
    done = netstar("check", "-c", "edge.yaml", cwd=tmp_path)
    found = dict(problems(done))
    assert done.returncode == 1
    assert "nowhere.pcap: No such file" in found["files"]
    assert "bad.rules:2:" in found["ips"] and "expected" in found["ips"]


def test_memory_is_added_up_as_with_options(tmp_path):
    (tmp_path / "edge.yaml").write_text("nf: ips\nports: [net_null0, net_null1]\nflows: 1000\nstream-memory: 1M\npackets: 1024\n"
                                        f"no-huge: true\noptions: {{rules: {RULES}}}\n")
    by_file = netstar("check", "-c", "edge.yaml", cwd=tmp_path)
    by_options = netstar("check", "--ports", "net_null0,net_null1", "--flows", "1000", "--stream-memory", "1M",
                         "--packets", "1024", "--no-huge")

    def memory(done):
        lines = done.stdout.splitlines()
        at = next(i for i, line in enumerate(lines) if " memory " in line)
        return lines[at].split(";")[0], lines[at + 1]

    assert memory(by_file) == memory(by_options)


def test_a_run_by_file_is_the_run_by_options(capture, tmp_path):
    (tmp_path / "edge.yaml").write_text(f"nf: ips\nread: [{capture}]\nwrite: by-file.pcap\nreport: \"-\"\nbudget: 1s\nhold: 7\n"
                                        f"options:\n  rules: {RULES}\n  alerts: by-file.jsonl\n  midstream: pickup\n")
    by_file = netstar("run", "-c", "edge.yaml", cwd=tmp_path)
    by_options = netstar("run", "ips", "-r", capture, "-w", "by-options.pcap", "--report", "-", "--budget", "1s",
                         "--hold", "7", "--rules", RULES, "--alerts", "by-options.jsonl", "--midstream", "pickup",
                         cwd=tmp_path)
    assert by_file.returncode == by_options.returncode == 0, by_file.stderr + by_options.stderr
    for end in ("pcap", "jsonl"):
        assert (tmp_path / f"by-file.{end}").read_bytes() == (tmp_path / f"by-options.{end}").read_bytes()
    a, b = (json.loads(done.stdout) for done in (by_file, by_options))
    assert a["engine"] == b["engine"] and a["module"] == b["module"]


def test_the_file_is_for_another(tmp_path):
    (tmp_path / "edge.yaml").write_text("nf: ips\n")
    done = netstar("run", "ips-callback", "-c", "edge.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "edge.yaml is for ips, not for ips-callback" in done.stderr
    done = netstar("run", "-c", "nowhere.yaml", cwd=tmp_path)
    assert done.returncode == 1 and "nowhere.yaml: No such file or directory" in done.stderr


def test_the_unit_for_systemd_is_one(tmp_path):
    """Every line is one that systemd understands, and the commands are those that there are."""
    unit = os.path.join(ROOT, "examples", "systemd", "netstar@.service")
    with open(unit, encoding="utf-8") as f:
        text = f.read()
    commands = [line.split("=", 1)[1].split() for line in text.splitlines() if line.startswith("Exec")]
    assert [c[1] for c in commands] == ["check", "run", "reload"]
    for c in commands:
        done = netstar(c[1], "--help")
        for word in c[2:]:
            if word.startswith("-"):
                assert f"{word}, " in done.stdout or f" {word} " in done.stdout, (word, done.stdout)
    if shutil.which("systemd-analyze"):
        (tmp_path / "netstar@.service").write_text(text.replace("/usr/local/bin/netstar", NETSTAR))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(tmp_path / "netstar@.service")],
                              capture_output=True, text=True, timeout=60)
        assert "netstar@" not in done.stderr, done.stderr
