# SPDX-License-Identifier: Apache-2.0
"""What a tap or a bad line does to a capture, done to clean ones: made the same way every time from a seed."""
import gzip
import random
import struct

# name of the new capture: (from which, what is done)
RECIPES = {
    "off_reorder_http": ("http_big", "reorder"),
    "off_reorder_upload": ("http_post", "reorder"),
    "off_reorder_far": ("mtu_576", "reorder_far"),
    "off_duplicate": ("http_keep_alive", "duplicate"),
    "off_duplicate_late": ("git", "duplicate_late"),
    "off_reorder_ipv6": ("mtu_1280_ipv6", "reorder"),
    "off_vlan": ("http_keep_alive", "vlan"),
    "off_qinq": ("http_pipelined", "qinq"),
    "off_reorder_vlan": ("http_parallel", "vlan_reorder"),
    "off_swapped_all": ("no_timestamps", "swap_all"),
    "off_behind_upload": ("http_post", "behind"),
    "off_behind_ipv6": ("mtu_1280_ipv6", "behind"),
    "off_lost_acks": ("no_window_scaling", "lose_acks"),
    "off_resent": ("both_send_at_once", "resent"),
    "off_resliced": ("chat", "resliced"),
    "off_begins_late": ("redis", "begins_late"),
    "off_ends_early": ("http_parallel", "ends_early"),
    "off_everything": ("both_send_at_once", "everything"),
}


def read(data):
    head, packets, at = data[:24], [], 24
    while at < len(data):
        kept = struct.unpack_from("<I", data, at + 8)[0]
        packets.append((data[at:at + 8], data[at + 16:at + 16 + kept]))
        at += 16 + kept
    return head, packets


def write(head, packets):
    """The times stay as they were, in their order."""
    times = sorted(t for t, _ in packets)
    times.sort(key=lambda t: struct.unpack("<II", t))
    return head + b"".join(t + struct.pack("<II", len(f), len(f)) + f for t, (_, f) in zip(times, packets))


def layers(frame):
    """(offset of IP, of TCP, of the payload, its length, flags); None where it is not TCP."""
    at, kind = 14, struct.unpack_from("!H", frame, 12)[0]
    while kind in (0x8100, 0x88a8):
        kind = struct.unpack_from("!H", frame, at + 2)[0]
        at += 4
    if kind == 0x0800 and frame[at + 9] == 6:
        l4, end = at + (frame[at] & 15) * 4, at + struct.unpack_from("!H", frame, at + 2)[0]
    elif kind == 0x86dd and frame[at + 6] == 6:
        l4, end = at + 40, at + 40 + struct.unpack_from("!H", frame, at + 4)[0]
    else:
        return None
    payload = l4 + (frame[l4 + 12] >> 4) * 4
    return at, l4, payload, end - payload, frame[l4 + 13]


def payload_of(packet):
    found = layers(packet[1])
    return found[3] if found else 0


def plain(packet):
    """A data segment without SYN, FIN, RST: it may come at another place without another meaning."""
    found = layers(packet[1])
    return found is not None and found[3] > 0 and found[4] & 7 == 0


def ends(packet):
    found = layers(packet[1])
    return found is None or found[4] & 7 != 0


def stays_ahead(packet, other):
    """Whether a data segment must not come behind that packet: an end, or what acknowledges it. A tap sees an answer
    after what it answers."""
    if ends(other):
        return True
    a, b = layers(packet[1]), layers(other[1])
    mine = struct.unpack_from("!HHI", packet[1], a[1])
    theirs = struct.unpack_from("!HHII", other[1], b[1])
    return (theirs[1], theirs[0]) == mine[:2] and 0 < (theirs[3] - mine[2]) & 0xffffffff < 1 << 31


def move(packets, rng, often, far, stays=stays_ahead):
    """Some data segments come later."""
    out = list(packets)
    for i in range(len(out)):
        if plain(out[i]) and rng.random() < often:
            to, places = i, rng.randint(1, far)
            while to - i < places and to + 1 < len(out) and not stays(out[i], out[to + 1]):
                to += 1
            out.insert(to, out.pop(i))
    return out


