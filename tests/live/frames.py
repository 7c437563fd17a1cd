# SPDX-License-Identifier: Apache-2.0
"""Ethernet frames of TCP conversations, and pcap files, with the standard library only."""
import socket
import struct

CLIENT, SERVER = "10.77.0.1", "10.77.0.2"
SYN, ACK, FIN, PUSH = 2, 16, 1, 8


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def tcp(src, dst, sport, dport, seq, ack, flags, data=b""):
    """One IPv4 TCP segment as an Ethernet frame, its checksums right."""
    a, b = socket.inet_aton(src), socket.inet_aton(dst)
    segment = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xffffffff, ack & 0xffffffff, 5 << 4, flags, 65535, 0, 0)
    segment += data
    c = checksum(a + b + struct.pack("!BBH", 0, 6, len(segment)) + segment)
    segment = segment[:16] + struct.pack("!H", c) + segment[18:]
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 1, 0, 64, 6, 0, a, b)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return b"\x02\0\0\0\0\2" + b"\x02\0\0\0\0\1" + b"\x08\0" + head + segment


def conversation(port, requests, answers, seq=1000, peer=5000, size=1400):
    """The frames of a connection from the client's port to port 80: handshake, requests, answers, both FINs."""
    def up(flags, data=b""):
        return tcp(CLIENT, SERVER, port, 80, seq, peer, flags, data)

    def down(flags, data=b""):
        return tcp(SERVER, CLIENT, 80, port, peer, seq, flags, data)

    out = [tcp(CLIENT, SERVER, port, 80, seq, 0, SYN)]
    seq += 1
    out.append(down(SYN | ACK))
    peer += 1
    out.append(up(ACK))
    for data in requests:
        out.append(up(ACK | PUSH, data))
        seq += len(data)
        out.append(down(ACK))
    for answer in answers:
        for at in range(0, len(answer), size):
            part = answer[at:at + size]
            out.append(down(ACK | PUSH, part))
            peer += len(part)
            out.append(up(ACK))
    out.append(up(FIN | ACK))
    seq += 1
    out.append(down(FIN | ACK))
    peer += 1
    out.append(up(ACK))
    return out


def interleave(*conversations):
    """One frame of each in turn."""
    out = []
    for i in range(max(map(len, conversations))):
        out += [c[i] for c in conversations if i < len(c)]
    return out


def write_pcap(path, packets, link=1, start=1700000000):
    """A capture with a millisecond between two packets."""
    with open(path, "wb") as f:
        f.write(pcap(packets, link, start))


def pcap(packets, link=1, start=1700000000):
    out = [struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, link)]
    for i, p in enumerate(packets):
        out.append(struct.pack("<IIII", start + i // 1000, i % 1000 * 1000, len(p), len(p)) + p)
    return b"".join(out)


def read_pcap(path):
    with open(path, "rb") as f:
        data = f.read()
    magic, = struct.unpack("<I", data[:4])
    if magic not in (0xa1b2c3d4, 0xa1b23c4d):
        raise ValueError(f"{path} is not a pcap file of this machine's byte order")
    out, at = [], 24
    while at + 16 <= len(data):
        n, = struct.unpack("<I", data[at + 8:at + 12])
        out.append(data[at + 16:at + 16 + n])
        at += 16 + n
    return out


def payload(packets, sport, dport):
    """The bytes that the IPv4 TCP segments between those ports carry, in the order of the file, each once."""
    out, following = b"", None
    for p in packets:
        head = 14 + (p[14] & 15) * 4
        if struct.unpack("!HH", p[head:head + 4]) != (sport, dport):
            continue
        data = p[head + (p[head + 12] >> 4) * 4:14 + struct.unpack("!H", p[16:18])[0]]
        seq, = struct.unpack("!I", p[head + 4:head + 8])
        if data and (following is None or seq == following):
            out += data
            following = (seq + len(data)) & 0xffffffff
    return out
