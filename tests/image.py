"""The image of `make agent-image`, built by buildah and looked at layer by layer; then the agent runs in it and in nothing else.

    .venv/bin/python tests/image.py [directory of the binaries, target/debug when absent]
"""

import io
import json
import os
import re
import subprocess
import tarfile
import tempfile

from stack import ROOT, client_of, local_aws, said

FILES = {  # and their modes
    "certs": 0o1777, "etc": 0o755, "etc/ssl": 0o755, "etc/ssl/certs": 0o755,
    "etc/ssl/certs/ca-certificates.crt": 0o644, "everleaf-agent": 0o755,
}
KEY = re.compile(rb"PRIVATE KEY-----\s+[A-Za-z0-9+/=]{32}")


def main():
    with tempfile.TemporaryDirectory() as place:
        layout, root = os.path.join(place, "layout"), os.path.join(place, "root")
        os.mkdir(root)
        subprocess.run(["make", "agent-image", "BUILDER=buildah bud --isolation chroot"], cwd=ROOT, check=True)
        subprocess.run(["buildah", "push", "--quiet", "everleaf-agent", f"oci:{layout}"], check=True)

        def blob(digest):
            with open(os.path.join(layout, "blobs", *digest.split(":")), "rb") as file:
                return file.read()

        with open(os.path.join(layout, "index.json")) as index:
            manifest = json.loads(blob(json.load(index)["manifests"][0]["digest"]))
        image = json.loads(blob(manifest["config"]["digest"]))
        expected = {"User": "65532:65532", "Entrypoint": ["/everleaf-agent"], "Cmd": ["--help"], "Volumes": {"/certs": {}}}
        config = image["config"]
        # Every builder gives an image a PATH, and buildah a label with its own version.
        assert all(variable.startswith("PATH=") for variable in config.pop("Env", [])), image
        assert set(config.pop("Labels", [])) <= {"io.buildah.version"}, image
        machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
        assert config == expected and (image["os"], image["architecture"]) == ("linux", machine), image

        found, size = {}, 0
        for layer in manifest["layers"]:
            content = blob(layer["digest"])
            size += len(content)
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for file in archive:
                    found[file.name.rstrip("/")] = file.mode & 0o7777
                    if not file.isdir():
                        assert file.isfile() and not KEY.search(archive.extractfile(file).read()), f"{file.name} holds a key"
                archive.extractall(root)
        assert found == FILES, found
        assert not KEY.search(json.dumps(image).encode().replace(b"\\n", b"\n")), "the image's history holds a key"

        # As root it runs as the image's user.
        enter = ["chroot", "--userspec", expected["User"]] if os.geteuid() == 0 else ["unshare", "--map-root-user", "chroot"]

        def run(*arguments, **environment):
            command = [*enter, root, *expected["Entrypoint"], *arguments]
            ended = subprocess.run(command, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True)
            assert ended.returncode == 0, ended
            return ended.stdout

        assert run(*expected["Cmd"]).startswith("everleaf-agent brings")
        # What ECS puts there; the static binary has to resolve names by itself.
        with open(os.path.join(root, "etc", "hosts"), "w") as hosts:
            hosts.write("127.0.0.1 secretsmanager.test\n")
        with local_aws(subprocess.DEVNULL) as endpoint:
            request = {"name": "image", "subject": {"common_name": "image"}}
            client_of(endpoint, "lambda").invoke(FunctionName="everleaf-issue-client-cert", Payload=json.dumps(request))
            run("fetch", AWS_ENDPOINT_URL=endpoint.replace("127.0.0.1", "secretsmanager.test"), AWS_REGION="eu-central-1",
                AWS_ACCESS_KEY_ID="image", AWS_SECRET_ACCESS_KEY="image", EVERLEAF_SECRETS="everleaf/image")
        with open(os.path.join(root, "certs", "current", "key.pem")) as key:
            assert key.read().startswith("-----BEGIN PRIVATE KEY-----\n")
        binary = os.path.getsize(os.path.join(root, "everleaf-agent"))
        said(f"the image holds what it should and runs alone: {size / 1e6:.1f} MB to pull; the agent has {binary / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