def checksum(data):
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def segment(frame, skip, length):
    """A part of a segment's payload as a segment of its own (IPv4)."""
    at, l4, payload, _, _ = layers(frame)
    seq = struct.unpack_from("!I", frame, l4 + 4)[0]
    tcp = bytearray(frame[l4:payload])
    struct.pack_into("!I", tcp, 4, (seq + skip) & 0xffffffff)
    struct.pack_into("!H", tcp, 16, 0)
    body = bytes(tcp) + frame[payload + skip:payload + skip + length]
    ip = bytearray(frame[at:l4])
    struct.pack_into("!H", ip, 2, len(ip) + len(body))
    struct.pack_into("!H", ip, 10, 0)
    struct.pack_into("!H", ip, 10, checksum(bytes(ip)))
    pseudo = bytes(ip[12:20]) + struct.pack("!BBH", 0, 6, len(body))
    tcp[16:18] = struct.pack("!H", checksum(pseudo + body))
    return frame[:at] + bytes(ip) + bytes(tcp) + body[len(tcp):]


def reorder(packets, rng):
    return move(packets, rng, 0.2, 3)


def behind(packets, rng):
    """Two taps, one for each direction: a segment may stand behind the ACK that acknowledges it."""
    return move(packets, rng, 0.2, 3, lambda packet, other: ends(other))


def reorder_far(packets, rng):
    return move(packets, rng, 0.15, 15)


def duplicate(packets, rng):
    return [p for q in packets for p in ([q, q] if plain(q) and rng.random() < 0.4 else [q])]


def duplicate_late(packets, rng):
    out = []
    waiting = []
    for p in packets:
        out.append(p)
        if plain(p) and rng.random() < 0.3:
            waiting.append((len(out) + rng.randint(2, 10), p))
        for w in [w for w in waiting if w[0] <= len(out) and not ends(p)]:
            out.append(w[1])
            waiting.remove(w)
    return out


def swap_all(packets, rng):
    out = list(packets)
    i = 0
    while i + 1 < len(out):
        if plain(out[i]) and plain(out[i + 1]):
            out[i], out[i + 1] = out[i + 1], out[i]
            i += 1
        i += 1
    return out


def lose_acks(packets, rng):
    return [p for p in packets if ends(p) or payload_of(p) > 0 or rng.random() < 0.5]


def resent(packets, rng):
    """Lost ahead of the tap, and sent again a while later: as `late`, and once more as a repetition."""
    return duplicate(move(packets, rng, 0.1, 8), rng)


def resliced(packets, rng):
    """Retransmissions whose borders are others: segments come again in parts and joined."""
    out = []
    for p in packets:
        out.append(p)
        n = payload_of(p)
        if plain(p) and n > 1 and rng.random() < 0.5:
            cut = rng.randint(1, n - 1)
            out[-1:] = rng.choice([
                [(p[0], segment(p[1], 0, cut)), p],
                [(p[0], segment(p[1], cut, n - cut)), (p[0], segment(p[1], 0, cut))],
                [p, (p[0], segment(p[1], cut, n - cut))],
                [(p[0], segment(p[1], cut, n - cut)), p, p]])
    return out


def tagged(packets, *tags):
    """As a trunk carries them; the outer tag first."""
    tag = b"".join(struct.pack("!HH", 0x88a8 if i + 1 < len(tags) else 0x8100, vlan) for i, vlan in enumerate(tags))
    return [(t, f[:12] + tag + f[12:]) for t, f in packets]


def vlan(packets, rng):
    return tagged(packets, 100)


def qinq(packets, rng):
    return tagged(packets, 200, 300)


def vlan_reorder(packets, rng):
    return tagged(reorder(packets, rng), 100)


def begins_late(packets, rng):
    return packets[20:]


def ends_early(packets, rng):
    return packets[:len(packets) * 2 // 3]


def everything(packets, rng):
    return duplicate_late(resliced(move(packets, rng, 0.1, 5), rng), rng)


def make_all(directory):
    for name, (source, what) in RECIPES.items():
        head, packets = read(gzip.decompress((directory / f"{source}.pcap.gz").read_bytes()))
        data = write(head, globals()[what](packets, random.Random(name)))
        with open(directory / f"{name}.pcap.gz", "wb") as f, gzip.GzipFile("", "wb", 9, f, 0) as z:
            z.write(data)
        print(f"{name:<36}{len(data):>9}{(directory / f'{name}.pcap.gz').stat().st_size:>9}", flush=True)
