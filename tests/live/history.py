# SPDX-License-Identifier: Apache-2.0
"""The history of a store, from what each node of a cluster was told to do (MONITOR), and what it says of lost and doubled updates.

MONITOR shows commands as they are carried out, also those that scripts give, but not their answers. So each node's commands are
carried out once more here, by the clock of the record; what the real nodes hold at the end must be the same, else the history is
not believed. Where a replica took over, its own record goes on, and what its master had and it has not is a lost update.
"""
import bisect
import collections
import re

VALUE, OWNED, EMPTY = 0xf5, 0xf6, 0xf7  # the first byte of what NetStar stores
LINE = re.compile(rb"^(\d+\.\d+) \[\d+ (\S+)\] (.*)$")
WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
ESCAPED = re.compile(rb"\\(x[0-9a-f]{2}|.)", re.S)
PLAIN = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}

Event = collections.namedtuple("Event", "time key before after how by")  # before, after: a Record or None
Record = collections.namedtuple("Record", "value ends")


def unescape(m):
    w = m[1]
    return bytes([int(w[1:], 16)]) if len(w) == 3 else PLAIN.get(w, w)


def commands(path):
    """(time, who, words) of each line."""
    with open(path, "rb") as f:
        for line in f.read().split(b"\n"):
            if m := LINE.match(line):
                yield float(m[1]), m[2].decode(), [ESCAPED.sub(unescape, w) for w in WORD.findall(m[3])]


class Node:
    """One node's keys, as its record says."""

    def __init__(self, path, interesting):
        self.keys, self.pools, self.interesting = {}, {}, interesting
        self.changed = {}  # when each key was changed last
        self.commands = commands(path)
        self.script = None  # who calls one, and its words

    def there(self, key, now):
        r = self.keys.get(key)
        return r if r and (r.ends is None or r.ends > now) else None

    def run(self):
        """Carries everything out: an Event for each change. `how` is the command, or the script's first argument."""
        for now, who, words in self.commands:
            name = words[0].upper() if words else b""
            if name in (b"EVALSHA", b"EVAL"):
                self.script = who, words
                continue
            if len(words) < 2 or not words[1].startswith(self.interesting):
                continue
            by, how = (self.script[0], self.script[1][4:]) if who == "lua" and self.script else (who, None)
            key = words[1]
            if name in (b"ZADD", b"ZREM"):
                yield from self.pool(now, name, key, words[2:], by)
                continue
            before = self.there(key, now)
            after = before
            if name == b"SET":
                after = self.set(now, before, words[2], [w.upper() for w in words[3:]])
            elif name in (b"DEL", b"UNLINK"):
                after = None
            elif name == b"PEXPIRE" and before:
                after = Record(before.value, now + int(words[2]) / 1e3)
            elif name == b"PEXPIREAT" and before:
                after = Record(before.value, int(words[2]) / 1e3)
            elif name == b"PERSIST" and before:
                after = Record(before.value, None)
            if after is None:
                self.keys.pop(key, None)
            else:
                self.keys[key] = after
            if after is not before:
                self.changed[key] = now
                yield Event(now, key, before, after, how, by)

    @staticmethod
    def set(now, before, value, more):
        if b"NX" in more and before:
            return before
        ends = None
        if b"PX" in more:
            ends = now + int(more[more.index(b"PX") + 1]) / 1e3
        elif b"PXAT" in more:
            ends = int(more[more.index(b"PXAT") + 1]) / 1e3
        return Record(value, ends)

    def pool(self, now, name, key, words, by):
        """A lease is a member NUMBER:TICKET, and until when."""
        pool = self.pools.setdefault(key, {})
        if name == b"ZREM":
            pool.pop(words[0], None)
            return
        score, member = float(words[0]) / 1e3, words[1]
        before = pool.get(member)
        pool[member] = score
        yield Event(now, key, before, (member, score), "lease", by)


