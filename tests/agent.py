"""The agent, a real process on Local AWS, is stopped, raced and listened to.

It is killed before every system call that changes the disk, each of these calls fails, and files are cut off at any byte: the
directory holds the whole old set or the whole new one. Two agents write at once while programs read. Nothing that leaves the
agent, or that it keeps in memory, holds a key but the files that are meant to.

    .venv/bin/python tests/agent.py [directory of the binaries, target/debug when absent] [the agent, when it is not there]
"""

import base64
import collections
import contextlib
import http.server
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from stack import BINARIES, client_of, local_aws, openssl, said

AGENT = sys.argv[2] if len(sys.argv) > 2 else os.path.join(BINARIES, "everleaf-agent")
PKCS12 = ("keystore.p12", "truststore.p12")
FILES = {
    "ca.pem": 0o644, "cert.pem": 0o644, "chain.pem": 0o644, "fullchain.pem": 0o644, "key.pem": 0o600, "version": 0o644,
    "keystore.p12": 0o600, "truststore.p12": 0o600, "keystore.password": 0o600,
    "sds-ca.yaml": 0o644, "sds-certificate.yaml": 0o644,
}


def main():
    with local_aws(subprocess.DEVNULL) as endpoint, tempfile.TemporaryDirectory() as place:
        world = World(endpoint, place)
        stopped_at_every_call(world)
        cut_off_at_any_byte(world)
        raced(world)
        listened_to(world)


