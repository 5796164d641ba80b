# SPDX-License-Identifier: Apache-2.0
"""Cloud NAT before a machine of the rig: so many source ports for each destination, each held for a time after its
connection has ended, and packets without a port dropped in silence. Google's doubles are on loopback and do not pass it,
as Google's own do not."""

import itertools
import json
import os
import subprocess
from pathlib import Path

from .process import Process, run

# Of market hosts, each Nat another: the last packets of one test's connections are nothing to the next.
NUMBERS = itertools.count(10)
RULES = """
table ip cnat {
  counter dropped { }
  set used { type ipv4_addr . inet_service . inet_service; flags dynamic,timeout; timeout 1200s; size %(ports)d; }
  chain gate { type filter hook forward priority 0
    ip daddr %(outside)s tcp flags & (fin|rst) != 0 update @used { ip saddr . tcp sport . tcp dport timeout 120s } accept
    ip daddr %(outside)s tcp flags & (syn|ack) == syn add @used { ip saddr . tcp sport . tcp dport } accept
    ip daddr %(outside)s tcp flags & (syn|ack) == syn counter name dropped drop
  }
  chain post { type nat hook postrouting priority srcnat; oifname "ext0" snat to 203.0.113.1
  }
}
"""
# HTTP/1.1 over TLS: each GET is answered by what document.py's `answer(path)` gives; MARKET_CLOSE ends each connection.
SERVER = """
import http.server, os, ssl, sys
sys.path.insert(0, sys.argv[1])
import document
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        body = document.answer(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if os.environ.get("MARKET_CLOSE"):
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer((sys.argv[2], 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


class Nat:
    """The fabric `fab` with the NAT and the Internet `net` behind it, beside the rig's own network namespace."""

    def __init__(self, directory, ports=64):
        self.dir = Path(directory) / "nat"
        self.dir.mkdir()
        self.ports = ports
        self.outside = f"203.0.113.{next(NUMBERS)}"
        self.market = None

    def start(self, document, closing=False):
        """`document` is Python that has answer(path); `closing`: the host ends each connection after its answer."""
        (self.dir / "document.py").write_text(document)
        (self.dir / "server.py").write_text(SERVER)
        self._make_network()
        self._make_certificate()
        self.market = Process("market", ["ip", "netns", "exec", "net", "/usr/bin/python3", self.dir / "server.py", self.dir,
                                         self.outside], self.dir, cwd=self.dir, env={"MARKET_CLOSE": "1" if closing else None})
        self.market.start()
        self.market.wait_ready("port 443", lambda: ":443" in run(["ip", "netns", "exec", "net", "ss", "-ltn"]).stdout)
        return self

    def stop(self):
        if self.market:
            self.market.kill()
        subprocess.run(["ip", "link", "del", "eth0"], check=False, capture_output=True)
        for name in ("fab", "net"):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["umount", "/etc/ssl/certs/ca-certificates.crt"], check=False, capture_output=True)

    @property
    def dropped(self):
        """Packets that found no port."""
        return self._nft("counter", "dropped")["packets"]

    @property
    def used(self):
        """Ports that are held now."""
        return len(self._nft("set", "used").get("elem", []))

    def _nft(self, kind, name):
        out = run(["ip", "netns", "exec", "fab", "nft", "-j", "list", kind, "ip", "cnat", name]).stdout
        return next(item[kind] for item in json.loads(out)["nftables"] if kind in item)

    def _make_network(self):
        for line in """
            netns add fab|netns add net|-n fab link set lo up|-n net link set lo up
            link add eth0 mtu 1460 type veth peer name vm0 netns fab
            link add ext0 netns fab type veth peer name eth0 netns net
            addr add 10.128.0.2/32 dev eth0|link set eth0 up
            -n fab addr add 10.128.0.1/32 dev vm0|-n fab link set vm0 up|-n fab route add 10.128.0.2/32 dev vm0
            route add 10.128.0.1/32 dev eth0|route add default via 10.128.0.1 dev eth0
            -n fab addr add 203.0.113.1/24 dev ext0|-n fab link set ext0 up
            -n net addr add OUTSIDE/24 dev eth0|-n net link set eth0 up
        """.replace("OUTSIDE", self.outside).replace("\n", "|").split("|"):
            if line.strip():
                run(["ip", *line.split()])
        run(["ip", "netns", "exec", "fab", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
        rules = self.dir / "rules.nft"
        rules.write_text(RULES % {"ports": self.ports, "outside": self.outside})
        run(["ip", "netns", "exec", "fab", "nft", "-f", rules])

    def _make_certificate(self):
        """For the market host's address, and trusted on this machine alone."""
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=market", "-addext", f"subjectAltName=IP:{self.outside}", "-keyout", self.dir / "key.pem", "-out",
             self.dir / "cert.pem"])
        store = Path("/etc/ssl/certs/ca-certificates.crt")
        trusted = self.dir / "trusted.crt"
        trusted.write_bytes((store.read_bytes() if store.exists() else b"") + (self.dir / "cert.pem").read_bytes())
        os.chmod(trusted, 0o644)
        run(["mount", "--bind", trusted, store])