class History:
    """All shards together. `faults` says in words what must not be."""

    def __init__(self, chains, interesting):
        self.events, self.faults, self.lost, self.discarded = [], [], [], 0
        self.nodes = []  # those that are masters at the end
        for chain in chains:
            self.nodes.append(self.follow(chain, interesting))
        self.events.sort(key=lambda e: e.time)

    def follow(self, chain, interesting):
        before = None
        for n, (path, since) in enumerate(chain):
            until = chain[n + 1][1] if n + 1 < len(chain) else float("inf")
            node, new, then = Node(path, interesting), [], None
            for event in node.run():
                if event.time >= until:  # it was paused, and did this when it woke, not knowing that it is no master any more
                    if then is None:
                        then = node.keys | {event.key: event.before}
                    self.discarded += not is_replicated(event)
                    continue
                if event.time >= since and before is not None and not is_replicated(event):
                    self.take_over(before, node, event, since)
                    before = None
                if event.time >= since and not is_replicated(event):
                    new.append(event)
            if then is not None:
                node.keys = {k: r for k, r in then.items() if r}
            if before is not None:
                self.take_over(before, node, None, since)
            self.check(new, node)
            self.events += new
            before = node
        return before

    def take_over(self, old, new, first, since):
        """What the old master had, and the new one had not when its first command came. And what the new one had got, but the
        old one had not told any more when it died."""
        for key in old.keys.keys() | new.keys.keys():
            r, mine = old.there(key, since), first.before if first is not None and key == first.key else new.there(key, since)
            if (r and r.value) == (mine and mine.value):
                continue
            told, got = old.changed.get(key, 0), new.changed.get(key, 0)
            if mine and told < got < since:
                self.events.append(Event(got, key, r, mine, "untold", ""))
            elif mine and r is None:
                self.events.append(Event(since, key, r, mine, "untold", ""))
            else:
                self.lost.append((since, key, r, mine))
                self.events.append(Event(since, key, r, mine, "lost", ""))

    def check(self, events, node):
        given, lost = {}, {key for _, key, _, _ in self.lost}
        for e in events:
            if e.how == "lease":
                self.check_lease(e, node)
                continue
            if e.how is None or e.after is None or e.after.value[0] not in (OWNED, EMPTY):
                continue
            token = e.after.value[1:8]
            held = e.before.value[1:8] if e.before and e.before.value[0] in (OWNED, EMPTY) else None
            put = len(e.how) >= 2 and e.how[0] == token
            if put and (held is None or token < held or (token > held and e.key not in lost)):
                self.faults.append(f"{e.time}: {e.key!r} written by an owner that it did not have, by {e.by}")
            if not put and token <= max(held or b"", given.get(e.key, b"")):
                self.faults.append(f"{e.time}: {e.key!r} was given to {e.by} with a token that was there before")
            given[e.key] = max(token, given.get(e.key, b""))

    def check_lease(self, e, node):
        """A new ticket for a number whose lease had not ended."""
        number = e.after[0].split(b":")[0]
        leases = self.__dict__.setdefault("leases", {}).setdefault(e.key, {})
        ticket, ends = leases.get(number, (None, 0))
        if ticket is not None and ticket != e.after[0] and ends > e.time + 0.002:
            self.faults.append(f"{e.time}: {e.key!r}: {number!r} was leased to {e.by}, and it is to another until {ends}")
        leases[number] = e.after[0], e.after[1]

    def compare(self, ask):
        """ask[n](words) asks the n-th master. What it holds must be what its history says."""
        for node, question in zip(self.nodes, ask):
            for key, r in node.keys.items():
                value = question("GET", key)
                if value != r.value and (r.ends is None or r.ends > float(question("TIME")[0]) + 2):
                    self.faults.append(f"{key!r}: its history does not explain what is there: {value!r}, not {r.value!r}")

    # ---- by key ----
    def spans(self, key):
        """[(begin, end, value)] of a key."""
        if not hasattr(self, "_spans"):
            self._spans = collections.defaultdict(list)
            for e in self.events:
                if e.how == "lease":
                    continue
                spans = self._spans[e.key]
                if spans and spans[-1][1] > e.time:
                    spans[-1][1] = e.time
                if e.after:
                    spans.append([e.time, e.after.ends or float("inf"), e.after.value])
        return self._spans[key]

    def at(self, key, time):
        """The value at this time, or None."""
        spans = self.spans(key)
        n = bisect.bisect_right([s[0] for s in spans], time) - 1
        return spans[n][2] if n >= 0 and spans[n][1] > time else None

    def keys(self, prefix):
        self.spans(b"")
        return [k for k in self._spans if k.startswith(prefix)]


def is_replicated(event):
    return re.fullmatch(r"127\.0\.0\.1:700\d", event.by) is not None


def shared_ports(history):
    """NAT: public ends that stood for two inside ends at the same time, by the store."""
    users, faults = collections.defaultdict(list), []
    for key in history.keys(b"nat:i:"):
        for begin, end, value in history.spans(key):
            record = value[8:]
            users[record[7:14]].append((begin, end, record[:7]))
    for public, spans in users.items():
        spans.sort()
        for (_, end, one), (begin, _, other) in zip(spans, spans[1:]):
            if begin < end and one != other:
                faults.append(f"{public.hex()} stands for {one.hex()} until {end}, and for {other.hex()} from {begin}")
    return faults