class World:
    """A secret with an old and a new version, and a directory that has the old one and one before."""

    def __init__(self, endpoint, place):
        self.endpoint, self.place, self.directory = endpoint, place, os.path.join(place, "certs")
        self.secrets, lam = client_of(endpoint, "secretsmanager"), client_of(endpoint, "lambda")
        self.values, self.versions, self.sets = {}, {}, {}
        for age in ("old", "new"):
            # The key is longer than the files written before it, and its keystore is longer still: a limit to a file's size
            # cuts off either.
            request = {"name": age, "subject": {"common_name": age}, "usage": "client-and-server", "key_algorithm": "RSA_4096"}
            answer = json.load(lam.invoke(FunctionName="everleaf-issue-client-cert", Payload=json.dumps(request))["Payload"])
            self.values[age] = self.secrets.get_secret_value(SecretId=answer["secret_arn"])["SecretString"]
        created = self.secrets.create_secret(Name="proof", SecretString=self.values["new"])
        self.versions["new"] = created["VersionId"]
        self.fetch()
        self.versions["old"] = self.secrets.put_secret_value(SecretId="proof", SecretString=self.values["old"])["VersionId"]
        self.fetch()
        self.begin = os.path.join(place, "begin")
        shutil.copytree(self.directory, self.begin, symlinks=True)
        self.sets["old"] = self.read_set()
        self.make_current("new")
        self.fetch()
        self.sets["new"] = self.read_set()
        for age in ("old", "new"):
            content = {name: content.decode() for name, content in self.sets[age].items() if name not in PKCS12}
            certificate = content["cert.pem"]
            assert openssl(["pkey", "-pubout"], content["key.pem"]) == openssl(["x509", "-noout", "-pubkey"], certificate)
            assert certificate == json.loads(self.values[age])["certificate"]

    def environment(self, **more):
        return {
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": "agent", "AWS_SECRET_ACCESS_KEY": "agent",
            "AWS_REGION": "eu-central-1", "EVERLEAF_SECRETS": "proof", "EVERLEAF_DIRECTORY": self.directory,
            "EVERLEAF_FOR": "java,envoy", **more,
        }

    def run(self, *command, environment=None, **more):
        return subprocess.run(command, env=environment or self.environment(), capture_output=True, text=True, timeout=60, **more)

    def fetch(self):
        fetched = self.run(AGENT, "fetch")
        assert fetched.returncode == 0, fetched.stderr

    def make_current(self, age):
        other = {"old": "new", "new": "old"}[age]
        self.secrets.update_secret_version_stage(SecretId="proof", VersionStage="AWSCURRENT", MoveToVersionId=self.versions[age],
                                                 RemoveFromVersionId=self.versions[other])

    def reset(self):
        shutil.rmtree(self.directory)
        shutil.copytree(self.begin, self.directory, symlinks=True)

    def read_set(self):
        """What a program reads that resolves `current` once: the files, all there and with their modes."""
        found = os.path.realpath(os.path.join(self.directory, "current"))
        contents = {}
        for name, mode in FILES.items():
            with open(os.path.join(found, name), "rb") as file:
                assert os.fstat(file.fileno()).st_mode & 0o7777 == mode, f"{name} has mode {os.fstat(file.fileno()).st_mode:o}"
                contents[name] = file.read()
        return contents

    def generation(self):
        return int(os.path.basename(os.readlink(os.path.join(self.directory, "current"))).split("-")[0])

    def age_of(self, contents):
        """Which set this is; all its files have to be of it. The PKCS#12 files differ each time they are written."""
        age = next((age for age, known in self.sets.items() if known["version"] == contents["version"]), None)
        assert age, f"the version is {contents['version']}"
        other = [name for name in FILES if name not in PKCS12 and contents[name] != self.sets[age][name]]
        # What DER says of its own length: two bytes of it, for files of this size.
        other += [name for name in PKCS12 if contents[name][1] != 0x82 or
                  int.from_bytes(contents[name][2:4], "big") + 4 != len(contents[name])]
        assert not other, f"{other} are not of the {age} set"
        return age

    def state(self):
        """The age of the current set, which is whole to the last byte; and nothing of a key lies outside of the sets."""
        contents = self.read_set()
        age = self.age_of(contents)
        for name in PKCS12 if contents != self.sets[age] else ():
            path = os.path.join(self.directory, "current", name)
            opened = openssl(["pkcs12", "-in", path, "-passin", "env:PASSWORD", "-noenc"], "",
                             {"PASSWORD": contents["keystore.password"].decode()})
            inside = ["cert.pem", "key.pem"] if name == "keystore.p12" else ["ca.pem"]
            assert all(contents[it].decode().strip() in opened for it in inside), f"{name} is not of the {age} set"
        generations = os.path.join(self.directory, ".generations")
        for folder, folders, files in os.walk(self.directory):
            if folder == generations:
                folders.clear()
            for name in files:
                with open(os.path.join(folder, name)) as file:
                    assert not found_in(file.read(), needles(self)), f"{name} holds a key"
        return age

    def goes_on(self):
        """Afterwards a `fetch` brings the new set and leaves nothing lying about."""
        self.fetch()
        assert self.state() == "new"
        assert sorted(os.listdir(self.directory)) == [".generations", "current"]
        generations = os.path.join(self.directory, ".generations")
        kept = sorted(os.listdir(generations))
        assert len(kept) == 3 and kept[2] == "told", kept
        for generation in kept[:2]:
            assert sorted(os.listdir(os.path.join(generations, generation))) == sorted(FILES), generation


# What changes the disk, by the names of all architectures, and what is written with.
CHANGES = "open(at2?)?|creat|mkdir(at)?|rmdir|(sym)?link(at)?|rename(at2?)?|unlink(at)?|p?writev?(64|2)?|f(data)?sync|sync(fs)?|" \
          "f?chmod(at)?|fl?chown(at)?|f?truncate|fallocate|sendfile|copy_file_range"


def traced(world, *options):
    """Runs `fetch` in a fresh directory under strace; what it did, as pairs of a call with its number, `write 7`, and the line."""
    world.reset()
    log = os.path.join(world.place, "trace")
    with contextlib.suppress(FileNotFoundError):
        os.remove(log)
    ended = world.run("strace", "-f", "-qq", "-y", "-s", "100000", "-o", log, "-e", f"trace=/^({CHANGES}|sendto|execve)$", *options,
                      AGENT, "fetch")
    assert os.path.exists(log), f"strace does not work here: {ended.stderr}"
    count, calls = collections.Counter(), []
    with open(log) as lines:
        for line in lines:
            if call := re.match(r"(\d+) +(\w+)\(", line):
                count[call.groups()] += 1
                calls.append((f"{call[2]} {count[call.groups()]}", line))
    return ended, calls


