"""Enrolment without a network: the register under several processes, nodes, and keys."""

import multiprocessing
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from client.findings import Findings
from client.tls import diagnose
from common.address import split_address
from common.errors import ConfigurationError, EnrolmentError, StateError
from common.identity import Identity, identity_of
from common.invite import Invite, read_invite
from common.link_pb2 import EnrolRequest
from server.authority import Authority
from server.enrolment import Enrolment, write_invite
from server.register import Register
from server.service import ServeOptions, serve
from server.state_folder import SETTINGS, Coordination, create_coordination

WEEK = timedelta(days=7)


@pytest.fixture
def state(tmp_path: Path, make_lab: Any) -> Coordination:
    path = tmp_path / "federation.toml"
    path.write_text(tomli_w.dumps(make_lab("template").federation))
    return create_coordination(path, "localhost:9443", tmp_path / "server")


def request(invite: Invite, key: ec.EllipticCurvePrivateKey) -> EnrolRequest:
    made = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
    return EnrolRequest(
        token=invite.token,
        certificate_request=made.public_bytes(Encoding.PEM),
        version=version("crossply"),
        fingerprint=invite.fingerprint,
    )


def enrol(state: Coordination, invite: Invite, key: Any = None) -> bytes:
    register = Register(state.folder)
    enrolment = Enrolment(Authority(state.folder), register, state.fingerprint)
    chosen = key or ec.generate_private_key(ec.SECP256R1())
    identity = identity_of(invite.certificate.encode())
    return bytes(enrolment.enrol(identity, request(invite, chosen)).certificate)


def test_a_lost_answer_may_be_asked_for_again_with_the_same_key_alone(state: Coordination) -> None:
    invite = write_invite(state, "aachen", WEEK)
    key = ec.generate_private_key(ec.SECP256R1())
    first = enrol(state, invite, key)
    assert enrol(state, invite, key) == first
    with pytest.raises(EnrolmentError, match="was used on"):
        enrol(state, invite)


def test_a_lab_that_comes_back_keeps_its_node_and_its_old_certificate_stays_out(
    state: Coordination,
) -> None:
    register = Register(state.folder)
    old = identity_of(enrol(state, write_invite(state, "aachen", WEEK)))
    enrol(state, write_invite(state, "bremen", WEEK))
    node = register.lab_with(old).node_id
    assert register.revoke("aachen") == "lab"
    with pytest.raises(EnrolmentError, match="aachen was revoked on"):
        register.lab_with(old)
    new = identity_of(enrol(state, write_invite(state, "aachen", WEEK)))
    assert register.lab_with(new).node_id == node
    with pytest.raises(EnrolmentError, match="not one that is enrolled"):
        register.lab_with(old)
    assert [lab.node_id for lab in register.labs()] == [2, 3]


def test_a_request_for_another_kind_of_key_or_not_signed_with_its_own(state: Coordination) -> None:
    invite = write_invite(state, "aachen", WEEK)
    with pytest.raises(EnrolmentError, match="not on P-256"):
        enrol(state, invite, ec.generate_private_key(ec.SECP384R1()))
    broken = request(invite, ec.generate_private_key(ec.SECP256R1()))
    broken.certificate_request = b"rubbish"
    enrolment = Enrolment(Authority(state.folder), Register(state.folder), state.fingerprint)
    with pytest.raises(EnrolmentError, match="cannot be read"):
        enrolment.enrol(identity_of(invite.certificate.encode()), broken)


def test_an_invite_is_good_for_its_own_token_alone(state: Coordination) -> None:
    one, other = (write_invite(state, lab, WEEK) for lab in ("aachen", "bremen"))
    swapped = one.model_copy(update={"token": other.token})
    with pytest.raises(EnrolmentError, match="was altered"):
        enrol(state, swapped)


@pytest.mark.parametrize("name", ["", "Aachen", "../x", "a b", "-a", "x" * 41])
def test_names_that_cannot_be(state: Coordination, name: str) -> None:
    with pytest.raises(EnrolmentError, match="cannot be a lab's name"):
        write_invite(state, name, WEEK)


def invite_many(folder: Coordination, prefix: str) -> None:
    for number in range(5):
        enrol(folder, write_invite(folder, f"{prefix}-{number}", WEEK))


def test_several_processes_write_one_register_and_no_node_is_given_twice(
    state: Coordination,
) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=invite_many, args=(state, prefix)) for prefix in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    labs = Register(state.folder).labs()
    assert len(labs) == 15
    assert sorted(lab.node_id for lab in labs) == list(range(2, 17))


def test_a_certificate_that_names_no_role_is_nobodys(state: Coordination) -> None:
    pem = (state.folder / "ca.crt").read_bytes()
    with pytest.raises(Exception, match=r"no certificate of crossply|names no role"):
        identity_of(pem)


def test_a_server_certificate_that_ends_soon_is_made_anew(state: Coordination) -> None:
    authority = Authority(state.folder)
    before = (state.folder / "server.crt").read_bytes()
    authority.renew_server_certificate("localhost")
    assert (state.folder / "server.crt").read_bytes() == before
    (state.folder / "server.crt").unlink()
    authority.renew_server_certificate("localhost")
    assert (state.folder / "server.crt").read_bytes() != before


