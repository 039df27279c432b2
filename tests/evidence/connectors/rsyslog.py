"""Debian's rsyslog as a receiver: its own process, its own folder, on the loopback interface."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.evidence.connectors.authority import Authority
from tests.processes import wait_until

PACKAGES = "rsyslog rsyslog-gnutls rsyslog-openssl"
PLACES = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin"
# What no message here contains; \036 is how rsyslog writes it in a template.
SEPARATOR = b"\x1e"
FIELDS = (
    *("pri", "timestamp", "hostname", "app-name", "procid", "msgid", "structured-data", "msg"),
    "protocol-version",
)


class Rsyslog:
    """One running rsyslogd. ``raw()`` are the messages as they came, ``parsed()`` as it understood them."""

    def __init__(self, folder: Path, *, driver: str = "", authority: Authority | None = None) -> None:
        if (program := shutil.which("rsyslogd", path=PLACES)) is None:
            pytest.skip(f"no rsyslogd here; on Debian: apt install {PACKAGES}")
        self.folder = folder
        # Taken without listening: rsyslog may listen there all the same, and nobody else is given it meanwhile.
        self._taken = socket.socket()
        self._taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._taken.bind(("127.0.0.1", 0))
        self.port = self._taken.getsockname()[1]
        (folder / "rsyslog.conf").write_text(self._configuration(driver, authority))
        self._complaints = (folder / "complaints").open("wb")
        self._process = subprocess.Popen(
            [program, "-n", "-iNONE", "-f", str(folder / "rsyslog.conf")],
            stdin=subprocess.DEVNULL,
            stdout=self._complaints,
            stderr=self._complaints,
        )
        wait_until(self._listens)
        for name in ("raw", "parsed"):
            self._wait(name, 1)

    def raw(self, count: int) -> list[bytes]:
        """The messages, once ``count`` have arrived, byte for byte."""
        return self._read("raw", count)

    def parsed(self, count: int) -> list[dict[str, str]]:
        """The fields of each message as rsyslog took them apart."""
        lines = [line.decode().split("\x1f") for line in self._read("parsed", count)]
        return [dict(zip(FIELDS, line, strict=True)) for line in lines]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._complaints.close()
        self._taken.close()

    def _read(self, name: str, count: int) -> list[bytes]:
        self._wait(name, 1 + count)
        time.sleep(0.1)  # one too many would come now
        return (self.folder / name).read_bytes().split(SEPARATOR)[1:-1]

    def _wait(self, name: str, count: int) -> None:
        file = self.folder / name
        wait_until(lambda: file.exists() and file.read_bytes().count(SEPARATOR) >= count)

    def _listens(self) -> bool:
        assert self._process.poll() is None, (self.folder / "complaints").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _configuration(self, driver: str, authority: Authority | None) -> str:
        secured, tls = "", ""
        if driver:
            assert authority is not None
            certificate, key = authority.issue("localhost", "127.0.0.1")
            files = {"authority": authority.pem.encode(), "certificate": certificate, "key": key}
            for name, content in files.items():
                (self.folder / f"{name}.pem").write_bytes(content)
            secured = (
                f' defaultNetstreamDriver="{driver}" defaultNetstreamDriverCAFile="{self.folder}/authority.pem"'
                f' defaultNetstreamDriverCertFile="{self.folder}/certificate.pem"'
                f' defaultNetstreamDriverKeyFile="{self.folder}/key.pem"'
            )
            tls = f' streamDriver.name="{driver}" streamDriver.mode="1" streamDriver.authMode="anon"'
        fields = r"\037".join(f"%{name}%" for name in FIELDS).replace(
            "%timestamp%", "%timestamp:::date-rfc3339%"
        )
        return f"""
global(workDirectory="{self.folder}" processInternalMessages="on"
    parser.escapeControlCharactersOnReceive="off"{secured})
module(load="imtcp"{tls})
template(name="raw" type="string" string="%rawmsg%\\036")
template(name="parsed" type="string" string="{fields}\\036")
ruleset(name="keep") {{
    if ($syslogtag startswith "rsyslogd") and not ($msg contains "] start") then stop
    action(type="omfile" file="{self.folder}/raw" template="raw")
    action(type="omfile" file="{self.folder}/parsed" template="parsed")
}}
# Its own first words open the files before there are connections: the ossl driver (8.2302) closes the number of a
# connection twice at times, and a file opened under it in between loses its messages to the next connection.
$DefaultRuleset keep
input(type="imtcp" port="{self.port}" address="127.0.0.1" ruleset="keep")
"""
