"""Where the benchmark works: programs, rendered configurations, certificates, results; all below target/bench."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from . import eastway, envoy
from .processes import Failed, output

CONFIGS = Path(__file__).parent / "configs"
MODULES = ("/usr/lib/nginx/modules/ngx_stream_module.so", "/usr/lib64/nginx/modules/ngx_stream_module.so")
# Administrators' folders are not on everybody's PATH.
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


@dataclass(frozen=True)
class Workspace:
    """The folder of one benchmark, and the programs that it measures."""

    folder: Path
    eastway: str
    load: str
    envoy: str

    @property
    def configs(self) -> Path:
        """Rendered configurations, identities, logs."""
        return self.folder / "work"

    @property
    def certificates(self) -> Path:
        """The certificates of all peers but Eastway, which has identities of its own form."""
        return self.folder / "certificates"

    def program(self, name: str) -> str:
        """The path of a program by the name that peers.toml has for it."""
        own = {"eastway": self.eastway, "eastway-load": self.load, "envoy": self.envoy}
        path = shutil.which(own.get(name, name), path=PATH)
        if path is None:
            raise Failed(f"`{name}` is missing: tools/install-bench-packages installs what the benchmark needs")
        return path

    def prepare(self, slow: bool = False) -> None:
        """Writes everything that processes read. What an earlier benchmark left there goes, certificates excepted."""
        shutil.rmtree(self.configs, ignore_errors=True)
        (self.configs / "files").mkdir(parents=True)
        # Holes read as zeroes: it takes no room on the disk.
        with open(self.configs / "files" / "gigabyte", "wb") as file:
            file.truncate(10**9)
        (self.configs / "message").write_bytes(b"\0\0\0\0\x3b" + b"y" * 59)
        if not (self.certificates / "done").exists():
            issue(self.certificates)
        envoy.write(self.configs, self.certificates)
        eastway.write(self.configs, self.program("eastway"), slow)
        for template in CONFIGS.iterdir():
            text = template.read_text()
            for mark, value in self._marks(template.stem).items():
                text = text.replace(mark, value)
            (self.configs / template.name).write_text(text)

    def _marks(self, name: str) -> dict[str, str]:
        module = next((path for path in MODULES if os.path.exists(path)), None)
        # Its worker would become another user, who may not read what lies here.
        user = "user root; " if os.geteuid() == 0 else ""
        files = f"pid {self.configs}/{name}.pid; error_log {self.configs}/{name}.err crit;"
        nginx = f"{user}daemon off; worker_processes 1; {files}"
        return {
            "@NGINX@": (f"load_module {module};\n" if module else "") + nginx,
            "@WORK@": str(self.configs),
            "@CERTIFICATES@": str(self.certificates),
            "@KIBIBYTE@": "x" * 1024,
            "@SMALL@": "x" * 64,
        }

    def versions(self) -> dict[str, str]:
        """What the peers say of themselves."""
        said = {
            "eastway": [self.program("eastway"), "--version"],
            "envoy": [self.program("envoy"), "--version"],
            "haproxy": [self.program("haproxy"), "-v"],
        }
        found = {name: first_version(output(command, 20)) for name, command in said.items()}
        # nginx says it on standard error.
        found["nginx"] = first_version(output(["sh", "-c", f"{self.program('nginx')} -v 2>&1"], 20))
        return found


def first_version(text: str) -> str:
    """The first word that looks like a version."""
    for word in text.replace("/", " ").split():
        if word[0].isdigit() and "." in word:
            return word
    return text.strip().split("\n", 1)[0]


def issue(folder: Path) -> None:
    """A CA and two identities, `a` that calls and `b` that is called: ECDSA P-256, as Eastway's own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def openssl(*words: str) -> None:
        output(["openssl", *words], 20)

    authority, key = f"{folder}/ca.crt", f"{folder}/ca.key"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    constraints = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    # `req -x509` adds constraints of its own where the system's configuration says so; a configuration of ours does not.
    plain = folder / "plain.cnf"
    plain.write_text("[req]\ndistinguished_name = name\n[name]\n")
    subject = ["-config", str(plain), "-subj"]
    openssl("req", "-x509", *curve, "-keyout", key, "-out", authority, "-days", "30", *subject, "/CN=bench", *constraints)
    for name in ("a", "b"):
        base = f"{folder}/{name}"
        openssl("req", *curve, "-keyout", f"{base}.key", "-out", f"{base}.csr", *subject, f"/CN={name}")
        uri = f"spiffe://bench/ns/default/sa/{name}"
        Path(f"{base}.ext").write_text(
            f"subjectAltName=DNS:{name}.bench,URI:{uri}\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        request = ["-in", f"{base}.csr", "-out", f"{base}.crt", "-extfile", f"{base}.ext", "-days", "30", "-sha256"]
        openssl("x509", "-req", *request, "-CA", authority, "-CAkey", key, "-CAcreateserial")
        Path(f"{base}.pem").write_text(Path(f"{base}.crt").read_text() + Path(f"{base}.key").read_text())
    (folder / "done").touch()
