"""make bench: how fast the functions are, beside what they could be and what they take the place of.

    python tests/bench.py DRIVER BINARIES   e.g. target/simulate target/release

DRIVER has what measures (tests/src/bench), BINARIES the functions as they are deployed. Linux alone. Times are of this machine and
vary; ratios vary less, and instructions hardly. Figures of an earlier day are in docs/performance.md.
"""

import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
RECORDED = os.path.join(HERE, "bench", "instructions.txt")
FUNCTIONS = ["issue-client-cert", "export-to-secrets", "renew-on-expiry", "force-redeploy", "refresh-truststore"]


def main():
    driver, binaries = sys.argv[1:]
    begun = time.monotonic()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {model()}, {time.strftime('%Y-%m-%d')}\n")
    for name, section in (("Start", start), ("Memory setting", memory), ("Scale", scale), ("Storm", storm), ("Crypto", crypto),
                          ("End to end", end_to_end), ("Instructions", instructions)):
        print(f"## {name}\n", flush=True)
        section(driver, binaries)
        print(f"\n({time.monotonic() - begun:.0f} s so far)\n", flush=True)


def model():
    with open("/proc/cpuinfo") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown processor")


def measured(driver, *arguments):
    """The lines of JSON that the driver prints."""
    # What the functions log goes to the standard error.
    done = subprocess.run([f"{driver}/bench", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def start(driver, binaries):
    rows = measured(driver, "start", binaries, f"{binaries}/examples/hello", sys.executable)
    samples = {row["start"]: row["samples"] for row in rows}
    floor, python = (statistics.median(samples[name]["start_ms"]) for name in ("hello", "python"))
    table = [("", "start ms", "of the floor", "of Python", "CPU ms", "MiB", "first event ms", "CPU ms", "later ms", "CPU ms", "calls", "peak MiB", "zip MiB")]
    for row in rows:
        name, of = row["start"], row["samples"]
        begun = statistics.median(of["start_ms"])
        program = f"{binaries}/examples/hello" if name == "hello" else f"{binaries}/{name}"
        table.append((
            name, spread(of["start_ms"]), f"{begun / floor:.1f} ×", f"1/{python / begun:.0f}", spread(of["start_cpu_ms"]), mib(of["start_kib"]),
            spread(of["first_ms"]), spread(of["first_cpu_ms"]), spread(of["later_ms"]), spread(of["later_cpu_ms"]),
            f"{statistics.median(of['later_calls']):.0f}", mib(of["peak_kib"]), f"{zipped(program):.2f}" if os.path.exists(program) else ""))
    show(table)
    print("\nMedians of ten processes, with half of the distance between the quartiles. `hello` is the floor: an empty function in Rust.\n"
          "`python` is tests/bench/renewal.py with boto3 under awslambdaric. Each first event is a whole one, by TLS: a certificate is issued\n"
          "(AWS Private CA takes 2.5 s of it), exported, looked at, a service redeployed, a trust store compared.")


def memory(driver, binaries):
    rows = measured(driver, "memory", binaries)
    if rows[0]["memory"] is None:
        print(f"Not measured: {rows[0]['why']}")
        return
    settings = sorted({row["memory"] for row in rows})
    table = [("", *(f"{setting} MiB" for setting in settings))]
    for function in FUNCTIONS:
        of = {row["memory"]: row for row in rows if row["function"] == function}
        table.append((function, *(f"{of[setting]['first_ms']:.0f}, {statistics.median(of[setting]['later_ms']):.0f}" for setting in settings)))
    show(table)
    print("\nMilliseconds of the first event and of later ones, with the part of a processor that Lambda gives for that memory. Calls take\n"
          "no time here, but for AWS Private CA's 2.5 s.")


def scale(driver, binaries):
    subprocess.run([f"{driver}/memory", binaries, "100", "10000", "100000"], stderr=subprocess.DEVNULL)


def storm(driver, _):
    """A tenth of what `make storm` runs. Its verdict is that one's."""
    subprocess.run([f"{driver}/storm", "1000"])


def crypto(_, binaries):
    from cryptography import x509
    from cryptography.hazmat.backends.openssl import backend
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    folder = tempfile.mkdtemp()
    done = subprocess.run([f"{binaries}/examples/crypto", folder], stdout=subprocess.PIPE, text=True, check=True)
    ours = {(row["algorithm"], row["crypto"]): row["us"] for row in map(json.loads, done.stdout.splitlines())}
    read = lambda name: open(os.path.join(folder, name), "rb").read()
    table = [("µs", "key", "CSR", "PKCS#8 encrypted", "PKCS#8 decrypted", "chain verified", "pair verified")]
    for algorithm in dict.fromkeys(algorithm for algorithm, _ in ours):
        key = serialization.load_pem_private_key(read(f"{algorithm}.key"), None)
        kind, size = algorithm.split("_")
        generate = (lambda: rsa.generate_private_key(65537, int(size))) if kind == "RSA" else (
            lambda: ec.generate_private_key({"prime256v1": ec.SECP256R1, "secp384r1": ec.SECP384R1}[size]()))
        digest = hashes.SHA384() if size == "secp384r1" else hashes.SHA256()
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "orders")])
        san = x509.SubjectAlternativeName([x509.DNSName("orders.example.internal")])
        request = lambda: x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(san, False).sign(key, digest).public_bytes(
            serialization.Encoding.PEM)
        password = b"a passphrase of forty-three characters, yes"
        seal = lambda: key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(password))
        sealed = seal()
        pems = [read(f"{algorithm}.{kind}") for kind in ("pem", "chain.pem", "key")]

        def verify():
            leaf, (issuing, root) = x509.load_pem_x509_certificate(pems[0]), x509.load_pem_x509_certificates(pems[1])
            verifier = x509.verification.PolicyBuilder().store(x509.verification.Store([root]))
            verifier.build_server_verifier(x509.DNSName("orders.example.internal")).verify(leaf, [issuing])
            return leaf

        def verify_pair():
            assert verify().public_key() == serialization.load_pem_private_key(pems[2], None).public_key()

        theirs = {
            "key": timed(generate, 12 if kind == "RSA" else 300), "CSR": timed(request, 100), "PKCS#8 encrypted": timed(seal, 100),
            "PKCS#8 decrypted": timed(lambda: serialization.load_pem_private_key(sealed, password, unsafe_skip_rsa_key_validation=True), 100), "chain verified": timed(verify, 100),
            "pair verified": timed(verify_pair, 20)}
        table.append((algorithm, *(f"{statistics.median(ours[algorithm, what]):,.0f} : {statistics.median(theirs[what]):,.0f}" for what in table[0][1:])))
    shutil.rmtree(folder)
    show(table)
    print(f"\nMedians, Everleaf's : those of {backend.openssl_version_text()} through Python's cryptography.")


