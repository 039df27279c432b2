"""A certificate authority for one test, and what its servers show."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = timedelta(days=1)


class Authority:
    """Vouches for servers. ``pem`` is what a connector trusts; ``files`` are for servers that read files."""

    def __init__(self, folder: Path, name: str = "Test authority") -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._builder(
            self.name, self.key, datetime.now(UTC) - DAY, datetime.now(UTC) + 10 * DAY
        )
        certificate = certificate.add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        )
        usage |= {"encipher_only": False, "decipher_only": False, "digital_signature": True}
        certificate = certificate.add_extension(
            x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True
        )
        certificate = certificate.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
        )
        self.pem = certificate.sign(self.key, hashes.SHA256()).public_bytes(_PEM).decode()
        self.file = folder / "authority.pem"
        self.file.write_text(self.pem)

    def issue(
        self, *names: str, until: datetime | None = None, since: datetime | None = None
    ) -> tuple[Path, Path]:
        """Files of a certificate for ``names`` (hosts or addresses) and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        until = until or datetime.now(UTC) + DAY
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
        builder = self._builder(subject, key, since or until - 2 * DAY, until)
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_name, names))), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        place = self.folder / f"server{builder._serial_number}"
        certificate, private = place.with_suffix(".pem"), place.with_suffix(".key")
        certificate.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(_PEM))
        private.write_bytes(
            key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return certificate, private

    def context(
        self, *names: str, until: datetime | None = None, since: datetime | None = None
    ) -> ssl.SSLContext:
        """What a server of Python's needs to be known by ``names``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(*names, until=until, since=since))
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, since: datetime, until: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
        )


_PEM = serialization.Encoding.PEM


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
