"""A certificate authority of the tests' own, and what its servers show: good certificates and every other kind."""

import ipaddress
import ssl
import tempfile
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = timedelta(days=1)
PEM = serialization.Encoding.PEM


class Authority:
    """Vouches for servers. ``pem`` is what a connector trusts it by."""

    def __init__(self, name: str = "test authority") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _named(name)
        self.pem = self._signed(self.name, self.key, -DAY, 10 * DAY).public_bytes(PEM).decode()

    def issue(
        self, *names: str, since: timedelta = -DAY, until: timedelta = DAY, self_signed: bool = False
    ) -> tuple[bytes, bytes]:
        """A certificate for ``names`` (hosts or addresses), valid from and to, and its key; both as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(_named(names[0]), key, since, until, names, self_signed=self_signed)
        private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return certificate.public_bytes(PEM), private

    def context(
        self, *names: str, since: timedelta = -DAY, until: timedelta = DAY, self_signed: bool = False
    ) -> ssl.SSLContext:
        """What a server of Python's needs to be known by ``names`` (``localhost`` without any)."""
        issued = self.issue(*names or ("localhost",), since=since, until=until, self_signed=self_signed)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            chain = Path(folder) / "chain.pem"
            chain.write_bytes(b"".join(issued))
            context.load_cert_chain(chain)
        return context

    def old_context(self) -> ssl.SSLContext:
        """A server that speaks TLS 1.0 and 1.1 and nothing newer."""
        context = self.context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that they are old is the point
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        return context

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        since: timedelta,
        until: timedelta,
        names: tuple[str, ...] = (),
        *,
        self_signed: bool = False,
    ) -> x509.Certificate:
        """A server's certificate; without names the authority's own."""
        now = datetime.now(UTC)
        signer = key if self_signed else self.key
        issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if self_signed else self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + since)
            .not_valid_after(now + until)
            .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(issued_by, critical=False)
        )
        if names:
            known = x509.SubjectAlternativeName([_alternative(name) for name in names])
            return builder.add_extension(known, critical=False).sign(signer, hashes.SHA256())
        usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment"), False)
        usage |= dict.fromkeys(("key_agreement", "encipher_only", "decipher_only"), False)
        may = x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage)
        return builder.add_extension(may, critical=True).sign(signer, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
