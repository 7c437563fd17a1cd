# SPDX-License-Identifier: Apache-2.0
"""Rules that are swapped under traffic: `netstar reload`, SIGHUP, and what happens when the new rules are wrong."""
import contextlib
import json
import os
import signal
import socket
import subprocess
import time

import pytest
from lab import DROPPED, RULES, SERVER4, NetStar, netstar_binary, wait_for

FILE = os.urandom(2 << 20)
LATER = b"/etc/shadow?raw=1"
MORE = RULES + f'id=2001 action=drop content="{LATER.decode()}" msg="known later"\n'


def reload(lab, *words):
    return subprocess.run([netstar_binary(), "reload", *words, "--control", os.path.join(lab.dir, "run")],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


def write(path, text):
    """As an editor does: the file is whole at every moment."""
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write(text)
    os.rename(path + ".new", path)


def ips(lab, redis, rules, *extra):
    return NetStar(lab, redis.url, rules,
                   extra=["--instance", "edge", "--control", os.path.join(lab.dir, "run"), *extra])


def end(netstar):
    status, report = netstar.interrupt()
    assert status == 0, netstar.text()
    return report


@pytest.mark.parametrize("cores", [1, 2])
def test_a_hundred_reloads_under_traffic(lab, nginx, sink, redis, cores):
    """Every download is byte-identical and no packet is dropped, while two sets of rules take turns."""
    rules = lab.write("swapped.rules", RULES)
    digests = [nginx.add(f"file{i}", FILE + bytes([i]) * i) for i in range(4)]
    with ips(lab, redis, rules, "--cores", str(cores)) as netstar:
        running = [lab.download(f"http://{SERVER4}/slow/file{i}", 120) for i in range(4)]
        done = 0
        for n in range(1, 101):
            write(rules, MORE if n % 2 else RULES)
            answer = reload(lab)
            assert answer.returncode == 0, answer.stderr + netstar.text()
            assert answer.stdout.startswith("edge (process ") and f"{4 if n % 2 else 3} rules, were " in answer.stdout
            for i, download in enumerate(running):
                if not download.process.alive():
                    assert download.finish() == (0, digests[i], len(FILE) + i), netstar.text()
                    running[i] = lab.download(f"http://{SERVER4}/slow/file{i}", 120)
                    done += 1
        for i, download in enumerate(running):
            assert download.finish() == (0, digests[i], len(FILE) + i), netstar.text()
            done += 1
        report = end(netstar)
    assert done >= 8
    assert netstar.text().count("reload: ") == 100
    dropped = report["engine"]["dropped"]
    assert sum(dropped.values()) == 0, dropped
    assert report["module"]["restarted_for_other_rules"] > 0
    assert report["module"]["directions_picked_up"] == 0


def test_rules_hold_from_the_reload_on(lab, sink, redis):
    rules = lab.write("grown.rules", RULES)
    with ips(lab, redis, rules) as netstar:
        with lab.connect(sink.port) as before, lab.connect(sink.port) as across:
            before.sendall(b"one " + LATER)
            wait_for(lambda: LATER in sink.all(), 5, "what no rule forbids yet")
            across.sendall(DROPPED[:8])
            wait_for(lambda: DROPPED[:8] in sink.all(), 5, "half an attack")
            write(rules, MORE)
            assert reload(lab, "edge").returncode == 0
            before.sendall(b" two " + LATER)
            netstar.wait_alert(2001)
            across.sendall(b" and all of it: " + DROPPED)
            netstar.wait_alert(1001)
        write(rules, RULES)
        netstar.process.signal(signal.SIGHUP)
        wait_for(lambda: "3 rules, were 4" in netstar.text(), 10, "the reload by signal")
        with lab.connect(sink.port) as after:
            after.sendall(b"three " + LATER)
            wait_for(lambda: b"three " + LATER in sink.all(), 5, "what no rule forbids any more")
        end(netstar)
    assert b"two " + LATER not in sink.all() and DROPPED not in sink.all()


def test_wrong_rules_change_nothing(lab, sink, redis):
    rules = lab.write("spoiled.rules", RULES)
    with ips(lab, redis, rules) as netstar:
        for spoiled, where in [(RULES + "id=7 action=explode\n", ":5:"), (RULES + 'id=8 action=drop pcre=/(/ msg="x"\n', ":5:")]:
            write(rules, spoiled)
            answer = reload(lab)
            assert answer.returncode == 1 and answer.stdout == ""
            assert rules + where in answer.stderr and "goes on as before" in answer.stderr
        os.unlink(rules)
        answer = reload(lab, str(netstar.process.pid))
        assert answer.returncode == 1 and "No such file" in answer.stderr
        with lab.connect(sink.port) as s:
            s.sendall(DROPPED)
            netstar.wait_alert(1001)
        end(netstar)
    assert DROPPED not in sink.all()
    assert "nothing has changed, ips goes on as before" in netstar.text()


def test_who_is_meant(lab, redis, rules):
    with ips(lab, redis, rules) as netstar:
        again = NetStar(lab, redis.url, rules, extra=netstar.argv[netstar.argv.index("--instance"):])
        again.argv[again.argv.index("--ports") + 1] = "net_null0,net_null1"
        with pytest.raises(Exception, match="the instance edge is running here already, as process"):
            again.start()
        nobody = reload(lab, "egde")
        assert nobody.returncode == 1 and "no instance egde is running here" in nobody.stderr
        sockets = os.listdir(os.path.join(lab.dir, "run"))
        assert sockets == [f"edge.{netstar.process.pid}.sock"]
        assert os.stat(os.path.join(lab.dir, "run", sockets[0])).st_mode & 0o777 == 0o600
        end(netstar)
    assert os.listdir(os.path.join(lab.dir, "run")) == []
    assert reload(lab).returncode == 1


def test_the_socket_stands_what_comes(lab, redis, rules):
    """Requests that are none, too long, or not read: others are answered, and the number at once is bounded."""
    with ips(lab, redis, rules) as netstar:
        path = os.path.join(lab.dir, "run", f"edge.{netstar.process.pid}.sock")

        def connect():
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(10)
            s.connect(path)
            return s, s.makefile("rb")

        s, f = connect()
        with s:
            s.sendall(b"abo")
            time.sleep(0.05)
            s.sendall(b"ut\nnonsense\r\n\nabout\n")
            answers = [json.loads(f.readline()) for _ in range(4)]
            assert [a["ok"] for a in answers] == [True, False, False, True]
            assert answers[0]["instance"] == "edge" and answers[0]["pid"] == netstar.process.pid
            assert answers[0]["nf"] == "ips"
            s.sendall(b"x" * 1000)
            assert json.loads(f.readline())["error"] == "the request is too long"
            with contextlib.suppress(ConnectionResetError):  # what it did not read
                assert f.read() == b""
        idle = [connect() for _ in range(8)]
        s, f = connect()
        with s:
            assert json.loads(f.readline())["error"] == "too many ask at once"
        for s, f in idle:
            f.close()
            s.close()
        wait_for(lambda: reload(lab).returncode == 0, 5, "a reload when others have gone")
        end(netstar)


def test_the_file_is_read_anew(lab, sink, redis):
    """A configuration file may name other rules at a reload, and nothing that is fixed."""
    few, more = lab.write("few.rules", RULES), lab.write("more.rules", MORE)
    config = lab.path("edge.yaml")
    text = (f"nf: ips\ninstance: edge\ncontrol: {lab.dir}/run\nports: [m0, m1]\nstore: {redis.url}\n"
            f"options:\n  rules: RULES\n  alerts: {lab.path('alerts.jsonl')}\n")
    write(config, text.replace("RULES", few))
    netstar = NetStar(lab, redis.url, few)
    netstar.argv = [netstar_binary(), "run", "-c", config, "--report", netstar.report_path]
    netstar.alerts_path = text.split("alerts: ")[1].strip()
    with netstar:
        for wrong, why in [("budget: 1s\n", "budget can only change with a restart"),
                           ("  ttl: 5\n", "ttl can only change with a restart"),
                           ("bugdet: 1s\n", "edge.yaml:9:1: unknown key bugdet; did you mean budget?")]:
            write(config, text.replace("RULES", more) + wrong)
            answer = reload(lab)
            assert answer.returncode == 1 and why in answer.stderr
        write(config, text.replace("RULES", more))
        answer = reload(lab)
        assert answer.returncode == 0 and "4 rules, were 3" in answer.stdout, answer.stderr
        with lab.connect(sink.port) as s:
            s.sendall(LATER)
            netstar.wait_alert(2001)
        end(netstar)
    assert LATER not in sink.all()
