"""Signed subscribe messages verify with the public half, and secrets do not show."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agentfarm.errors import InvalidRequest
from nodeagent.market.model.source import Channel
from nodeagent.market.venues.coinbase_advanced.source import CoinbaseAdvanced
from nodeagent.market.venues.coinbase_exchange.source import CoinbaseExchange
from nodeagent.market.venues.credentials import AdvancedSigner, ExchangeSigner, read_signer

NOW_S = 1_786_309_548


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_exchange_signature_is_the_documented_one(tmp_path: Path) -> None:
    secret = base64.b64encode(b"very secret").decode()
    path = tmp_path / "secret.json"
    path.write_text(json.dumps({"key": "k", "secret": secret, "passphrase": "p"}))
    signer = read_signer("coinbase-exchange", path)
    (message,) = CoinbaseExchange().subscribe(["BTC-USD"], [Channel.FULL], signer, NOW_S)
    signed = json.loads(message)
    expected = hmac.new(b"very secret", f"{NOW_S}GET/users/self/verify".encode(), hashlib.sha256).digest()
    assert signed["signature"] == base64.b64encode(expected).decode()
    assert (signed["key"], signed["passphrase"], signed["timestamp"]) == ("k", "p", str(NOW_S))
    assert signed["channels"] == ["full"]
    assert "secret" not in repr(signer)


def test_advanced_token_verifies_with_a_p256_key(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    path = tmp_path / "cdp_api_key.json"
    path.write_text(json.dumps({"name": "organizations/o/apiKeys/a", "privateKey": pem}))
    signer = read_signer("coinbase-advanced", path)
    messages = CoinbaseAdvanced().subscribe(["BTC-USD"], [Channel.TRADES, Channel.BOOK], signer, NOW_S)
    tokens = [json.loads(message)["jwt"] for message in messages]
    assert tokens[0] != tokens[1], "a new token for each message"
    head, claims, signature = tokens[0].split(".")
    raw = decoded(signature)
    dss = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    key.public_key().verify(dss, f"{head}.{claims}".encode(), ec.ECDSA(SHA256()))
    assert json.loads(decoded(head))["alg"] == "ES256"
    assert json.loads(decoded(claims)) == {
        "sub": "organizations/o/apiKeys/a", "iss": "cdp", "nbf": NOW_S, "exp": NOW_S + 120,
    }  # fmt: skip


def test_advanced_token_verifies_with_an_ed25519_key() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    raw = key.private_bytes_raw() + key.public_key().public_bytes_raw()
    signer = AdvancedSigner("name", base64.b64encode(raw).decode(), nonce=lambda: "n")
    body, _, signature = signer.fields(NOW_S)["jwt"].rpartition(".")
    key.public_key().verify(decoded(signature), body.encode())
    assert json.loads(decoded(body.split(".")[0])) == {"alg": "EdDSA", "typ": "JWT", "kid": "name", "nonce": "n"}


def test_what_is_no_secret_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "secret.json"
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_signer("coinbase-exchange", path)
    for source, content in (
        ("coinbase-exchange", b"not json hunter2"),
        ("coinbase-exchange", b'{"key":"k","secret":"!hunter2!","passphrase":"p"}'),
        ("coinbase-advanced", b'{"name":"n","privateKey":"hunter2"}'),
        ("binance", b"{}"),
    ):
        path.write_bytes(content)
        with pytest.raises(InvalidRequest) as refusal:
            read_signer(source, path)
        assert "hunter2" not in str(refusal.value)
    assert repr(ExchangeSigner("k", "aHVudGVyMg==", "p")) == "ExchangeSigner(***)"
