# SPDX-License-Identifier: Apache-2.0
"""Real captures through an NF that edits, examples/rewrite: what is written is the same conversation with other words.

The streams of the output, as examples/streams rebuilds them, are those of the input with every word replaced, in every
direction of every connection, and several cores write the same as one, byte for byte.
"""
import gzip
import json
import subprocess

import pytest
from test_captures import BUILD, CAPTURES, NAMES, NETSTAR, by_netstar

REWRITE = BUILD.resolve() / "examples" / "rewrite" / "rewrite.so"
WORD = b"e"
WITH = b"<longer>", b"", b"E"  # in turn
# Lines that lose, repeat and reorder, and what connections do besides coming to a good end.
CHOSEN = [name for name in NAMES if name.startswith(("live_", "off_"))] + [
    "half_close", "http_big", "mtu_576", "no_sack_loss", "reset_in_the_middle", "simultaneous_open", "ssh",
    "thousand_connections", "tuple_reused", "urgent", "zero_window"]
SPREAD = {"http_parallel", "live_everything", "off_everything", "thousand_connections"}  # also on two cores


def rewritten(capture, out, cores, becomes):
    report = out.with_suffix(".json")
    subprocess.run([NETSTAR, "run", str(REWRITE), "--word", WORD.decode(), "--with", becomes.decode(), "-r", str(capture),
                    "-w", str(out), "--no-huge", "-q", "--cores", str(cores), "--packets", "8192", "--flows", "4096",
                    "--report", str(report)], check=True, timeout=90, stdout=subprocess.DEVNULL)
    told = json.loads(report.read_text())
    assert told["buffers"]["whole"]
    return told["engine"]


@pytest.mark.parametrize("name", sorted(SPREAD.union(CHOSEN)))
def test_streams_with_other_words(name, tmp_path):
    capture, out, again = (tmp_path / f"{x}.pcap" for x in ("in", "out", "again"))
    capture.write_bytes(gzip.decompress((CAPTURES / f"{name}.pcap.gz").read_bytes()))
    becomes = WITH[NAMES.index(name) % len(WITH)]
    engine = rewritten(capture, out, 1, becomes)
    before, was = by_netstar(capture, tmp_path / "before")
    after, is_now = by_netstar(out, tmp_path / "after")
    for key, streams in before.items():
        should = [s.replace(WORD, becomes) for s in streams]
        assert after.get(key, []) == [s for s in should if s], (key, becomes)
    assert engine["edits"] > 0 or not any(WORD in s for streams in before.values() for s in streams)
    assert engine["edits_refused"] == 0
    assert is_now["conflicts"] <= was["conflicts"]
    if name in SPREAD:
        rewritten(capture, again, 2, becomes)
        assert again.read_bytes() == out.read_bytes()
