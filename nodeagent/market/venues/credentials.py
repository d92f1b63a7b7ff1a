"""Keys for channels that need them, read from a secret file, turned into the fields of a subscribe message.

| source | secret file (JSON) | what is signed |
| --- | --- | --- |
| coinbase-exchange | `{"key", "secret", "passphrase"}` | HMAC-SHA256 over time, method and path |
| coinbase-advanced | `{"name", "privateKey"}`, as downloaded | a JWT of two minutes: ES256 or EdDSA |

Secrets print as `***` and are never captured: the session stores messages as they were before signing.
Sources: docs.cdp.coinbase.com/exchange/websocket-feed/authentication and .../coinbase-app/authentication-authorization.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agentfarm.errors import InvalidRequest
from nodeagent.market.model.source import Signer

JWT_LIFE_S: Final = 120
_COORDINATE_BYTES: Final = 32
_ED25519_BYTES: Final = 64


class _ExchangeSecret(msgspec.Struct):
    key: str
    secret: str
    passphrase: str


class _AdvancedSecret(msgspec.Struct):
    name: str
    private_key: str = msgspec.field(name="privateKey")


class ExchangeSigner:
    """Signs for Coinbase Exchange."""

    def __init__(self, key: str, secret: str, passphrase: str) -> None:
        """Raises InvalidRequest when the secret is no base64."""
        try:
            self._secret = base64.b64decode(secret, validate=True)
        except binascii.Error as error:
            raise InvalidRequest("The Exchange secret is not base64.") from error
        self._key = key
        self._passphrase = passphrase

    def __repr__(self) -> str:
        return "ExchangeSigner(***)"

    def fields(self, now_s: int) -> Mapping[str, str]:
        """signature, key, passphrase and timestamp."""
        message = f"{now_s}GET/users/self/verify".encode()
        signature = base64.b64encode(hmac.digest(self._secret, message, hashlib.sha256)).decode()
        return {"signature": signature, "key": self._key, "passphrase": self._passphrase, "timestamp": str(now_s)}


class AdvancedSigner:
    """Signs for Coinbase Advanced Trade: a new token for each message."""

    def __init__(self, name: str, private_key: str, nonce: Callable[[], str] = lambda: secrets.token_hex(16)) -> None:
        """`private_key`: PEM of a P-256 key, or base64 of an Ed25519 key. Raises InvalidRequest for anything else."""
        self._name = name
        self._private_key = _load_key(private_key)
        self._nonce = nonce

    def __repr__(self) -> str:
        return "AdvancedSigner(***)"

    def fields(self, now_s: int) -> Mapping[str, str]:
        """The field `jwt`."""
        algorithm = "ES256" if isinstance(self._private_key, EllipticCurvePrivateKey) else "EdDSA"
        head = {"alg": algorithm, "typ": "JWT", "kid": self._name, "nonce": self._nonce()}
        claims = {"sub": self._name, "iss": "cdp", "nbf": now_s, "exp": now_s + JWT_LIFE_S}
        body = f"{_base64url(msgspec.json.encode(head))}.{_base64url(msgspec.json.encode(claims))}"
        return {"jwt": f"{body}.{_base64url(self._sign(body.encode()))}"}

    def _sign(self, body: bytes) -> bytes:
        if isinstance(self._private_key, Ed25519PrivateKey):
            return self._private_key.sign(body)
        r, s = decode_dss_signature(self._private_key.sign(body, ECDSA(SHA256())))
        return r.to_bytes(_COORDINATE_BYTES) + s.to_bytes(_COORDINATE_BYTES)


def read_signer(source: str, secret_file: Path) -> Signer:
    """The signer of a source, from its secret file. Raises InvalidRequest; the message never holds the secret."""
    try:
        text = secret_file.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"The secret file {secret_file} cannot be read: {error.strerror}.") from error
    try:
        if source == "coinbase-exchange":
            exchange = msgspec.json.decode(text, type=_ExchangeSecret)
            return ExchangeSigner(exchange.key, exchange.secret, exchange.passphrase)
        if source == "coinbase-advanced":
            advanced = msgspec.json.decode(text, type=_AdvancedSecret)
            return AdvancedSigner(advanced.name, advanced.private_key)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The secret file {secret_file} is not what {source} needs.") from error
    raise InvalidRequest(f"The source {source} takes no credentials.")


def _load_key(text: str) -> EllipticCurvePrivateKey | Ed25519PrivateKey:
    try:
        if "BEGIN" in text:
            key = load_pem_private_key(text.encode(), password=None)
        else:
            raw = base64.b64decode(text, validate=True)
            if len(raw) not in {_ED25519_BYTES // 2, _ED25519_BYTES}:
                raise ValueError("wrong length")
            key = Ed25519PrivateKey.from_private_bytes(raw[: _ED25519_BYTES // 2])
    except (ValueError, TypeError) as error:
        raise InvalidRequest("The Advanced Trade private key is neither PEM nor an Ed25519 key in base64.") from error
    if isinstance(key, Ed25519PrivateKey):
        return key
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key
    raise InvalidRequest("The Advanced Trade private key is of another kind than P-256 or Ed25519.")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