def timed(work, runs):
    work()
    took = []
    for _ in range(runs):
        begun = time.perf_counter()
        work()
        took.append((time.perf_counter() - begun) * 1e6)
    return took


def end_to_end(driver, binaries):
    rows = measured(driver, "end-to-end", binaries)
    show([("", "ms"), *((row["end_to_end"], spread(row["ms"])) for row in rows)])


def instructions(driver, binaries):
    if not shutil.which("valgrind"):
        print("Not counted: valgrind is not here.")
        return
    recorded = {}
    if os.path.exists(RECORDED):
        with open(RECORDED) as file:
            recorded = dict(line.rsplit(None, 1) for line in file if line.strip() and not line.startswith("#"))
    table = [("", "instructions", "recorded", "change")]
    for row in measured(driver, "instructions", binaries):
        name, count = row["instructions"], row["count"]
        before = int(recorded.get(name, 0))
        table.append((name, f"{count:,}", f"{before:,}", f"{(count / before - 1) * 100:+.1f} %" if before else "new"))
    show(table)
    print(f"\nRecorded in {os.path.relpath(RECORDED)}; what changes by more than 5 % is explained there.")


def spread(values):
    low, middle, high = statistics.quantiles(values, n=4)
    digits = 2 if middle < 10 else 0
    return f"{middle:,.{digits}f} ± {(high - low) / 2:.{digits}f}"


def mib(values):
    return f"{statistics.median(values) / 1024:.1f}"


def zipped(path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "bootstrap")
    return buffer.tell() / 1024 / 1024


def show(rows):
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(text.ljust(width) if place == 0 else text.rjust(width) for place, (text, width) in enumerate(zip(row, widths))).rstrip())


if __name__ == "__main__":
    main()