def stopped_at_every_call(world):
    ended, calls = traced(world)
    assert ended.returncode == 0 and world.state() == "new", ended.stderr
    outside = [line for call, line in calls if not re.search(r"write.*<" + re.escape(world.directory), line)]
    inside = [line for call, line in calls if line not in outside]
    assert len(found_in("".join(inside), needles(world))) > 50, "strace shows what is written"
    assert not found_in("".join(outside), needles(world)), "a key goes elsewhere than into its files"

    changes = [(call, line) for call, line in calls if world.directory in line and ("open" not in call or "O_CREAT" in line)]
    names = [call.split()[0] for call, _ in changes]
    assert len(changes) > 50 and {name.removesuffix("at") for name in names} >= {
        "open", "mkdir", "write", "fsync", "symlink", "rename", "unlink"}, names
    exchange = next(place for place, (call, _) in enumerate(changes) if call.startswith("rename"))
    seen = collections.Counter()
    for place, (call, line) in enumerate(changes):
        name, when = call.split()
        expected = "old" if place <= exchange else "new"
        # Killed before the call. After it nothing changes until the next one.
        ended, calls = traced(world, "-e", f"inject={name}:signal=KILL:when={when}")
        assert ended.returncode == -signal.SIGKILL, f"{line} was not met: {ended}"
        assert calls[-1][0] == call and world.directory in calls[-1][1], f"{line} was to be met, not {calls[-1]}"
        assert world.state() == expected, f"killed before {line}"
        seen["killed", expected] += 1
        world.goes_on()
        for error, text in (("ENOSPC", "No space left on device"), ("EIO", "Input/output error")):
            ended, calls = traced(world, "-e", f"inject={name}:error={error}:when={when}")
            assert any("(INJECTED)" in line for _, line in calls), f"{line} was not met: {ended}"
            age = world.state()
            assert ended.returncode == 0 and age == "new" or ended.returncode == 1 and text in ended.stderr, f"{line} {ended}"
            seen[error, age] += 1
            world.goes_on()
    said(f"`fetch` changes the disk by {len(changes)} calls; stopped at each it leaves: " +
         ", ".join(f"{how} {times} times the {age} set" for (how, age), times in sorted(seen.items())))


def cut_off_at_any_byte(world):
    """No file may grow beyond a limit: the write up to there is a short one, and the next kills the agent or fails."""
    whole = sorted({len(content) for content in world.sets["new"].values()})
    limits = sorted({*range(0, whole[-1], 89), *(size + step for size in whole for step in (-1, 0, 1))})
    cut = set()
    for limit in limits:
        for ends in (signal.SIG_DFL, signal.SIG_IGN):
            def limited():
                signal.signal(signal.SIGXFSZ, ends)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

            world.reset()
            ended = world.run(AGENT, "fetch", preexec_fn=limited)
            age = world.state()
            if ended.returncode == 0:
                assert age == "new" and limit >= whole[-1], limit
            else:
                assert age == "old", limit
                if ends == signal.SIG_DFL:
                    assert ended.returncode == -signal.SIGXFSZ, ended
                else:
                    assert ended.returncode == 1 and "File too large" in ended.stderr, ended
                    cut.add(re.search(r"write \S+/(\S+): ", ended.stderr)[1])
            world.goes_on()
    assert cut >= {"ca.pem", "cert.pem", "key.pem", "keystore.p12"}, cut
    said(f"cut off at {len(limits)} places in {', '.join(sorted(cut))}, it leaves the old set")


