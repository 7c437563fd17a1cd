# SPDX-License-Identifier: Apache-2.0
"""examples/dns: what it makes of captures of DNS; the verdicts, the log and the counters."""
import ipaddress
import json
import os
import struct
import subprocess

import pytest
from scapy.all import DNS, DNSQR, DNSRR, DNSRROPT, EDNS0TLV, Ether, IP, IPv6, Raw, UDP, fragment, rdpcap, wrpcap

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("NETSTAR_BUILD", os.path.join(ROOT, "build")))
NETSTAR = os.path.abspath(os.environ.get("NETSTAR") or os.path.join(BUILD, "netstar"))
MODULE = os.path.join(BUILD, "examples", "dns", "dns.so")
START = 1700000000


def packet(payload, port=40000, back=False, six=False, server=53):
    """A datagram from the client to the server, or back."""
    ends = ("2001:db8::1", "2001:db8::2") if six else ("10.0.0.1", "10.0.0.2")
    (src, dst), (sport, dport) = (ends[::-1], (server, port)) if back else (ends, (port, server))
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / (IPv6 if six else IP)(src=src, dst=dst) / \
        UDP(sport=sport, dport=dport) / Raw(bytes(payload))


def name_bytes(name):
    """As it stands in a message: scapy's own names cannot hold every byte."""
    return b"".join(bytes([len(x)]) + x for x in name.encode("latin-1").split(b".") if x) + b"\0"


def ask(name, id=1, qtype="A", **more):
    return bytes(DNS(id=id, qd=DNSQR(qname=name, qtype=qtype), **more))


def tell(name, id=1, qtype="A", an=None, rcode=0, **more):
    return bytes(DNS(id=id, qr=1, ra=1, rcode=rcode, qd=DNSQR(qname=name, qtype=qtype), an=an, **more))


def header(id=1, answer=False, counts=(1, 0, 0, 0), code=0):
    return struct.pack("!HHHHHH", id, 0x8000 * answer | code, *counts)


