"""Who a node is: its key and certificate on disk, and how an invited machine gets them.

    controller                                   node
    Invite.encode() ── a person carries it ──▶   Invite.decode(token)
                                                 request, key = join_request(invite)
    verify_join_request(secret, request)   ◀──   request: name, csr_pem, proof
    answer = join_answer(secret, …)        ──▶   verify_join_answer(invite, key, answer) -> Identity

Both sides prove by HMAC-SHA256 that they know the invitation's secret, which itself never travels. So joining is safe
over plain HTTP. Nothing here opens a socket or reads a clock: moments are arguments.

The library `cryptography` costs 13 MiB, so it is imported when a key or a certificate is handled, not by the import
of this module: a daemon that only connects never pays.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentfarm.errors import Forbidden, InvalidRequest, NotFound, Unavailable
from agentfarm.files import write_private

if TYPE_CHECKING:
    from cryptography import x509

TOKEN_VERSION: Final = 1
SECRET_BYTES: Final = 32
TOKEN_LENGTH_MAX: Final = 4096
NODE_DAYS: Final = 30
"""How long a node's certificate lives."""
RENEW_AT: Final = 0.5
"""Of its life."""
DAY_S: Final = 86_400.0
KEY_FILE, CERTIFICATE_FILE, CA_FILE, ABOUT_FILE = "key.pem", "certificate.pem", "ca.pem", "identity.json"


# ------------------------------------------------------------------ the identity