def raced(world):
    """A `fetch` and a `watch` write at once, 200 times, and programs read all the time."""
    world.reset()
    health = os.path.join(world.directory, ".agent", "health.json")
    ended, reads, faults = threading.Event(), collections.Counter(), []

    def read():
        try:
            while not ended.wait(0.001):
                before = os.readlink(os.path.join(world.directory, "current"))
                try:
                    reads[world.age_of(world.read_set())] += 1
                except FileNotFoundError:
                    # Slower than two exchanges.
                    assert os.readlink(os.path.join(world.directory, "current")) != before
                    reads["gone"] += 1
        except BaseException as fault:
            faults.append(fault)

    readers = [threading.Thread(target=read) for _ in range(2)]
    log = os.path.join(world.place, "watch")
    with open(log, "w") as output:
        watching = subprocess.Popen([AGENT, "watch", "--interval", "1h"], env=world.environment(), stderr=output)
    try:
        soon(lambda: world.run(AGENT, "health").returncode == 0)
        first = world.generation()
        for reader in readers:
            reader.start()
        for turn in range(200):
            world.make_current(age := ("old", "new")[turn % 2])
            looked = os.stat(health).st_mtime_ns
            watching.send_signal(signal.SIGHUP)
            world.fetch()
            soon(lambda: os.stat(health).st_mtime_ns != looked)
            assert world.age_of(world.read_set()) == age, turn
        watching.send_signal(signal.SIGTERM)
        assert watching.wait(timeout=20) == 0
    finally:
        ended.set()
        watching.kill()
        for reader in readers:
            if reader.is_alive():
                reader.join()
    if faults:
        raise faults[0]
    assert world.generation() == first + 200, "each set is written once"
    assert reads["old"] > 100 and reads["new"] > 100 and reads["gone"] < 50, reads
    shutil.rmtree(os.path.join(world.directory, ".agent"))
    world.goes_on()
    said(f"200 sets brought by two agents at once, read {reads['old'] + reads['new']} times: never a mixture")