def run(folder, packets, deny=None, options=(), status=0):
    """What came out (numbers of packets, from 0), the log and the counters; or what was said, for another status."""
    for i, p in enumerate(packets):
        p.time = START + i * 0.001
    wrpcap(str(folder / "in.pcap"), packets)
    if deny is not None:
        (folder / "deny").write_text(deny)
        options = (*options, "--deny", "deny")
    done = subprocess.run([NETSTAR, "run", MODULE, "-r", "in.pcap", "-w", "out.pcap", "--no-huge", "--log", "log",
                           "--report", "report", *options], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == status, done.stderr
    if status != 0:
        return done.stderr
    report = json.loads((folder / "report").read_text())
    engine = report["engine"]
    assert report["buffers"]["whole"] and engine["packets"] == len(packets)
    assert engine["forwarded"] + sum(engine["dropped"].values()) == len(packets)
    count = {name.replace("_", " "): n for name, n in report["module"].items()}
    log = [json.loads(x) for x in (folder / "log").read_text().splitlines()]
    passed = rdpcap(str(folder / "out.pcap")) if engine["forwarded"] else []
    out = [round((float(p.time) - START) * 1000) for p in passed]
    # Each line is a message, and its verdict is what happened to it.
    assert [x["packet"] - 1 for x in log if x["verdict"] == "drop"] == [i for i in range(len(packets)) if i not in out]
    assert count["log lines lost"] == 0
    assert count["queries"] + count["answers"] + count["answers unasked"] + count["malformed"] == len(log)
    return out, log, count


def test_a_question_and_its_answer(tmp_path):
    out, log, count = run(tmp_path, [
        packet(ask("www.example.org", id=4660)),
        packet(tell("www.example.org", id=4660, an=DNSRR(rrname="www.example.org", rdata="192.0.2.1")), back=True),
    ])
    assert out == [0, 1]
    assert log == [
        {"time": START, "packet": 1, "event": "query", "verdict": "forward", "from": "10.0.0.1:40000",
         "to": "10.0.0.2:53", "id": 4660, "name": "www.example.org", "type": "A"},
        {"time": START + 0.001, "packet": 2, "event": "answer", "verdict": "forward", "from": "10.0.0.2:53",
         "to": "10.0.0.1:40000", "id": 4660, "name": "www.example.org", "type": "A", "code": "NOERROR", "answers": 1},
    ]
    assert count == {"names denied": 0, "queries": 1, "queries denied": 0, "queries forgotten": 0, "answers": 1,
                     "no such name": 0, "answers unasked": 0, "malformed": 0, "log lines lost": 0}


def test_ipv6_and_another_port(tmp_path):
    packets = [packet(ask("a.example", qtype="AAAA"), six=True, server=5300),
               packet(tell("a.example", qtype="AAAA"), six=True, server=5300, back=True),
               packet(b"no DNS, and on another port", six=True)]
    out, log, count = run(tmp_path, packets, options=("--port", "5300"))
    assert out == [0, 1, 2] and (count["queries"], count["answers"], len(log)) == (1, 1, 2)
    assert log[0]["from"] == "[2001:db8::1]:40000" and log[0]["to"] == "[2001:db8::2]:5300" and log[0]["type"] == "AAAA"
    assert ipaddress.ip_address(log[1]["from"][1:].split("]")[0]) == ipaddress.ip_address("2001:db8::2")


def test_answers_that_nobody_asked_for(tmp_path):
    q, a = ask("a.example", id=7), tell("a.example", id=7)
    out, log, count = run(tmp_path, [
        packet(a, back=True),                                   # 0: before the question
        packet(q),                                              # 1
        packet(tell("a.example", id=8), back=True),             # 2: another id
        packet(tell("b.example", id=7), back=True),             # 3: another name
        packet(tell("a.example", id=7, qtype="AAAA"), back=True),   # 4: another type
        packet(a),                                              # 5: from the end that asked
        packet(a, port=40001, back=True),                       # 6: another flow
        packet(a, back=True),                                   # 7: this is it
        packet(a, back=True),                                   # 8: once more
        packet(q), packet(q), packet(a, back=True), packet(a, back=True),   # each question has an answer
    ])
    assert out == [1, 7, 9, 10, 11, 12]
    assert [x["packet"] - 1 for x in log if x.get("why") == "unasked"] == [0, 2, 3, 4, 5, 6, 8]
    assert (count["answers"], count["answers unasked"], count["queries"]) == (3, 7, 3)


def test_the_case_of_letters_does_not_count(tmp_path):
    out, log, _ = run(tmp_path, [packet(ask("wWw.ExAmPlE.oRg")), packet(tell("WWW.example.ORG"), back=True)])
    assert out == [0, 1] and {x["name"] for x in log} == {"www.example.org"}


def test_errors(tmp_path):
    out, log, count = run(tmp_path, [
        packet(ask("no.example", id=1)), packet(tell("no.example", id=1, rcode=3), back=True),
        packet(ask("a.example", id=2)), packet(header(2, True, (0, 0, 0, 0), code=1), back=True),    # not understood
        packet(ask("a.example", id=3)), packet(header(3, True, (0, 0, 0, 0), code=0), back=True),    # no error
        packet(tell("no.example", id=9, rcode=3), back=True),
    ])
    assert out == [0, 1, 2, 3, 4]
    assert [x["code"] for x in log if "code" in x] == ["NXDOMAIN", "FORMERR", "NOERROR", "NXDOMAIN"]
    assert (count["no such name"], count["answers"], count["answers unasked"]) == (1, 2, 2)


def test_denied_names(tmp_path):
    deny = "# what nobody needs\n\n  Bad.Example.  \r\nx.test # and below\n"
    names = ["bad.example", "a.b.BAD.example", "notbad.example", "example", "bad.example.org", "x.test", "y.x.test",
             "test"]
    out, log, count = run(tmp_path, [packet(ask(n, id=i)) for i, n in enumerate(names)] +
                          [packet(tell("bad.example", id=0), back=True)], deny=deny)
    assert out == [2, 3, 4, 7]
    denied = [x["name"] for x in log if x.get("why") == "denied"]
    assert denied == ["bad.example", "a.b.bad.example", "x.test", "y.x.test"]
    # What was dropped was not asked.
    assert (log[-1]["why"], count["queries denied"], count["names denied"]) == ("unasked", 4, 2)


@pytest.mark.parametrize("deny, line, words", [
    ("a.example\nb..example\n", 2, "an empty label"),
    ("# x\n\n" + "x" * 64 + ".example", 3, "longer than 63 bytes"),
    ("a\n" + ".".join(["x" * 60] * 5) + "\n", 2, "longer than 255 bytes"),
    ("two names\n", 1, "expected one name"),
    ("b\xfccher.example\n", 1, "xn--"),
    (".a\n", 1, "an empty label"),
])
def test_mistakes_in_the_list(tmp_path, deny, line, words):
    said = run(tmp_path, [packet(ask("a"))], deny=deny, status=1)
    assert f"--deny: deny:{line}: " in said and words in said


@pytest.mark.parametrize("options, words", [
    (("--deny", "nowhere"), "nowhere: No such file"),
    (("--port", "0"), "--port: expected a number"),
    (("--port", "53x"), "--port: expected a number"),
])
def test_mistakes_in_options(tmp_path, options, words):
    assert words in run(tmp_path, [packet(ask("a"))], options=options, status=1)


def test_too_many_questions(tmp_path):
    """28 are remembered for a flow; of 30 the two oldest are forgotten, and the others' answers pass in any order."""
    names = [(f"n{i}.example", i) for i in range(30)]
    answers = list(reversed(names))
    out, _, count = run(tmp_path, [packet(ask(n, id=i)) for n, i in names] +
                        [packet(tell(n, id=i), back=True) for n, i in answers])
    assert out == list(range(58))
    assert (count["queries forgotten"], count["answers"], count["answers unasked"]) == (2, 28, 2)


# ---- messages
OPT = bytes(DNSRROPT(rclass=1232, rdata=[EDNS0TLV(optcode=10, optdata=b"12345678")]))
A = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + b"\xc0\0\2\1"
QUESTION = name_bytes("www.example.org") + b"\0\1\0\1"


def soa():
    """Two names and 20 bytes, of which the names are pointers."""
    return b"\xc0\x10" + struct.pack("!HHIH", 6, 1, 60, 4 + 20) + b"\xc0\x10\xc0\x0c" + bytes(20)


def sound():
    """An answer whose names are shortened by pointers, also in data, one by a pointer to a pointer; and EDNS."""
    cname = b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, 6) + b"\3web\xc0\x10"
    at = 12 + len(QUESTION)
    shortened = struct.pack("!H", 0xc000 | at) + A[2:]          # a pointer to a pointer
    mx = b"\xc0\x10" + struct.pack("!HHIH", 15, 1, 60, 4) + b"\0\1" + struct.pack("!H", 0xc000 | at + 12)
    return header(1, True, (1, 3, 1, 1)) + QUESTION + cname + shortened + mx + soa() + OPT


