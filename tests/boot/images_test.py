"""`bulkhead run IMAGE`, from layouts and archives made here, honest and hostile."""
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile

from harness import zone
from harness.case import Case

EXERCISER = os.environ.get("BULKHEAD_EXERCISER", "build/bin/exerciser")


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(*entries):
    """A tar of (name, content or None for a folder, changes to the header)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content, *changes in entries:
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = (0o755 if content is None else 0o644), 1_000_000_000
            if content is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(content)
            for key, value in (changes[0] if changes else {}).items():
                setattr(info, key, value)
            if info.type not in (tarfile.REGTYPE,):
                info.size = 0
            tar.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


def zstd(data):
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


class Image:
    """What an image is made from; written in one of the forms."""

    def __init__(self, layers, compress=lambda data: data, **config):
        self.layers = layers
        self.blobs = [compress(one) for one in layers]
        self.config = json.dumps({"os": "linux", "architecture": "amd64", "config": config,
                                  "rootfs": {"type": "layers", "diff_ids": [sha(one) for one in layers]}}).encode()

    def files(self, name="test:latest"):
        def descriptor(data, kind):
            return {"mediaType": kind, "digest": sha(data), "size": len(data)}
        manifest = json.dumps({"schemaVersion": 2, "config": descriptor(self.config, "application/vnd.oci.image.config.v1+json"),
                               "layers": [descriptor(one, "application/vnd.oci.image.layer.v1.tar") for one in self.blobs]}).encode()
        entry = descriptor(manifest, "application/vnd.oci.image.manifest.v1+json")
        entry["annotations"] = {"org.opencontainers.image.ref.name": name}
        out = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
               "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()}
        for blob in (manifest, self.config, *self.blobs):
            out["blobs/sha256/" + sha(blob)[7:]] = blob
        return out

    def layout(self, folder, **changes):
        for name, data in (self.files() | changes).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder

    def docker_files(self):
        config = sha(self.config)[7:] + ".json"
        names = [f"{number}/layer.tar" for number in range(len(self.layers))]
        listing = [{"Config": config, "RepoTags": ["example/test:1"], "Layers": names}]
        return {config: self.config, **dict(zip(names, self.layers)), "manifest.json": json.dumps(listing).encode()}


def archive(path, files, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


class Images(Case):
    def setUp(self):
        super().setUp()
        zone.need(self)
        with open(EXERCISER, "rb") as file:
            self.tool = file.read()
        # The cache of its own has the kernel of the other, and no images.
        cache = self.folder / "cache/bulkhead"
        cache.mkdir(parents=True)
        shared = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")) + "/bulkhead"
        for kind in ("kernels", "initramfs"):
            if os.path.isdir(f"{shared}/{kind}"):
                (cache / kind).symlink_to(f"{shared}/{kind}")
        self.images = cache / "images"

    def options(self, popen):
        popen = super().options(popen)
        popen["environment"]["XDG_CACHE_HOME"] = str(self.folder / "cache")
        return popen

    def image(self, *more, compress=lambda data: data, **config):
        base = layer(("bin/tool", self.tool, {"mode": 0o755}), ("etc", None),
                     ("etc/passwd", b"root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"),
                     ("etc/group", b"root:x:0:\nextra:x:50:app\nappgroup:x:1001:\n"))
        return Image([base, *more], compress, **config)

    def run_image(self, reference, *arguments, options=()):
        command = ["run", "--boot-timeout", str(4 * zone.BOOT), "--net", "none", *options, str(reference)]
        return self.run_program(*command, *(["--", *arguments] if arguments else []), timeout=280)

    def assert_said(self, done, *lines):
        self.assert_status(done, 0)
        for line in lines:
            self.assertIn(line, done.out.decode().splitlines(), str(done))

    def test_layout_with_all_that_an_image_says(self):
        image = self.image(layer(("srv", None), ("srv/x", b"x")), Entrypoint=["/bin/tool", "show"], Cmd=["default", "words"],
                           Env=["PATH=/bin", "FROM=image", "BOTH=image"], User="app", WorkingDir="/srv/work")
        folder = image.layout(self.folder / "layout")
        done = self.run_image(f"oci:{folder}:latest", options=["--env", "BOTH=ours"])
        self.assert_said(done, "user 1000 group 1001 groups 50", "in /srv/work", "argument default", "argument words",
                         "environment FROM=image", "environment BOTH=ours", "environment HOME=/home/app", "environment PATH=/bin")
        self.assertNotIn(b"BOTH=image", done.out)
        done = self.run_image(folder, "own", options=["--user", "7:extra", "--workdir", "/etc", "-V", "pvh", "--engine", "dbt"])
        self.assert_said(done, "user 7 group 50 groups", "in /etc", "argument own")
        self.assertNotIn(b"default", done.out)
        done = self.run_image(folder, "/bin/tool", "show", "plain", options=["--entrypoint", ""])
        self.assert_said(done, "argument plain")

    def test_archives_and_compressions(self):
        gz = self.image(layer(("t/data", b"of gzip")), compress=gzip.compress, Entrypoint=["/bin/tool", "list", "/t"])
        path = archive(self.folder / "oci.tar", gz.files())
        self.assertIn(b"of gzip", self.run_image(f"oci-archive:{path}").out)
        forms = [archive(self.folder / "docker.tar", self.image(layer(("t/data", b"of docker")),
                                                                Entrypoint=["/bin/tool", "list", "/t"]).docker_files())]
        forms.append(archive(self.folder / "docker.tar.gz", self.image(
            layer(("t/data", b"of docker, packed")), Entrypoint=["/bin/tool", "list", "/t"]).docker_files(), "w:gz"))
        for form in forms:
            self.assertIn(b"of docker", self.run_image(form).out)
        if shutil.which("zstd"):
            folder = self.image(layer(("t/data", b"of zstd")), compress=zstd, Entrypoint=["/bin/tool", "list", "/t"]).layout(
                self.folder / "zstd")
            self.assertIn(b"of zstd", self.run_image(folder).out)

    def test_layers_whiteouts_and_owners(self):
        lower = layer(("t/d", None), ("t/d/gone", b"1"), ("t/d/stays", b"2"), ("t/o", None), ("t/o/old", b"3"),
                      ("t/owned", b"4", {"uid": 1234, "gid": 77, "mode": 0o4750}))
        upper = layer(("t/d/.wh.gone", b""), ("t/o/.wh..wh..opq", b""), ("t/o/new", b"5"),
                      ("t/null", b"", {"type": tarfile.CHRTYPE}))
        folder = self.image(lower, upper, Entrypoint=["/bin/tool", "list"], Cmd=["/t"]).layout(self.folder / "layout")
        done = self.run_image(folder)
        self.assert_status(done, 0)
        listed = {line.split()[0]: line.split()[1:] for line in done.out.decode().splitlines()}
        self.assertEqual(sorted(listed), ["/t/d", "/t/d/stays", "/t/o", "/t/o/new", "/t/owned"])
        self.assertEqual(listed["/t/d/stays"][2:], ["2"])
        self.assertEqual(listed["/t/o/new"][2:], ["5"])
        if os.geteuid() == 0:
            self.assertEqual(listed["/t/owned"][:2], ["104750", "1234:77"])
        self.assertIn(b"device nodes", done.err)

    def test_the_cache_and_its_commands(self):
        folder = self.image(Cmd=["/bin/tool", "show"]).layout(self.folder / "layout")
        digest = self.run_program("image", "load", f"oci:{folder}").out.decode().strip()
        self.assertRegex(digest, "^sha256:[0-9a-f]{64}$")
        entries = os.listdir(self.images)
        before = (self.images / entries[0]).stat().st_ino
        self.assertEqual(self.run_program("image", "load", f"oci:{folder}").out.decode().strip(), digest)
        self.assertEqual((self.images / entries[0]).stat().st_ino, before, "made once")
        self.assertEqual(sorted(os.listdir(self.images / entries[0])), ["config.json", "group", "name", "passwd", "root.erofs"])
        listed = json.loads(self.run_program("image", "list", "--json").out)
        self.assertEqual([one["digest"] for one in listed], [digest])
        self.assertEqual(listed[0]["name"], f"oci:{folder}")
        shown = json.loads(self.run_program("image", "inspect", digest[7:19]).out)
        self.assertEqual(shown["config"]["config"]["Cmd"], ["/bin/tool", "show"])
        self.assert_status(self.run_program("image", "remove", digest), 0)
        self.assertEqual(os.listdir(self.images), [])
        done = self.run_program("image", "remove", digest)
        self.assert_status(done, 125)
        self.assert_one_line(done, "no image")

    def refused(self, reference, word, *arguments):
        done = self.run_program("image", "load", str(reference))
        self.assert_status(done, 125)
        self.assert_one_line(done, word)
        self.assertEqual([name for name in os.listdir(self.images)] if self.images.exists() else [], [], "nothing is left")

    def test_hostile_layers(self):
        secret = self.folder / "secret"
        secret.write_text("the host's")
        up = "../" * 12 + str(self.folder)[1:]
        cases = [
            (("../../../../escaped", b"x"),),
            ((f"{up}/escaped", b"x"),),
            (("a", b"", {"type": tarfile.LNKTYPE, "linkname": f"{up}/secret"}),),
            (("a", b"", {"type": tarfile.LNKTYPE, "linkname": str(secret)}),),
            (("way", b"", {"type": tarfile.SYMTYPE, "linkname": str(self.folder)}), ("way/secret", b"overwritten")),
            (("way", b"", {"type": tarfile.SYMTYPE, "linkname": "../" * 20 + str(self.folder)[1:]}), ("way/escaped", b"x")),
        ]
        for number, entries in enumerate(cases):
            folder = self.image(layer(*entries)).layout(self.folder / f"layout{number}")
            done = self.run_program("image", "load", str(folder))
            self.assertIn(done.status, (0, 125), str(done))  # 0: it stayed inside
            self.assertEqual(secret.read_text(), "the host's", entries)
            self.assertEqual(os.stat(secret).st_nlink, 1, entries)
            self.assertFalse((self.folder / "escaped").exists(), entries)

    def test_what_is_not_what_it_says(self):
        image = self.image(Cmd=["x"])
        files = image.files()
        blob = "blobs/sha256/" + sha(image.blobs[0])[7:]
        config = "blobs/sha256/" + sha(image.config)[7:]
        self.refused(image.layout(self.folder / "a", **{blob: files[blob] + b"x"}), "not what its digest says")
        self.refused(image.layout(self.folder / "b", **{config: files[config].replace(b'"x"', b'"y"')}), "not what its digest says")
        other = Image(image.layers, Cmd=["x"])
        other.blobs = [layer(("else", b"x"))]
        self.refused(other.layout(self.folder / "c"), "not what its configuration says")
        self.refused(image.layout(self.folder / "d", **{"index.json": b"{}"}), "no list of manifests")
        (self.folder / "e").mkdir()
        self.refused(f"oci:{self.folder}/e", "no image here")
        self.refused(f"oci:{self.folder}/none", "there is no image")
        self.refused(f"oci:{self.folder}/d:wrong", "")
        (self.folder / "text").write_text("no image")
        self.refused(f"docker-archive:{self.folder}/text", "")
        missing = image.files()
        del missing[blob]
        self.refused(archive(self.folder / "missing.tar", missing), blob)

    def test_commands_that_are_missing(self):
        folder = self.image().layout(self.folder / "layout")
        done = self.run_image(folder)
        self.assert_status(done, 125)
        self.assert_one_line(done, "put a command behind --")
        done = self.run_image(folder, "x", options=["--user", "nobody-here"])
        self.assert_status(done, 125)
        self.assert_one_line(done, "nobody-here")
        done = self.run_program("run", "--user", "app", "--net", "none", "--", "true")
        self.assert_status(done, 125)
        self.assert_one_line(done, "--user")