def listened_to(world):
    """The agent tells nobody of a key: not in what it prints, keeps, hands on or says of rubbish, and not in a core dump."""
    heard, good = [], json.loads(world.values["new"])

    def fetch(status, **environment):
        ended = world.run(AGENT, "fetch", environment=world.environment(**environment))
        heard.append(ended.stdout + ended.stderr)
        assert ended.returncode == status, ended

    def watch(status, look, *arguments, **environment):
        environment = world.environment(**environment)
        with tempfile.TemporaryFile("w+") as log:
            watching = subprocess.Popen([AGENT, "watch", *arguments], env=environment, stdout=log, stderr=log)
            try:
                health = os.path.join(environment["EVERLEAF_DIRECTORY"], ".agent", "health.json")
                soon(lambda: os.path.exists(health))
                look(watching.pid)
                with open(health) as file:
                    heard.append(file.read())
                ended = world.run(AGENT, "health", environment=environment)
                heard.append(ended.stdout + ended.stderr)
                assert ended.returncode == status, ended
                watching.send_signal(signal.SIGTERM)
                assert watching.wait(timeout=20) == status
            finally:
                watching.kill()
                watching.wait()
            log.seek(0)
            heard.append(log.read())

    fetch(0)
    fetch(1, EVERLEAF_SECRETS="none")
    fetch(2, EVERLEAF_FOR="go")
    fetch(1, EVERLEAF_DIRECTORY=os.path.join(world.begin, "current", "key.pem"))

    # All that the command is given: arguments, environment, open files; and what anybody sees of the agent itself.
    script = "{ tr '\\0' '\\n' < /proc/self/environ; printf '%s\\n' \"$0\" \"$@\"; ls -l /proc/self/fd;" \
             " tr '\\0' '\\n' < /proc/$PPID/environ; tr '\\0' '\\n' < /proc/$PPID/cmdline; } > " + os.path.join(world.place, "told")
    world.reset()

    def remembers(pid):
        memory = memory_of(pid)
        assert world.directory.encode() in memory, "its memory is read"
        kept = [needle for needle in in_memory(world) if needle in memory]
        assert not kept, f"{len(kept)} parts of keys stay in memory"

    watch(0, remembers, "--exec", "sh", "-c", script, "told")
    with open(os.path.join(world.place, "told")) as told:
        heard.append(told.read())
    assert "EVERLEAF_DIRECTORY" in heard[-1] and "watch" in heard[-1], heard[-1]

    other = json.loads(world.values["old"])
    broken = good["private_key"][:-200]
    values = [
        "{}", good["private_key"], world.values["new"][:-30], json.dumps([good]),
        json.dumps({good["private_key"]: good["passphrase"]}),
        *(json.dumps({**good, **spoiled}) for spoiled in (
            {"private_key": other["private_key"]}, {"private_key": broken}, {"private_key": {"pem": good["private_key"]}},
            {"passphrase": other["passphrase"]}, {"passphrase": [good["passphrase"]]}, {"passphrase": None},
            {"private_key": other["private_key"], "passphrase": other["passphrase"]},
            {"certificate": good["private_key"]}, {"certificate": good["certificate"][:-200] + good["private_key"]},
            {"certificate_chain": good["private_key"]}, {"certificate_chain": good["passphrase"]},
        )),
    ]
    answers = [(200, json.dumps({"VersionId": "spoiled", "SecretString": value})) for value in values]
    answers += [
        (200, json.dumps({"VersionId": "spoiled", "SecretString": world.values["new"], "CreatedDate": "today"})),
        (200, world.values["new"]), (200, json.dumps({"SecretString": world.values["new"]})[:-20]), (200, json.dumps([good])),
        (400, json.dumps({"__type": "DecryptionFailure", "SecretString": world.values["new"]})), (400, world.values["new"]),
        (500, world.values["new"]),
    ]
    with Answering() as server:
        for server.answer in answers:
            with tempfile.TemporaryDirectory() as empty:
                instead = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "EVERLEAF_DIRECTORY": empty}
                fetch(1, **instead)
                watch(1, lambda _: None, **instead)
                kept = [files for _, _, files in os.walk(empty)]
                assert sum(kept, []) == ["health.json"], kept
    text = "\n".join(heard)
    for part in ("good: proof until ", "missing: proof: ", "failed to parse JSON", "no format `go`", "not issued yet"):
        assert part in text, f"{part} was heard"
    assert len(found_in(json.dumps(world.values["new"]), needles(world))) > 50, "a key that is told is found"
    assert not (leaked := found_in(text, needles(world))), f"{leaked} in {text}"
    said(f"in {len(heard)} things heard of it, at {len(answers)} kinds of rubbish too, and in its memory there is no key")


class Answering(http.server.HTTPServer):
    """Secrets Manager that gives one answer to all."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.answer = None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def soon(look):
    give_up = time.monotonic() + 20
    while not look():
        assert time.monotonic() < give_up, "not within 20 s"
        time.sleep(0.01)


def needles(world):
    """Lines out of the middle of each key, as it is in the secret and as it is written, and what opens it."""
    found = {"PRIVATE KEY-----"}
    for age, value in world.values.items():
        value, contents = json.loads(value), world.sets.get(age, {})
        found.add(value["passphrase"])
        for text in (value["private_key"], contents.get("key.pem", b"").decode()):
            found |= {line for line in text.splitlines() if len(line) == 64}
        found |= {contents[name].decode() for name in ("keystore.password",) if name in contents}
    return found


def in_memory(world):
    """The needles as bytes, and the keys' own bytes."""
    texts = needles(world)
    return [text.encode() for text in texts] + [base64.b64decode(text) for text in texts if len(text) == 64]


def memory_of(pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        found = b""
        for line in maps:
            area = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if area:
                begin, end = (int(text, 16) for text in area.groups())
                memory.seek(begin)
                found += memory.read(end - begin)
    return found


def found_in(text, wanted):
    """Text may stand escaped inside of text."""
    text = text.replace("\\\\n", "\n").replace("\\n", "\n")
    return [needle for needle in wanted if needle in text]


if __name__ == "__main__":
    main()