def test_compression_and_edns(tmp_path):
    assert DNS(sound()).ancount == 3
    out, log, _ = run(tmp_path, [packet(ask("www.example.org")), packet(sound(), back=True)])
    assert out == [0, 1] and (log[1]["answers"], log[1]["code"]) == (3, "NOERROR")


def test_the_code_has_upper_bits_in_edns(tmp_path):
    opt = bytes(DNSRROPT(extrcode=1, rdata=[]))
    out, log, _ = run(tmp_path, [packet(ask("www.example.org")),
                                 packet(header(1, True, (1, 0, 0, 1)) + QUESTION + opt, back=True)])
    assert out == [0, 1] and log[1]["code"] == "BADVERS"


def test_cut_off_at_every_byte(tmp_path):
    whole = sound()
    out, log, count = run(tmp_path, [packet(ask("www.example.org"))] +
                          [packet(whole[:n], back=True) for n in range(len(whole))] + [packet(whole, back=True)])
    assert out == [0, len(whole) + 1]
    assert count["malformed"] == len(whole) and {x["event"] for x in log[1:-1]} == {"malformed"}
    assert all(x["why"] for x in log[1:-1]) and log[-1]["event"] == "answer"


def pointers(n):
    """A question for the root, a record whose data are a root and n - 1 pointers, each to what is before it, and a
    record whose name is the n-th."""
    data = b"\0" + b"".join(struct.pack("!H", 0xc000 | 28 if i == 0 else 0xc000 | 27 + 2 * i) for i in range(n - 1))
    return header(counts=(1, 0, 0, 2)) + b"\0\0\1\0\1" + b"\0" + struct.pack("!HHIH", 99, 1, 0, len(data)) + data + \
        struct.pack("!H", 0xc000 | 27 + 2 * (n - 1)) + struct.pack("!HHIH", 99, 1, 0, 0)