@pytest.mark.parametrize("name", ["server.crt", "server.key"])
@pytest.mark.parametrize("content", [b"", b"rubbish", None])
def test_a_server_certificate_that_is_no_good_is_made_anew(
    state: Coordination, name: str, content: bytes | None
) -> None:
    path = state.folder / name
    # or the half of another pair
    other = (state.folder / f"operator{path.suffix}").read_bytes()
    path.write_bytes(other if content is None else content)
    Authority(state.folder).renew_server_certificate("localhost")
    key = load_pem_private_key((state.folder / "server.key").read_bytes(), password=None)
    certificate = x509.load_pem_x509_certificate((state.folder / "server.crt").read_bytes())
    assert certificate.public_key() == key.public_key()
    assert (state.folder / "server.key").stat().st_mode & 0o777 == 0o600


def test_the_used_invite_of_a_revoked_lab_lets_nobody_in(state: Coordination) -> None:
    invite = write_invite(state, "aachen", WEEK)
    key = ec.generate_private_key(ec.SECP256R1())
    enrol(state, invite, key)
    Register(state.folder).revoke("aachen")
    with pytest.raises(EnrolmentError, match="aachen has been revoked; ask for a new invite"):
        enrol(state, invite, key)


def test_an_agreement_that_was_edited_is_not_sent_out(state: Coordination) -> None:
    path = state.federation_path
    path.write_text(path.read_text().replace("tile_px = 32", "tile_px = 64"))
    with pytest.raises(StateError, match="has been edited"):
        write_invite(state, "aachen", WEEK)


@pytest.mark.parametrize(
    "address",
    [
        "localhost",
        "localhost:x",
        "localhost:99999",
        "localhost:0",
        "localhost:٣",
        "a..b:9443",
        "münchen.de:9443",
        "https://fed.example.org:9443",
        "fed example:9443",
        ":9443",
        "",
    ],
)
def test_what_is_no_address_is_said_everywhere_before_anything_is_made(
    state: Coordination, tmp_path: Path, address: str
) -> None:
    folder = tmp_path / "other"
    with pytest.raises(ConfigurationError, match="is no address; write HOST:PORT"):
        create_coordination(state.federation_path, address, folder)
    assert not folder.exists()
    invite = write_invite(state, "aachen", WEEK)
    path = tmp_path / "altered.invite"
    path.write_text(invite.model_copy(update={"address": address}).model_dump_json())
    with pytest.raises(EnrolmentError, match="is no address; write HOST:PORT"):
        read_invite(path)
    options = ServeOptions(wait=1.0, grace=1.0, bind=address)
    if address:
        with pytest.raises(ConfigurationError, match="is no address; write HOST:PORT"):
            serve(state, options)


@pytest.mark.parametrize("port", ["0", "65536", "99999", "123456789"])
def test_a_port_that_there_is_not_is_told_its_limits(port: str) -> None:
    with pytest.raises(ConfigurationError, match="a port is a number from 1 to 65535"):
        split_address(f"localhost:{port}")


def test_an_invite_that_could_not_be_written_takes_no_name(
    state: Coordination, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be written: No such file.* --out FILE"):
        write_invite(state, "aachen", WEEK, tmp_path / "no-such" / "aachen.invite")
    assert Register(state.folder).open_invites() == ()
    kept = tmp_path / "aachen.invite"
    made = write_invite(state, "aachen", WEEK, kept)
    assert read_invite(kept) == made and kept.stat().st_mode & 0o777 == 0o600
    # of an invite that the register does not take, nothing stays
    with pytest.raises(EnrolmentError, match="invited or enrolled already"):
        write_invite(state, "aachen", WEEK, tmp_path / "second.invite")
    assert {path.name for path in tmp_path.glob("*.invite")} == {"aachen.invite"}


def test_a_state_folder_that_was_cut_off_says_how_to_go_on(
    state: Coordination, tmp_path: Path
) -> None:
    with pytest.raises(StateError, match="exists already; go on with it"):
        create_coordination(state.federation_path, "localhost:9443", state.folder)
    (state.folder / SETTINGS).unlink()
    with pytest.raises(StateError, match=r"no server\.json: if .* was cut off there, remove it"):
        create_coordination(state.federation_path, "localhost:9443", state.folder)
    a_file = tmp_path / "file"
    a_file.touch()
    with pytest.raises(StateError, match="is no folder; name another"):
        create_coordination(state.federation_path, "localhost:9443", a_file)


def test_an_invite_cannot_write_to_a_terminal(state: Coordination, tmp_path: Path) -> None:
    invite = write_invite(state, "aachen", WEEK)
    path = tmp_path / "altered.invite"
    path.write_text(invite.model_copy(update={"lab": "x\x1b[2J"}).model_dump_json())
    with pytest.raises(EnrolmentError, match="is no lab's name"):
        read_invite(path)


@pytest.mark.parametrize(
    ("address", "words"),
    [("localhost:1", "nobody listens at"), ("no-such-host.invalid:9443", "name service")],
)
def test_why_a_connection_fails(state: Coordination, address: str, words: str) -> None:
    folder = state.folder
    found = diagnose(
        address, folder / "ca.crt", folder / "operator.crt", folder / "operator.key", timeout=3
    )
    assert found is not None and words in found.sentence and not found.lasting
    findings = Findings()
    findings.refuse("connection", EnrolmentError(found.sentence))
    assert findings.stops


def test_identities_are_read_back_from_what_is_issued(state: Coordination) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    lab = Identity(role="lab", name="aachen", serial=2**150 + 1)
    assert identity_of(Authority(state.folder).issue(lab, key, WEEK)) == lab
