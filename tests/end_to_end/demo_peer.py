#!/usr/bin/env python3
"""The demo's other side, beyond the boundary: a sniffer, and a client of the inference server.

`sniff V4 V6` prints one JSON line for each packet that arrives for those addresses, as the
wire shows it; the server side has no say in it. It also listens on the ports the demo
uses, so that a connection that does get through can deliver its text. Ends at the end of
its standard input. `ask URL TEXT...` posts the texts to /v1/embeddings; `post URL JSON`
posts JSON as it is; `keep URL FOLDER TEXT...` asks, and keeps request and answer as they were
sent and the receipt's id; `get URL` gets; `ready URL` says by its exit code whether URL answers 200.
"""
import ipaddress
import json
import pathlib
import socket
import sys
import threading
import urllib.error
import urllib.request

ETH_P_ALL = 3
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}


def listen(v4, v6):
    """Plays the collector: accepts and reads, so that the control case really delivers."""
    for family, address in ((socket.AF_INET, v4), (socket.AF_INET6, v6)):
        s = socket.socket(family, socket.SOCK_STREAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((address, 443))
        s.listen(8)
        threading.Thread(target=accept, args=(s,), daemon=True).start()
    for port in (9000, 53):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind((v4, port))
        threading.Thread(target=drain, args=(s,), daemon=True).start()


def accept(listener):
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=drain, args=(peer,), daemon=True).start()


def drain(peer):
    while peer.recv(65536):
        pass


def parse(frame):
    """Destination, protocol, port and payload of an Ethernet frame with IP in it, or None."""
    kind, packet = frame[12:14], frame[14:]
    if kind == b"\x08\x00" and len(packet) >= 20:
        start = (packet[0] & 15) * 4
        return ipaddress.ip_address(packet[16:20]), packet[9], packet[start:]
    if kind == b"\x86\xdd" and len(packet) >= 40:
        return ipaddress.ip_address(packet[24:40]), packet[6], packet[40:]
    return None


def sniff(v4, v6):
    wanted = {ipaddress.ip_address(v4), ipaddress.ip_address(v6)}
    listen(v4, v6)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    threading.Thread(target=lambda: (sys.stdin.read(), wire.close(), sys.stdout.flush(), __import__("os")._exit(0)), daemon=True).start()
    print(json.dumps({"ready": True}), flush=True)
    while True:
        frame, origin = wire.recvfrom(65536)
        if origin[2] == socket.PACKET_OUTGOING:
            continue
        found = parse(frame)
        if found is None or found[0] not in wanted:
            continue
        address, protocol, rest = found
        port = int.from_bytes(rest[2:4], "big") if protocol in (6, 17) and len(rest) >= 4 else None
        print(json.dumps({"to": str(address), "protocol": PROTOCOLS.get(protocol, protocol), "port": port, "bytes": len(rest)}), flush=True)


def say(request, keep=None):
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
            receipt = answer.headers.get("Merestone-Receipt", "")
    except urllib.error.URLError as error:
        sys.exit(f"error: {request.full_url}: {error}")
    if keep is not None:
        (keep / "asked.json").write_bytes(request.data)
        (keep / "answered.json").write_bytes(body)
        (keep / "receipt.id").write_text(receipt)
    sys.stdout.write(body.decode())


def post(url, value, keep=None):
    say(urllib.request.Request(url, json.dumps(value).encode(), {"Content-Type": "application/json"}), keep)


def main():
    match sys.argv[1:]:
        case ["sniff", v4, v6]:
            sniff(v4, v6)
        case ["ask", url, *texts] if texts:
            post(url, {"model": "all-MiniLM-L6-v2", "input": texts})
        case ["keep", url, folder, *texts] if texts:
            post(url, {"model": "all-MiniLM-L6-v2", "input": texts}, pathlib.Path(folder))
        case ["ready", url]:
            try:
                urllib.request.urlopen(url, timeout=5).close()
            except OSError as error:
                sys.exit(f"{url}: {error}")
        case ["get", url]:
            say(urllib.request.Request(url))
        case ["post", url, text]:
            post(url, json.loads(text))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
