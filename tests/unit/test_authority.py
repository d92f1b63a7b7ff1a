"""The certificate authority and joining: exact names only, one proof for both directions, clear refusals."""

from __future__ import annotations

import dataclasses
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agentfarm.errors import Forbidden, InvalidRequest, NotFound, Unavailable
from agentfarm.identity import (
    DAY_S,
    Identity,
    Invite,
    JoinAnswer,
    JoinRequest,
    certificate_request,
    join_answer,
    join_request,
    new_key,
    verify_join_answer,
    verify_join_request,
)
from controller.authority import INVITE_LIFE_S, Authority

NOW = 1_800_000_000.0


class Clock:
    """A wall clock a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> Authority:
    return Authority.open(tmp_path / "ca", wall=clock)


@pytest.fixture
def invite(authority: Authority) -> Invite:
    secret, expires = authority.invitation()
    return Invite("node-4", secret, authority.fingerprint, "http://127.0.0.1:8600", "127.0.0.1:8601", expires)


def joined(authority: Authority, invite: Invite) -> Identity:
    request, key = join_request(invite)
    answer = authority.answer_join(invite.secret, request)
    assert answer is not None
    return verify_join_answer(invite, key, answer)


# ------------------------------------------------------------------ the authority's files


def test_authority_survives_a_restart(tmp_path: Path, clock: Clock) -> None:
    first = Authority.open(tmp_path / "ca", wall=clock)
    second = Authority.open(tmp_path / "ca", wall=clock)
    assert (second.ca_pem, second.fingerprint) == (first.ca_pem, first.fingerprint)


def test_authority_key_is_readable_by_its_owner_alone(tmp_path: Path, authority: Authority) -> None:
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
    assert b"PRIVATE" not in authority.ca_pem


def test_authority_refuses_a_key_that_others_can_read(tmp_path: Path, authority: Authority, clock: Clock) -> None:
    (tmp_path / "ca" / "ca.key").chmod(0o644)
    with pytest.raises(Unavailable, match="can be read by others"):
        Authority.open(tmp_path / "ca", wall=clock)


def test_authority_with_a_lost_key_says_so_and_makes_no_new_one(
    tmp_path: Path, authority: Authority, clock: Clock
) -> None:
    (tmp_path / "ca" / "ca.key").unlink()
    with pytest.raises(Unavailable, match="damaged"):
        Authority.open(tmp_path / "ca", wall=clock)
    assert not (tmp_path / "ca" / "ca.key").exists()


def test_nodes_stay_members_when_only_the_authority_certificate_was_lost(
    tmp_path: Path, authority: Authority, invite: Invite, clock: Clock
) -> None:
    node = joined(authority, invite)
    (tmp_path / "ca" / "ca.pem").unlink()
    again = Authority.open(tmp_path / "ca", wall=clock)
    assert node.renewed(again.sign_csr(node.csr(), "node-4")).name == "node-4"


def test_authority_refuses_files_of_two_authorities(tmp_path: Path, authority: Authority, clock: Clock) -> None:
    Authority.open(tmp_path / "other", wall=clock)
    (tmp_path / "ca" / "ca.pem").write_bytes((tmp_path / "other" / "ca.pem").read_bytes())
    with pytest.raises(Unavailable, match="do not belong together"):
        Authority.open(tmp_path / "ca", wall=clock)


def test_expired_authority_is_refused_with_its_date(tmp_path: Path, authority: Authority, clock: Clock) -> None:
    clock.now += 11 * 365 * DAY_S
    with pytest.raises(Unavailable, match="expired at 20"):
        Authority.open(tmp_path / "ca", wall=clock)


# ------------------------------------------------------------------ the link's certificate


def test_server_certificate_is_kept_until_it_nears_its_end(authority: Authority, clock: Clock) -> None:
    first = authority.server_identity(["localhost", "127.0.0.1"])
    clock.now += 200 * DAY_S
    assert authority.server_identity(["127.0.0.1", "localhost"]) == first
    clock.now += 100 * DAY_S
    renewed = authority.server_identity(["localhost", "127.0.0.1"])
    assert renewed != first
    assert x509.load_pem_x509_certificate(renewed.certificate_pem).not_valid_after_utc.timestamp() > clock.now


def test_server_certificate_is_made_again_for_other_names(authority: Authority) -> None:
    first = authority.server_identity(["localhost"])
    second = authority.server_identity(["farm.example", "10.0.0.1", "::1"])
    assert first != second
    names = x509.load_pem_x509_certificate(second.certificate_pem).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["farm.example"]
    assert [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "::1"]


def test_damaged_server_certificate_is_replaced(tmp_path: Path, authority: Authority) -> None:
    authority.server_identity()
    (tmp_path / "ca" / "server.pem").write_bytes(b"\0" * 100)
    assert b"BEGIN CERTIFICATE" in authority.server_identity().certificate_pem


def test_both_sides_shake_hands_over_tls(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path / "ca")
    secret, expires = authority.invitation()
    node = joined(authority, Invite("node-4", secret, authority.fingerprint, "g", "l", expires))
    server = authority.server_identity(["localhost"])
    node.save(tmp_path / "node")
    (tmp_path / "s.key").write_bytes(server.key_pem)
    (tmp_path / "s.pem").write_bytes(server.certificate_pem)
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.ca_pem.decode())
    theirs.verify_mode = ssl.CERT_REQUIRED
    theirs.load_cert_chain(tmp_path / "s.pem", tmp_path / "s.key")
    ours = ssl.create_default_context(cadata=node.ca_pem.decode())
    ours.load_cert_chain(tmp_path / "node" / "certificate.pem", tmp_path / "node" / "key.pem")

    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ours.wrap_bio(b, a, server_hostname="localhost")
    listener = theirs.wrap_bio(a, b, server_side=True)
    done = {id(client): False, id(listener): False}
    for _ in range(10):
        for side in (client, listener):
            try:
                side.do_handshake()
                done[id(side)] = True
            except ssl.SSLWantReadError:
                continue
    assert all(done.values())
    subject = dict(item[0] for item in listener.getpeercert()["subject"])  # type: ignore[index]
    assert subject["commonName"] == "node-4"


# ------------------------------------------------------------------ signing


def test_node_certificate_names_the_node_and_lives_thirty_days(authority: Authority, invite: Invite) -> None:
    node = joined(authority, invite)
    certificate = x509.load_pem_x509_certificate(node.certificate_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert node.name == "node-4"
    assert names.get_values_for_type(x509.DNSName) == ["node-4"]
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not constraints.ca
    assert node.days_left(NOW) == pytest.approx(30, abs=0.01)


def test_request_for_another_name_is_refused(authority: Authority) -> None:
    with pytest.raises(InvalidRequest, match="'node-5'; only 'node-4'"):
        authority.sign_csr(certificate_request(new_key(), "node-5"), "node-4")


@pytest.mark.parametrize("name", ["", "*", "Node", "a b", "node-4\n", "x" * 64, "../ca"])
def test_only_names_of_nodes_are_signed(authority: Authority, name: str) -> None:
    csr = certificate_request(new_key(), name or "x") if len(name) < 64 else b""
    with pytest.raises(InvalidRequest, match="cannot be the name"):
        authority.sign_csr(csr, name)


def test_asked_extensions_do_not_reach_the_certificate(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node-4")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=3), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("controller")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    extensions = x509.load_pem_x509_certificate(authority.sign_csr(csr, "node-4")).extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node-4"]


def test_two_common_names_are_refused(authority: Authority) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in ("node-4", "node-5")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject)
    pem = csr.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(InvalidRequest, match="names 2"):
        authority.sign_csr(pem, "node-4")


def test_other_kinds_of_key_are_refused(authority: Authority) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node-4")])
    key = rsa.generate_private_key(65537, 2048)
    pem = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    with pytest.raises(InvalidRequest, match="P-256"):
        authority.sign_csr(pem, "node-4")


@pytest.mark.parametrize(
    "junk", [b"", b"junk", b"\0" * 64, b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", b"x" * 99_999]
)
def test_junk_instead_of_a_request_is_refused(authority: Authority, junk: bytes) -> None:
    with pytest.raises(InvalidRequest):
        authority.sign_csr(junk, "node-4")


def test_tampered_request_is_refused(authority: Authority) -> None:
    request = x509.load_pem_x509_csr(certificate_request(new_key(), "node-4"))
    raw = bytearray(request.public_bytes(serialization.Encoding.DER))
    raw[-1] ^= 1  # in the signature
    pem = ssl.DER_cert_to_PEM_cert(bytes(raw)).replace("CERTIFICATE", "CERTIFICATE REQUEST").encode()
    with pytest.raises(InvalidRequest):
        authority.sign_csr(pem, "node-4")


# ------------------------------------------------------------------ invitations and proofs


def test_token_carries_everything_back(invite: Invite) -> None:
    wrapped = "\n".join(invite.encode()[i : i + 40] for i in range(0, len(invite.encode()), 40))
    assert Invite.decode(f"  {wrapped}\n", NOW) == dataclasses.replace(invite, expires=float(int(invite.expires)))


def test_token_lives_fifteen_minutes(invite: Invite) -> None:
    assert invite.expires == NOW + INVITE_LIFE_S == NOW + 900
    Invite.decode(invite.encode(), NOW + 899)
    with pytest.raises(Forbidden, match="expired at") as refusal:
        Invite.decode(invite.encode(), NOW + 900)
    assert refusal.value.data["reason"] == "expired"
    assert "farmctl node invite node-4" in refusal.value.remedy


@pytest.mark.parametrize("junk", ["", "hello", "e30", "eyJ2IjoxfQ", "W10", "bnVsbA", "a" * 5000, "ü", "eyJ2Ijox"])
def test_junk_instead_of_a_token_is_refused(junk: str) -> None:
    with pytest.raises(InvalidRequest, match="not a whole invitation"):
        Invite.decode(junk, NOW)


def test_token_cut_short_is_refused(invite: Invite) -> None:
    token = invite.encode()
    for length in range(len(token)):
        with pytest.raises(InvalidRequest):
            Invite.decode(token[:length], NOW)


def test_token_of_a_later_release_says_so() -> None:
    with pytest.raises(InvalidRequest, match="form 2"):
        Invite.decode("eyJ2IjoyfQ", NOW)  # {"v":2}


def test_secrets_do_not_show_in_representations(authority: Authority, invite: Invite) -> None:
    node = joined(authority, invite)
    assert repr(invite.secret) not in repr(invite)
    assert "PRIVATE" not in repr(node)


def test_proof_needs_the_secret(authority: Authority, invite: Invite) -> None:
    request, _ = join_request(invite)
    assert verify_join_request(invite.secret, request)
    assert not verify_join_request(b"x" * 32, request)
    assert authority.answer_join(b"x" * 32, request) is None


def test_request_changed_on_its_way_is_not_proved(invite: Invite) -> None:
    request, _ = join_request(invite)
    stolen = JoinRequest(request.name, certificate_request(new_key(), "node-4").decode(), request.proof)
    assert not verify_join_request(invite.secret, stolen)


def test_proved_request_for_another_name_is_refused(authority: Authority, invite: Invite) -> None:
    request, _ = join_request(dataclasses.replace(invite, name="node-5"))
    lying = JoinRequest("node-4", request.csr_pem, request.proof)
    with pytest.raises(InvalidRequest, match="only 'node-4'"):
        authority.answer_join(invite.secret, lying)


def test_answer_of_someone_without_the_secret_is_refused(authority: Authority, invite: Invite) -> None:
    request, key = join_request(invite)
    certificate = authority.sign_csr(request.csr_pem.encode(), "node-4")
    with pytest.raises(Forbidden) as refusal:
        verify_join_answer(invite, key, join_answer(b"x" * 32, certificate, authority.ca_pem))
    assert refusal.value.data["reason"] == "proof"


def test_answer_of_another_authority_is_refused(tmp_path: Path, invite: Invite, clock: Clock) -> None:
    other = Authority.open(tmp_path / "other", wall=clock)
    request, key = join_request(invite)
    answer = other.answer_join(invite.secret, request)
    assert answer is not None
    with pytest.raises(Forbidden) as refusal:
        verify_join_answer(invite, key, answer)
    assert refusal.value.data["reason"] == "ca"


def test_answer_with_another_name_or_key_is_refused(authority: Authority, invite: Invite) -> None:
    request, key = join_request(invite)
    renamed = authority.sign_csr(certificate_request(key, "node-5"), "node-5")
    with pytest.raises(Forbidden) as refusal:
        verify_join_answer(invite, key, join_answer(invite.secret, renamed, authority.ca_pem))
    assert refusal.value.data["reason"] == "name"
    rightful = authority.answer_join(invite.secret, request)
    assert rightful is not None
    with pytest.raises(Forbidden) as refusal:
        verify_join_answer(invite, new_key(), rightful)
    assert refusal.value.data["reason"] == "certificate"


def test_answer_with_a_certificate_of_another_authority_is_refused(
    tmp_path: Path, authority: Authority, invite: Invite, clock: Clock
) -> None:
    request, key = join_request(invite)
    foreign = Authority.open(tmp_path / "other", wall=clock).sign_csr(request.csr_pem.encode(), "node-4")
    with pytest.raises(Forbidden, match="another authority"):
        verify_join_answer(invite, key, join_answer(invite.secret, foreign, authority.ca_pem))


def test_junk_answer_is_refused(authority: Authority, invite: Invite) -> None:
    _, key = join_request(invite)
    with pytest.raises(Forbidden):
        verify_join_answer(invite, key, JoinAnswer("junk", authority.ca_pem.decode(), "ü"))


# ------------------------------------------------------------------ the node's files


def test_identity_survives_save_and_load(tmp_path: Path, authority: Authority, invite: Invite) -> None:
    node = joined(authority, invite)
    node.save(tmp_path / "identity")
    assert Identity.load(tmp_path / "identity") == node
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "identity").iterdir()} == {0o600}
    assert (tmp_path / "identity").stat().st_mode & 0o777 == 0o700


def test_identity_is_read_from_its_certificate_when_its_summary_is_older(
    tmp_path: Path, authority: Authority, invite: Invite, clock: Clock
) -> None:
    node = joined(authority, invite)
    node.save(tmp_path / "identity")
    clock.now += 20 * DAY_S
    renewed = node.renewed(authority.sign_csr(node.csr(), node.name))
    (tmp_path / "identity" / "certificate.pem").write_bytes(renewed.certificate_pem)  # the power went before the rest
    assert Identity.load(tmp_path / "identity") == renewed


def test_machine_that_never_joined_learns_how(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="farmctl node invite"):
        Identity.load(tmp_path / "identity")


def test_damaged_or_open_identity_is_refused(tmp_path: Path, authority: Authority, invite: Invite) -> None:
    joined(authority, invite).save(tmp_path / "identity")
    (tmp_path / "identity" / "certificate.pem").write_bytes(b"\0\0\0")
    with pytest.raises(Unavailable, match="damaged"):
        Identity.load(tmp_path / "identity")
    (tmp_path / "identity" / "key.pem").chmod(0o640)
    with pytest.raises(Unavailable, match="can be read by others"):
        Identity.load(tmp_path / "identity")


def test_full_disk_leaves_the_old_identity(
    tmp_path: Path, authority: Authority, invite: Invite, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = joined(authority, invite)
    node.save(tmp_path / "identity")
    files = sorted(path.name for path in (tmp_path / "identity").iterdir())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        node.renewed(authority.sign_csr(node.csr(), node.name)).save(tmp_path / "identity")
    assert Identity.load(tmp_path / "identity") == node
    assert sorted(path.name for path in (tmp_path / "identity").iterdir()) == files


def test_certificate_is_renewed_at_half_of_its_life(authority: Authority, invite: Invite, clock: Clock) -> None:
    node = joined(authority, invite)
    assert not node.is_due_for_renewal(NOW + 14.9 * DAY_S)
    assert node.is_due_for_renewal(NOW + 15.1 * DAY_S)
    clock.now += 15.1 * DAY_S
    renewed = node.renewed(authority.sign_csr(node.csr(), node.name))
    assert renewed.key_pem == node.key_pem
    assert renewed.days_left(clock.now) == pytest.approx(30, abs=0.01)
    assert node.days_left(NOW + 31 * DAY_S) < 0


def test_renewal_under_another_name_is_refused(authority: Authority, invite: Invite) -> None:
    node = joined(authority, invite)
    with pytest.raises(InvalidRequest, match="names 'node-5'"):
        node.renewed(authority.sign_csr(certificate_request(node.key_pem, "node-5"), "node-5"))


def test_importing_identity_does_not_load_the_library_for_certificates() -> None:
    probe = "import sys, agentfarm.identity; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
