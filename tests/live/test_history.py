# SPDX-License-Identifier: Apache-2.0
"""history.py finds what it is there to find, in records of made-up stores."""
from history import History, shared_ports

OWN, PUT = b'"EVALSHA" "00" "1"', b'"EVALSHA" "11" "1"'


def text(b):
    return b'"' + b"".join(b"\\x%02x" % c for c in b) + b'"'


def token(n, mark=0xf6):
    return bytes([mark]) + n.to_bytes(7, "big")


def record(tmp_path, *lines, name="monitor"):
    path = tmp_path / name
    path.write_bytes(b"OK\n" + b"".join(b"%.6f [0 %s] %s\n" % (t, who, what) for t, who, what in lines))
    return str(path)


def own(t, key, n, who=b"127.0.0.1:50000"):
    return [(t, who, OWN + b" " + text(key)), (t, b"lua", b'"SET" ' + text(key) + b" " + text(token(n, 0xf7)))]


def put(t, key, n, value, who=b"127.0.0.1:50000"):
    return [(t, who, PUT + b" " + text(key) + b" " + text(token(n)[1:]) + b" " + text(token(n) + value)),
            (t, b"lua", b'"SET" ' + text(key) + b" " + text(token(n) + value))]


def faults(tmp_path, *lines):
    return History([[(record(tmp_path, *lines), 0.0)]], (b"k", b"nat:")).faults


def test_owners_in_their_order_are_right(tmp_path):
    assert faults(tmp_path, *own(1, b"k", 5), *put(2, b"k", 5, b"a"), *own(3, b"k", 6), *put(4, b"k", 6, b"b")) == []


def test_an_old_owner_that_writes_is_found(tmp_path):
    assert len(faults(tmp_path, *own(1, b"k", 5), *own(2, b"k", 6), *put(3, b"k", 5, b"a"))) == 1


def test_a_token_that_is_given_twice_is_found(tmp_path):
    assert len(faults(tmp_path, *own(1, b"k", 5), *own(2, b"k", 5))) == 1
    gone = [(1.5, b"127.0.0.1:50000", b'"DEL" "k"')]
    assert len(faults(tmp_path, *own(1, b"k", 5), *gone, *own(2, b"k", 4))) == 1
    assert faults(tmp_path, *own(1, b"k", 5), *gone, *own(2, b"k", 6)) == []


def test_a_lease_of_two_is_found(tmp_path):
    def take(t, ticket, ends):
        return [(t, b"127.0.0.1:50000", OWN + b' "nat:p:x"'), (t, b"lua", b'"ZADD" "nat:p:x" "%d" "3:%d"' % (ends * 1000, ticket))]
    assert faults(tmp_path, *take(1, 1, 5), *take(2, 1, 8), *take(9, 2, 20)) == []
    assert len(faults(tmp_path, *take(1, 1, 5), *take(4, 2, 20))) == 1


def mapping(t, inside, outside, ttl):
    value = b"\xf5" + bytes(7) + inside + outside + bytes(10)
    return (t, b"127.0.0.1:50000", b'"SET" ' + text(b"nat:i:" + inside) + b" " + text(value) + b' "NX" "PX" "%d"' % (ttl * 1000))


def test_a_port_of_two_is_found(tmp_path):
    one, other, port = b"\x06\x0a\0\0\x01\x10\0", b"\x06\x0a\0\0\x02\x10\0", b"\x06\x0a\x58\0\x01\x04\0"
    for second, n in ((9, 1), (11, 0)):
        path = record(tmp_path, mapping(1, one, port, 10), mapping(second, other, port, 10))
        assert len(shared_ports(History([[(path, 0.0)]], (b"nat:",)))) == n


def test_what_a_dead_master_takes_with_it_is_found(tmp_path):
    port = b"127.0.0.1:7000"
    old = record(tmp_path, *own(1, b"k", 5), *put(2, b"k", 5, b"a"), *put(3, b"k", 5, b"b"), name="old")
    new = record(tmp_path, (1, port, b'"SET" "k" ' + text(token(5, 0xf7))), (2, port, b'"SET" "k" ' + text(token(5) + b"a")),
                 *own(9, b"k", 6), name="new")
    history = History([[(old, 0.0), (new, 4.0)]], (b"k",))
    assert [(key, was.value[8:], now.value[8:]) for _, key, was, now in history.lost] == [(b"k", b"b", b"a")]
    assert history.faults == []
    assert history.at(b"k", 2.5)[8:] == b"a" and history.at(b"k", 3.5)[8:] == b"b" and history.at(b"k", 5)[8:] == b"a"


def test_what_a_master_does_that_is_none_any_more_does_not_count(tmp_path):
    port = b"127.0.0.1:7000"
    old = record(tmp_path, *own(1, b"k", 5), *put(2, b"k", 5, b"a"), *put(6, b"k", 5, b"b"), *own(7, b"j", 5), name="old")
    new = record(tmp_path, (1, port, b'"SET" "k" ' + text(token(5, 0xf7))), (2, port, b'"SET" "k" ' + text(token(5) + b"a")),
                 *own(5, b"k", 6), name="new")
    history = History([[(old, 0.0), (new, 4.0)]], (b"k", b"j"))
    assert history.lost == [] and history.faults == [] and history.discarded == 2
    assert history.at(b"k", 6.5)[:8] == token(6, 0xf7) and history.at(b"j", 8) is None


def test_a_history_that_does_not_explain_what_is_there_is_not_believed(tmp_path):
    history = History([[(record(tmp_path, *own(1, b"k", 5), *put(2, b"k", 5, b"a")), 0.0)]], (b"k",))
    history.compare([lambda *words: token(5) + b"a"])
    assert history.faults == []
    history.compare([lambda *words: token(5) + b"b"])
    assert len(history.faults) == 1
