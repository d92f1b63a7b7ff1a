"""A throw-away certificate authority for tests, with what a controller and a node need of it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agentfarm.identity import Identity, new_key


@dataclass
class Authority:
    key: Any
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def make(cls) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("test authority")
        certificate = (
            _builder(name, name, key.public_key(), -60, 86_400)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    def sign(self, public_key: Any, name: str, *, age_s: float = 60, life_s: float = 86_400) -> bytes:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name), x509.DNSName("localhost")])
        certificate = (
            _builder(_name(name), self.certificate.subject, public_key, -age_s, life_s - age_s)
            .add_extension(alternatives, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def sign_csr(self, csr_pem: bytes) -> bytes:
        csr = x509.load_pem_x509_csr(csr_pem)
        name = csr.subject.get_attributes_for_oid(x509.oid.NameOID.COMMON_NAME)[0].value
        return self.sign(csr.public_key(), str(name))

    def issue(self, name: str, **life: float) -> tuple[bytes, bytes]:
        key_pem = new_key()
        key = serialization.load_pem_private_key(key_pem, None)
        return key_pem, self.sign(key.public_key(), name, **life)

    def enrol(self, name: str, folder: Path, **life: float) -> None:
        key_pem, certificate_pem = self.issue(name, **life)
        Identity.of(key_pem, certificate_pem, self.pem).save(folder)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: Any, begin_s: float, end_s: float) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)  # not when the module was read: that can be long ago in a whole run
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(seconds=begin_s))
        .not_valid_after(now + dt.timedelta(seconds=end_s))
    )
