"""The farm's own certificate authority: one key on the controller's disk, certificates for nodes and for the link.

    <folder>/ca.key       0600; never leaves this folder, and never enters the database
    <folder>/ca.pem       what everyone trusts; its fingerprint is in every invitation
    <folder>/server.key, server.pem    the link's own, made again before it expires

A controller that takes over on another machine needs a copy of `ca.key` and `ca.pem`.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agentfarm.errors import FarmError, InvalidRequest, Unavailable
from agentfarm.files import write_private
from agentfarm.identity import (
    NODE_DAYS,
    JoinAnswer,
    JoinRequest,
    check_signed_by,
    common_name,
    fingerprint,
    join_answer,
    new_key,
    new_secret,
    verify_join_request,
)
from agentfarm.names import is_name

CA_YEARS: Final = 10
SERVER_DAYS: Final = 365
SERVER_RENEW_DAYS: Final = 90
"""At start, a server certificate with less than this left is made again."""
INVITE_LIFE_S: Final = 15 * 60.0
SKEW: Final = timedelta(minutes=5)
"""Certificates begin this much earlier: clocks of small machines differ."""
CSR_BYTES_MAX: Final = 16 * 1024
CA_NAME: Final = "agent farm authority"


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What a listening socket needs. PEM."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes


class Authority:
    """Signs for exactly the names that callers give. Safe from any thread: nothing in it changes."""

    def __init__(self, folder: Path, key: ec.EllipticCurvePrivateKey, ca_pem: bytes, wall: Callable[[], float]) -> None:
        self._folder = folder
        self._key = key
        self._ca = x509.load_pem_x509_certificate(ca_pem)
        self._wall = wall
        self.ca_pem = ca_pem
        self.fingerprint = fingerprint(ca_pem)

    @classmethod
    def open(cls, folder: Path, *, wall: Callable[[], float] = time.time) -> Authority:
        """Read the authority in `folder`, or make it on first use.

        Raises Unavailable when a file is damaged, missing beside the other, open to others, or has expired.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        key_path, ca_path = folder / "ca.key", folder / "ca.pem"
        if not key_path.exists() and not ca_path.exists():
            write_private(key_path, new_key())
        try:
            if not ca_path.exists():  # a first start cut short, or a lost file: the key is kept, so nodes stay members
                key = _private_key(key_path.read_bytes())
                write_private(ca_path, _make_ca(key, datetime.fromtimestamp(wall(), UTC)))
            if key_path.stat().st_mode & 0o077:
                raise Unavailable(f"{key_path} can be read by others.", remedy=f"Run: chmod 600 {key_path}")
            key, ca_pem = _private_key(key_path.read_bytes()), ca_path.read_bytes()
            authority = cls(folder, key, ca_pem, wall)
        except (OSError, ValueError, InvalidRequest) as error:
            raise Unavailable(
                f"The certificate authority in {folder} is damaged: {error}",
                remedy="Restore ca.key and ca.pem from a backup. Without them every node has to join again.",
            ) from error
        authority._check()
        return authority

    def _check(self) -> None:
        if self._ca.public_key() != self._key.public_key():
            raise Unavailable(
                f"ca.key and ca.pem in {self._folder} do not belong together.",
                remedy="Restore both from the same backup.",
            )
        if self._now() >= self._ca.not_valid_after_utc:
            raise Unavailable(
                f"The certificate authority expired at {self._ca.not_valid_after_utc:%Y-%m-%d}.",
                remedy=f"Move {self._folder} away to make a new one; then every node has to join again.",
            )

    # -------------------------------------------------------------- certificates

    def server_identity(self, names: Sequence[str] = ("localhost", "127.0.0.1")) -> ServerIdentity:
        """Key and certificate of the link, for these host names and addresses. Made when needed, else as stored."""
        key_path, path = self._folder / "server.key", self._folder / "server.pem"
        try:
            stored = ServerIdentity(key_path.read_bytes(), path.read_bytes())
            if self._is_good(stored, names):
                return stored
        except (OSError, ValueError, FarmError):
            pass  # missing, damaged, or of another authority: a new one costs nothing
        key_pem = new_key()
        certificate = self._builder("agentfarm-controller", _private_key(key_pem).public_key(), SERVER_DAYS)
        certificate = certificate.add_extension(x509.SubjectAlternativeName(_alternatives(names)), critical=False)
        certificate = certificate.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        fresh = ServerIdentity(key_pem, self._sign(certificate))
        write_private(key_path, fresh.key_pem)
        write_private(path, fresh.certificate_pem)
        return fresh

    def _is_good(self, stored: ServerIdentity, names: Sequence[str]) -> bool:
        certificate = x509.load_pem_x509_certificate(stored.certificate_pem)
        check_signed_by(stored.certificate_pem, self.ca_pem)
        stored_names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return (
            certificate.public_key() == _private_key(stored.key_pem).public_key()
            and set(stored_names) == set(_alternatives(names))
            and certificate.not_valid_after_utc - self._now() > timedelta(days=SERVER_RENEW_DAYS)
        )

    def sign_csr(self, csr_pem: bytes, name: str) -> bytes:
        """A node certificate for exactly `name`, PEM, living NODE_DAYS. Of the request only the key is taken.

        Raises InvalidRequest when it is damaged, not signed by its own key, of another kind of key or for another name.
        """
        if not is_name(name):
            raise InvalidRequest(f"{name!r} cannot be the name of a node.")
        if len(csr_pem) > CSR_BYTES_MAX:
            raise InvalidRequest(f"The certificate request is longer than {CSR_BYTES_MAX} bytes.")
        try:
            request = x509.load_pem_x509_csr(csr_pem)
            is_signed = request.is_signature_valid
            key = request.public_key()
        except (ValueError, TypeError, InvalidSignature) as error:
            raise InvalidRequest(f"This is not a certificate request in PEM: {error}") from error
        if not is_signed:
            raise InvalidRequest("The certificate request was not signed by its own key.")
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise InvalidRequest("A node's key must be an elliptic-curve key on P-256.")
        if (asked := common_name(request)) != name:
            raise InvalidRequest(f"The request is for {asked!r}; only {name!r} is allowed.", asked=asked, name=name)
        certificate = self._builder(name, key, NODE_DAYS)
        certificate = certificate.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        certificate = certificate.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        return self._sign(certificate)

    def _builder(self, name: str, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
        now = self._now()
        ends = min(now + timedelta(days=days), self._ca.not_valid_after_utc)
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(_subject(name))
            .issuer_name(self._ca.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(issuer_key, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    # -------------------------------------------------------------- joining

    def invitation(self) -> tuple[bytes, float]:
        """A new secret, and when it expires (wall): what Store.put_invite keeps and an Invite carries."""
        return new_secret(), self._wall() + INVITE_LIFE_S

    def answer_join(self, secret: bytes, request: JoinRequest) -> JoinAnswer | None:
        """The certificate for a proved request; None when its proof does not fit the secret.

        Meant for Store.use_invite, so that an invitation is used up only by a certificate that was really signed.
        Raises InvalidRequest when the proof fits but the request is for another name, or damaged.
        """
        if not verify_join_request(secret, request):
            return None
        return join_answer(secret, self.sign_csr(request.csr_pem.encode(), request.name), self.ca_pem)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)


# ------------------------------------------------------------------ parts of certificates


def _make_ca(key: ec.EllipticCurvePrivateKey, now: datetime) -> bytes:
    subject = _subject(CA_NAME)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=365 * CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternatives(names: Sequence[str]) -> list[x509.GeneralName]:
    alternatives: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    return alternatives


def _private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    return cast("ec.EllipticCurvePrivateKey", serialization.load_pem_private_key(pem, None))