@dataclass(frozen=True, slots=True)
class Identity:
    """A name, the key that proves it, the certificate that says so, and the authority that signed it. All PEM.

    not_before, not_after: wall seconds of the certificate's life.
    """

    name: str
    key_pem: bytes = field(repr=False)
    certificate_pem: bytes
    ca_pem: bytes
    not_before: float
    not_after: float

    @classmethod
    def of(cls, key_pem: bytes, certificate_pem: bytes, ca_pem: bytes) -> Identity:
        """Make one of its three parts. Raises InvalidRequest unless they belong together."""
        certificate = _certificate(certificate_pem)
        if certificate.public_key() != _key(key_pem).public_key():
            raise InvalidRequest("The certificate is for another key.", remedy="Join again with a new invitation.")
        check_signed_by(certificate_pem, ca_pem)
        return cls(
            common_name(certificate), key_pem, certificate_pem, ca_pem,
            certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp(),
        )  # fmt: skip

    def days_left(self, now: float) -> float:
        """Days until the certificate expires; negative after."""
        return (self.not_after - now) / DAY_S

    def is_due_for_renewal(self, now: float) -> bool:
        """Whether half of the certificate's life is over."""
        return now >= self.not_before + (self.not_after - self.not_before) * RENEW_AT

    def renewed(self, certificate_pem: bytes) -> Identity:
        """The same key and name under a new certificate. Raises InvalidRequest if it is for anything else."""
        fresh = Identity.of(self.key_pem, certificate_pem, self.ca_pem)
        if fresh.name != self.name:
            raise InvalidRequest(f"The new certificate names {fresh.name!r}; this node is {self.name!r}.")
        return fresh

    def csr(self) -> bytes:
        """A request for a new certificate for the same key and name, PEM."""
        return certificate_request(self.key_pem, self.name)

    def save(self, folder: Path) -> None:
        """Write it to `folder` (0700), each file whole or not at all and durable, the key readable by us alone."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        write_private(folder / KEY_FILE, self.key_pem)
        write_private(folder / CA_FILE, self.ca_pem)
        write_private(folder / CERTIFICATE_FILE, self.certificate_pem)
        about = {
            "name": self.name, "not_before": self.not_before, "not_after": self.not_after,
            "certificate": hashlib.sha256(self.certificate_pem).hexdigest(),
        }  # fmt: skip
        write_private(folder / ABOUT_FILE, json.dumps(about).encode())

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """Read what `save` wrote.

        Raises NotFound when this machine never joined, Unavailable when its files are damaged or open to others.
        """
        key_path = folder / KEY_FILE
        if not key_path.exists() or not (folder / CERTIFICATE_FILE).exists():
            raise NotFound(
                f"This machine has not joined a farm: {folder} holds no identity.",
                remedy="On the controller: farmctl node invite NAME. Then here: agentfarm-node join TOKEN",
            )
        if stat.S_IMODE(key_path.stat().st_mode) & 0o077:
            raise Unavailable(f"{key_path} can be read by others.", remedy=f"chmod 600 {key_path}; then join again.")
        try:
            key_pem, certificate_pem, ca_pem = (
                (folder / name).read_bytes() for name in (KEY_FILE, CERTIFICATE_FILE, CA_FILE)
            )
            about = _about(folder)
            if about.get("certificate") == hashlib.sha256(certificate_pem).hexdigest():
                return cls(about["name"], key_pem, certificate_pem, ca_pem, about["not_before"], about["not_after"])
            return cls.of(key_pem, certificate_pem, ca_pem)  # a power cut came between two of the files
        except (OSError, ValueError, KeyError, InvalidRequest) as error:
            raise Unavailable(
                f"The identity in {folder} is damaged: {error}",
                remedy="Move the folder away and join again with a new invitation.",
            ) from error


def _about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / ABOUT_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


# ------------------------------------------------------------------ keys and certificates


def new_key() -> bytes:
    """A new private key on the curve P-256, PEM."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - see the module's docstring
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate_request(key_pem: bytes, name: str) -> bytes:
    """A signed request for a certificate of `name`, PEM."""
    from cryptography import x509  # noqa: PLC0415 - see the module's docstring
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415

    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(_key(key_pem), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def fingerprint(ca_pem: bytes) -> str:
    """SHA-256 of a certificate's DER, in hex."""
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - see the module's docstring

    return _certificate(ca_pem).fingerprint(hashes.SHA256()).hex()


def check_signed_by(certificate_pem: bytes, ca_pem: bytes) -> None:
    """Raises InvalidRequest unless that authority signed the certificate."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - see the module's docstring

    try:
        _certificate(certificate_pem).verify_directly_issued_by(_certificate(ca_pem))
    except (InvalidSignature, ValueError, TypeError) as error:
        raise InvalidRequest(
            "The certificate was signed by another authority.", remedy="Join again with a new invitation."
        ) from error


def common_name(thing: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """The one common name of a certificate or a request. Raises InvalidRequest for none, or several."""
    from cryptography import x509  # noqa: PLC0415 - see the module's docstring

    names = thing.subject.get_attributes_for_oid(x509.oid.NameOID.COMMON_NAME)
    if len(names) != 1:
        raise InvalidRequest(f"A certificate names one thing; this one names {len(names)}.")
    return str(names[0].value)


def _certificate(pem: bytes) -> x509.Certificate:
    from cryptography import x509  # noqa: PLC0415 - see the module's docstring

    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise InvalidRequest(f"This is not a certificate in PEM: {error}") from error


def _key(pem: bytes) -> Any:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - see the module's docstring

    try:
        return serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"This is not a private key in PEM: {error}") from error


# ------------------------------------------------------------------ the invitation


@dataclass(frozen=True, slots=True)
class Invite:
    """What a person carries from the controller to a machine: permission to become the node `name`, once.

    ca: SHA-256 of the DER of the authority's certificate, hex. gateway: URL. link: host:port. expires: wall seconds.
    """

    name: str
    secret: bytes = field(repr=False)
    ca: str
    gateway: str
    link: str
    expires: float

    def encode(self) -> str:
        """One word: base64url of JSON, without padding."""
        content = {
            "v": TOKEN_VERSION, "name": self.name, "secret": _text(self.secret), "ca": self.ca,
            "gateway": self.gateway, "link": self.link, "expires": int(self.expires),
        }  # fmt: skip
        return _text(json.dumps(content, separators=(",", ":")).encode())

    @classmethod
    def decode(cls, token: str, now: float) -> Invite:
        """The reverse. Raises InvalidRequest for what is no token of this release, Forbidden for one that expired."""
        word = "".join(token.split())  # a terminal may have wrapped it
        try:
            if len(word) > TOKEN_LENGTH_MAX:
                raise ValueError("too long")
            content = json.loads(_bytes(word))
            version = content["v"]
            if version == TOKEN_VERSION:
                invite = cls(
                    str(content["name"]), _bytes(content["secret"]), str(content["ca"]), str(content["gateway"]),
                    str(content["link"]), float(content["expires"]),
                )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidRequest(
                "This is not a whole invitation token.", remedy="Copy all of it: farmctl node invite prints it."
            ) from error
        if version != TOKEN_VERSION:
            raise InvalidRequest(
                f"The token is of form {version}; this release reads {TOKEN_VERSION}.",
                remedy="Install the controller's release on this machine.",
            )
        if now >= invite.expires:
            raise Forbidden(
                f"The invitation expired at {datetime.fromtimestamp(invite.expires, UTC):%Y-%m-%d %H:%M:%S} UTC.",
                remedy=f"Make a new one: farmctl node invite {invite.name}", reason="expired", name=invite.name,
            )  # fmt: skip
        return invite


def new_secret() -> bytes:
    """An invitation's secret."""
    return secrets.token_bytes(SECRET_BYTES)


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """What a machine posts to the gateway. proof: HMAC-SHA256(secret, csr_pem), base64url."""

    name: str
    csr_pem: str
    proof: str


@dataclass(frozen=True, slots=True)
class JoinAnswer:
    """What it gets. proof: HMAC-SHA256(secret, certificate_pem + ca_pem), base64url."""

    certificate_pem: str
    ca_pem: str
    proof: str


def join_request(invite: Invite) -> tuple[JoinRequest, bytes]:
    """On the node: a request for a certificate, and the new key (PEM) it is for."""
    key_pem = new_key()
    csr_pem = certificate_request(key_pem, invite.name)
    return JoinRequest(invite.name, csr_pem.decode(), _proof(invite.secret, csr_pem)), key_pem


def verify_join_request(secret: bytes, request: JoinRequest) -> bool:
    """On the controller: whether the caller knows the secret."""
    return hmac.compare_digest(_proof(secret, request.csr_pem.encode()).encode(), request.proof.encode())


def join_answer(secret: bytes, certificate_pem: bytes, ca_pem: bytes) -> JoinAnswer:
    """On the controller: the answer, proved with the same secret."""
    return JoinAnswer(certificate_pem.decode(), ca_pem.decode(), _proof(secret, certificate_pem + ca_pem))


def verify_join_answer(invite: Invite, key_pem: bytes, answer: JoinAnswer) -> Identity:
    """On the node: the identity, if the answer comes from the controller that invited, and is for this key and name.

    Raises Forbidden, saying what is wrong, otherwise.
    """
    certificate_pem, ca_pem = answer.certificate_pem.encode(), answer.ca_pem.encode()
    if not hmac.compare_digest(_proof(invite.secret, certificate_pem + ca_pem).encode(), answer.proof.encode()):
        raise _impostor("it does not know the invitation's secret", "proof")
    try:
        if not hmac.compare_digest(fingerprint(ca_pem), invite.ca):
            raise _impostor("it has another certificate authority than the one the invitation names", "ca")
        identity = Identity.of(key_pem, certificate_pem, ca_pem)
    except InvalidRequest as error:
        raise _impostor(error.problem, "certificate") from error
    if identity.name != invite.name:
        raise _impostor(f"it certified {identity.name!r}, not {invite.name!r}", "name")
    return identity


def _impostor(why: str, reason: str) -> Forbidden:
    return Forbidden(
        f"The server that answered is not the controller that invited this machine: {why}",
        remedy="Check the address in the invitation, and that nothing sits between.", reason=reason,
    )  # fmt: skip


def _proof(secret: bytes, message: bytes) -> str:
    return _text(hmac.digest(secret, message, "sha256"))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """base64url, strictly: a character outside its alphabet is a mistake, not noise."""
    padded = text.encode() + b"=" * (-len(text) % 4)
    try:
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