@pytest.mark.parametrize("message, why", [
    (header() + b"\xc0\x0c\0\1\0\1", "points forward, or to itself"),
    (header() + b"\1a\xc0\x0c\0\1\0\1", "points forward, or to itself"),
    (header() + b"\xc0\x12\0\1\0\1\1a\0", "points forward"),
    (header(counts=(1, 1, 0, 0)) + b"\1a\xc0\x10\0\1\0\1" + A, "points forward"),
    (header() + b"\xc0\0\0\1\0\1", "points into the header"),
    (header() + b"\x41a\0\0\1\0\1", "unknown kind"),
    (header() + b"\x80a\0\0\1\0\1", "unknown kind"),
    (header() + b"\x01a\xc0", "ends outside"),
    (header() + b"".join(b"\x3f" + b"x" * 63 for _ in range(4)) + b"\0\0\1\0\1", "too long"),
    (header(counts=(2, 0, 0, 0)) + QUESTION * 2, "more than one question"),
    (header() + QUESTION + b"\0", "bytes behind"),
    (header(counts=(1, 1, 0, 0)) + QUESTION, "ends outside"),
    (header(counts=(1, 65535, 65535, 65535)) + QUESTION + A, "ends outside"),
    (header(counts=(1, 0, 0, 2)) + QUESTION + OPT + OPT, "OPT"),
    (header(counts=(1, 1, 0, 0)) + QUESTION + OPT, "OPT"),
    (header(counts=(1, 0, 0, 1)) + QUESTION + OPT[:-9] + b"\x09" + OPT[-8:], "an option ends outside"),
    (header(counts=(1, 1, 0, 0)) + QUESTION + b"\0" + struct.pack("!HHIH", 5, 1, 0, 3) + b"\1a\0", None),
    (header(counts=(1, 1, 0, 0)) + QUESTION + b"\0" + struct.pack("!HHIH", 5, 1, 0, 4) + b"\1a\0\0", "not as long"),
    (header(counts=(1, 1, 0, 0)) + QUESTION + b"\0" + struct.pack("!HHIH", 15, 1, 0, 2) + b"\0\1", "not as long"),
    (pointers(127), None),
    (pointers(128), "too many pointers"),
])
def test_unsound_messages(tmp_path, message, why):
    out, log, count = run(tmp_path, [packet(message)])
    if why is None:
        assert out == [0] and log[0]["event"] == "query"
    else:
        assert out == [] and log[0]["event"] == "malformed" and why in log[0]["why"], log
        assert "name" not in log[0] and count["malformed"] == 1


def test_the_longest_name_and_every_byte(tmp_path):
    longest = ".".join(["x" * 63] * 3 + ["y" * 61])
    odd = b"\x06a.b\"\\\xff\x01\x0a\0"
    out, log, _ = run(tmp_path, [packet(header() + name_bytes(longest) + b"\0\1\0\1"),
                                 packet(header() + odd + b"\0\1\0\1"), packet(header() + b"\0\0\2\0\1")])
    assert out == [0, 1, 2]
    assert [x["name"] for x in log] == [longest, r"a\046b\034\092\255.\010", "."]


@pytest.mark.parametrize("many", [80, 180, 500])
@pytest.mark.parametrize("size", [None, 1000])
def test_large_datagrams(tmp_path, many, size):
    """Whole, in one buffer or several; and in fragments, which are put together before the inspector sees them."""
    whole = packet(header(1, True, (1, many, 0, 0)) + QUESTION + A * many, back=True)
    pieces = [whole] if size is None else [Ether(src=whole.src, dst=whole.dst) / x for x in fragment(whole[IP], size)]
    assert (len(pieces) > 1) == (size is not None)
    out, log, count = run(tmp_path, [packet(ask("www.example.org"))] + pieces)
    assert out == list(range(1 + len(pieces)))
    assert [x["event"] for x in log] == ["query", "answer"] and log[1]["answers"] == many


def test_a_log_that_takes_nothing(tmp_path):
    """Packets go on, and the lines are counted."""
    wrpcap(str(tmp_path / "in.pcap"), [packet(ask("a.example", id=i)) for i in range(20)])
    done = subprocess.run([NETSTAR, "run", MODULE, "-r", "in.pcap", "--no-huge", "--log", "/dev/full", "--report",
                           "report"],
                          cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    report = json.loads((tmp_path / "report").read_text())
    assert done.returncode == 0 and "cannot write to the log" in done.stderr
    assert (report["module"]["log_lines_lost"], report["engine"]["forwarded"]) == (20, 20)


def test_several_cores_count_together(tmp_path):
    packets = [packet(x, port=40000 + i, back=b) for i in range(50)
               for x, b in ((ask("a.example", id=i), False), (tell("a.example", id=i), True))]
    out, log, count = run(tmp_path, packets, options=("--cores", "2"))
    assert (len(out), len(log), count["queries"], count["answers"]) == (100, 100, 50, 50)
