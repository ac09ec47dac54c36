"""FAULTS §1, 17 to 20 and 23: invites, certificates, strangers, and the limits of the door."""

import json
import os
import re
import resource
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.loopback import Consortium, slow_training, until
from client.leaving import CROSS_EVALUATION, leaves
from client.membership import open_membership
from common.link_pb2 import Content, EnrolRequest, FromLab, Hello, LookRequest, Reply
from common.link_pb2_grpc import LinkStub
from server.authority import Authority, write_key


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_two_people_who_have_never_met_train_together(site: Consortium) -> None:
    site.agree(rounds=2)
    coordinator = site.coordinator()
    for lab in ("aachen", "bremen"):
        site.join(lab)
    doctor = site.do("lab", "doctor", "--state", site.state("aachen"))
    assert "aachen is ready" in doctor.output
    findings = site.do("lab", "doctor", "--json", "--state", site.state("aachen")).output
    assert "TLS 1.3 both ways; waiting for labs" in findings
    assert "cosine with the reference" in findings
    labs = [site.lab(lab) for lab in ("aachen", "bremen")]
    assert coordinator.exit_code() == 0, coordinator.text()
    said = coordinator.text()
    assert f"nobody is invited yet: crossply server invite LAB-NAME --state {site.server}" in said
    assert all(f"a lab has enrolled lab={lab}" in said for lab in ("aachen", "bremen"))
    assert [lab.exit_code() for lab in labs] == [0, 0]
    assert site.result()["labs"] == ["aachen", "bremen"]
    assert site.status()["phase"] == "finished"
    # what one may read, and what has left
    state = site.state("aachen")
    assert [mode(state), mode(state / "lab.key")] == [0o700, 0o600]
    assert [mode(site.server), mode(site.server / "ca.key")] == [0o700, 0o600]
    log = site.do("lab", "log", "--state", state, "--json")
    types = [entry["type"] for entry in json.loads(log.output)]
    assert types == [
        "query.handshake",
        "query.statistics",
        "train",
        "train",
        "query.components",
        "query.components",
        "query.gram",
        "evaluate",
        "query.release",
    ]
    shown = site.do("server", "status", "--state", site.server).output
    assert "finished after 2 rounds" in shown and "aachen" in shown


def test_the_agreement_is_shown_and_a_no_sends_nothing(site: Consortium) -> None:
    site.agree()
    path = site.invite("aachen")
    data = site.make_lab("data-aachen").path
    asked = site.tries("lab", "join", path, "--data", data, "--state", site.state("aachen"))
    assert asked.exit_code == 1
    for words in ("strength in MPa, 0 to 3000", "never leaves it", "Fingerprint", "micrographs"):
        assert words in asked.output
    assert "names your lab" in asked.output and "name_in_card = false" in asked.output
    assert re.search("licence of the model +none is stated", asked.output)
    shown = " ".join(asked.output.split())
    for sentence in leaves(min_specimens=4, cross_evaluation=False):
        assert f"- {sentence}" in shown
    assert CROSS_EVALUATION not in shown
    assert not site.state("aachen").exists()


def test_data_that_cannot_take_part_do_not_use_the_invite_up(site: Consortium) -> None:
    site.agree()
    lab = site.make_lab("data-lab")
    lab.settings["targets"]["strength"]["unit"] = "mm"
    lab.settings["targets"]["elongation"] = lab.settings["targets"].pop("modulus")
    lab.write_toml()
    # nobody listens: it is said before anything is asked of the coordinator
    refused = str(joined(site, site.invite("aachen")).exception)
    assert "the federation does not know 'elongation'" in refused
    assert "'mm' does not convert to the federation's 'MPa'" in refused
    assert not list(site.folder.glob("state-*"))


def test_joining_again_says_how_to_go_on(site: Consortium) -> None:
    site.joined("aachen")
    again = site.tries(
        *("lab", "join", site.invite("bremen"), "--data", site.folder / "data-aachen"),
        *("--state", site.state("aachen")),
    )
    assert "has joined already: go on with `crossply lab start" in str(again.exception)
    assert "membership.json, and may be corrected there" in str(again.exception)


def joined(site: Consortium, path: Path, *options: object) -> Any:
    fingerprint = json.loads((site.server / "server.json").read_text())["fingerprint"]
    data = site.folder / "data-lab"
    if not data.exists():
        site.make_lab("data-lab")
    state = site.folder / f"state-{os.urandom(4).hex()}"
    return site.tries(
        *("lab", "join", path, "--data", data, "--state", state),
        *(options or ("--yes", "--fingerprint", fingerprint[:12])),
    )


def test_fault_19_an_invite_that_is_used_revoked_expired_or_altered(site: Consortium) -> None:
    site.agree()
    nobody = joined(site, site.invite("early"))
    assert "nobody listens at" in str(nobody.exception)
    site.coordinator()
    path = site.invite("aachen")
    assert joined(site, path).exit_code == 0
    assert "the invite of aachen was used on" in str(joined(site, path).exception)
    taken = site.tries("server", "invite", "aachen", "--state", site.server)
    assert "invited or enrolled already" in str(taken.exception)

    path = site.invite("bremen")
    site.do("server", "revoke", "bremen", "--state", site.server)
    assert "was revoked" in str(joined(site, path).exception)

    path = site.invite("celle", "--valid", "1 s")
    content = json.loads(path.read_text())
    content["expires"] = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    late = path.with_name("late.invite")
    late.write_text(json.dumps(content))
    threading.Event().wait(1.1)
    assert "expired on" in str(joined(site, path).exception)
    # the date in the file is for the lab alone; the coordinator goes by its own
    assert "the coordinator refuses: the invite of celle expired" in str(
        joined(site, late).exception
    )

    path = site.invite("dresden")
    content = json.loads(path.read_text())
    for key, value, words in (
        ("token", "x" * 43, "not one of this coordinator, or was altered"),
        ("federation", content["federation"].replace("quorum", "seed"), "the invite's agreement"),
        ("fingerprint", "0" * 64, "not the one that its fingerprint says"),
    ):
        altered = path.with_name("altered.invite")
        altered.write_text(json.dumps(content | {key: value}))
        assert words in str(joined(site, altered).exception)
    path.write_text(path.read_text()[:500])
    assert "was cut or altered" in str(joined(site, path).exception)


def test_yes_needs_the_fingerprint(site: Consortium) -> None:
    site.agree()
    path = site.invite("aachen")
    assert "--yes needs --fingerprint" in str(joined(site, path, "--yes").exception)
    short = joined(site, path, "--yes", "--fingerprint", "abc")
    assert "needs 12 digits or more" in str(short.exception)
    other = joined(site, path, "--yes", "--fingerprint", "0" * 12)
    assert "ask the coordinator which is right" in str(other.exception)
    right = json.loads(path.read_text())["fingerprint"][:20]
    wrong = f"{right}{'1' if json.loads(path.read_text())['fingerprint'][20] == '0' else '0'}"
    longer = str(joined(site, path, "--yes", "--fingerprint", wrong).exception)
    assert f"not {wrong};" in longer and longer.count(wrong) == 1


def channel(membership: Any, **other: bytes) -> grpc.Channel:
    key = other.get("key", membership.key_path.read_bytes())
    certificate = other.get("certificate", membership.certificate_path.read_bytes())
    ca = other.get("ca", membership.ca_path.read_bytes())
    return grpc.secure_channel(
        membership.address, grpc.ssl_channel_credentials(ca, key, certificate)
    )


def test_fault_18_strangers_other_authorities_and_the_revoked(site: Consortium) -> None:
    site.joined("aachen", "bremen", rounds=400, quorum=0.5)
    coordinator = site.coordinator()
    membership = open_membership(site.state("aachen"))
    context = ssl.create_default_context(cafile=str(membership.ca_path))
    context.set_alpn_protocols(["h2"])

    def is_let_in() -> bool:
        """A gRPC server speaks first to whom it lets in."""
        try:
            with (
                socket.create_connection(("localhost", site.port), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secured,
            ):
                return bool(secured.recv(1))
        except (ssl.SSLError, ConnectionError):
            return False

    # no client certificate: out before a byte of ours is read
    assert not is_let_in()
    context.load_cert_chain(membership.certificate_path, membership.key_path)
    assert is_let_in()
    # and nothing older than TLS 1.3
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert not is_let_in()

    # a certificate of another authority for the same name
    stranger = site.folder / "stranger"
    stranger.mkdir()
    authority = Authority.create(stranger, "other")
    key = ec.generate_private_key(ec.SECP256R1())
    write_key(stranger / "key", key)
    from common.identity import Identity

    pem = authority.issue(
        Identity(role="lab", name="aachen", serial=7), key.public_key(), timedelta(days=1)
    )
    with channel(membership, key=(stranger / "key").read_bytes(), certificate=pem) as other:
        with pytest.raises(grpc.RpcError) as refused:
            LinkStub(other).Look(LookRequest(), timeout=5)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE

    # an invite's certificate may enrol, and nothing else
    invite = json.loads(site.invite("celle").read_text())
    inviting = {"key": invite["key"].encode(), "certificate": invite["certificate"].encode()}
    with channel(membership, **inviting) as bootstrap:
        with pytest.raises(grpc.RpcError) as refused:
            LinkStub(bootstrap).Look(LookRequest(), timeout=5)
        assert refused.value.details() == "this needs a certificate of the role lab"
    with channel(membership) as own:
        with pytest.raises(grpc.RpcError) as refused:
            LinkStub(own).Enrol(EnrolRequest(token="x"), timeout=5)
        assert refused.value.details() == "this needs a certificate of the role invite"
    site.do("server", "revoke", "celle", "--state", site.server)

    # a lab revoked during a run is out within seconds, and the run goes on
    labs = {lab: site.lab(lab) for lab in ("aachen", "bremen")}
    until(lambda: "round=2" in coordinator.text(), "round 2")
    site.do("server", "revoke", "bremen", "--state", site.server)
    assert labs["bremen"].exit_code(timeout=5) == 1
    assert "bremen has been revoked" in labs["bremen"].text()
    again = site.lab("bremen")
    assert again.exit_code() == 1
    assert "the coordinator refuses: bremen was revoked on" in again.text()
    assert not labs["aachen"].ended()
    until(lambda: site.status()["round"] > 3, "the run goes on")
    rows = {row["lab"]: row["standing"] for row in site.status()["labs"]}
    assert rows == {"aachen": "online", "bremen": "revoked"}


def test_fault_23_who_connects_and_asks_for_nothing_is_closed(site: Consortium) -> None:
    """Whoever is let in by TLS: a lab that was revoked, an invite that was used."""
    site.joined("aachen", rounds=5000)
    soon = """
import server.link_server
server.link_server.LIMITS["grpc.max_connection_idle_ms"] = 1000
"""
    coordinator = site.coordinator(before=soon)
    membership = open_membership(site.state("aachen"))
    lab = site.lab("aachen", before=slow_training(0.05))
    context = ssl.create_default_context(cafile=str(membership.ca_path))
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(membership.certificate_path, membership.key_path)
    with (
        socket.create_connection(("localhost", site.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as idle,
    ):
        # the preface of HTTP/2 and empty settings, and then nothing
        idle.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        while idle.recv(4096):
            continue
    # a lab's stream is no idle connection
    until(lambda: "round=30" in coordinator.text(), "the run goes on")
    assert not lab.ended() and coordinator.text().count("a lab has gone") == 0


def test_fault_20_another_version_or_agreement_is_refused_naming_both(site: Consortium) -> None:
    site.joined("aachen")
    site.coordinator()
    membership = open_membership(site.state("aachen"))
    for hello, words in (
        (
            Hello(version="9.9", fingerprint=membership.fingerprint),
            f"9.9 and the coordinator {version('crossply')}",
        ),
        (Hello(version=version("crossply"), fingerprint="0" * 64), "agreement 000000000000 and"),
    ):
        with channel(membership) as own:
            call = LinkStub(own).Connect(iter([FromLab(hello=hello)]))
            with pytest.raises(grpc.RpcError) as refused:
                list(call)
            assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert words in str(refused.value.details())


def test_faults_9_and_23_replayed_and_oversized(site: Consortium) -> None:
    site.joined("aachen", "bremen", rounds=40, quorum=0.5, round_deadline="5 s")
    coordinator = site.coordinator("--grace", "0.2 s", "--wait", "15 s")
    membership = open_membership(site.state("bremen"))
    lab = site.lab("aachen")
    hello = FromLab(hello=Hello(version=version("crossply"), fingerprint=membership.fingerprint))
    with channel(membership) as own:
        replays = [FromLab(reply=Reply(message_id="of another run", error="internal"))] * 3
        waits = threading.Event()

        def stream(last: FromLab) -> Iterator[FromLab]:
            yield hello
            yield from replays
            yield last
            waits.wait(20)

        replayed = LinkStub(own).Connect(stream(replays[0]))
        assert next(replayed).WhichOneof("kind") == "welcome"
        until(
            lambda: coordinator.text().count("repeated reply is dropped lab=bremen") >= 4, "drops"
        )
        replayed.cancel()
        until(lambda: "gone lab=bremen" in coordinator.text(), "it leaves")
        flood = LinkStub(own).Connect(iter([hello, *replays * 100]))
        assert [message.WhichOneof("kind") for message in flood][:1] == ["welcome"]
        assert coordinator.text().count("answers what nobody asks; cut off lab=bremen") == 1
        assert coordinator.text().count("repeated reply is dropped lab=bremen") < 40
        huge = Content()
        huge.records.add(key="x").arrays.tensors.add(name="x", data=bytes(50_000_000))
        oversized = LinkStub(own).Connect(stream(FromLab(reply=Reply(content=huge))))
        with pytest.raises(grpc.RpcError) as refused:
            list(oversized)
        assert refused.value.code() in (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.UNKNOWN,
        )
        waits.set()
        assert coordinator.exit_code() == 0, coordinator.text()
    assert lab.exit_code() == 0
    assert len(site.result()["rounds"]) == 40


def num_closed(sockets: list[socket.socket]) -> int:
    """Return how many of these connections the other side has closed."""
    closed = 0
    for each in sockets:
        try:
            closed += each.recv(100, socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            continue
        except ConnectionError:
            closed += 1
    return closed


def test_fault_23_thousands_of_strangers_cost_the_labs_nothing(site: Consortium) -> None:
    # both ends of each connection are of this machine
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 4000:
        pytest.skip(f"{most} open files are too few for three thousand connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    site.joined("aachen", "bremen", rounds=5000, quorum=0.5, round_deadline="20 s")
    many = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))"
    coordinator = site.coordinator("--grace", "0.2 s", before=many)
    labs = {lab: site.lab(lab, before=slow_training(0.02)) for lab in ("aachen", "bremen")}
    until(lambda: "round=2" in coordinator.text(), "round 2")
    labs["bremen"].kill()

    with ExitStack() as open_connections:
        idle = []
        for number in range(3000):
            stranger = socket.create_connection(("127.0.0.1", site.port), timeout=10)
            open_connections.enter_context(stranger)
            if number % 2:
                # the first bytes of a TLS handshake that never goes on
                stranger.sendall(b"\x16\x03\x01\x02")
            idle.append(stranger)
        before = site.status()["round"]
        until(lambda: site.status()["round"] >= before + 5, "aachen trains on meanwhile", 10)
        # each is closed at the latest when its ten seconds for TLS are over
        until(lambda: num_closed(idle) == len(idle), "all strangers are out", 30)
    again = site.lab("bremen")
    again.says("connected to", 20)
    until(lambda: not site.status()["labs"][1]["why"], "bremen takes part again")
    assert not labs["aachen"].ended() and not coordinator.ended()


@contextmanager
def impostor(folder: Path, host: str, days: int, authority: Authority | None) -> Iterator[int]:
    """A TLS server on loopback whose certificate is not what a lab expects."""
    key = ec.generate_private_key(ec.SECP256R1())
    write_key(folder / "key", key)
    issuer = authority or Authority.create(folder, "other")
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
        .issuer_name(issuer._certificate.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(issuer._key, hashes.SHA256())
    )
    (folder / "crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "crt", folder / "key")
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as secured:
                    secured.recv(1)
            except OSError:
                plain.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.mark.parametrize(
    ("host", "days", "ours", "words"),
    [
        ("localhost", -1, True, "has expired"),
        ("localhost", 1, False, "is not the one that this lab joined"),
        ("elsewhere.example", 1, True, "is for another host name than localhost"),
    ],
)
def test_fault_17_a_coordinator_that_cannot_be_trusted(
    site: Consortium, host: str, days: int, ours: bool, words: str
) -> None:
    site.joined("aachen")
    folder = site.folder / "impostor"
    folder.mkdir()
    with impostor(folder, host, days, Authority(site.server) if ours else None) as port:
        path = site.state("aachen") / "membership.json"
        settings = json.loads(path.read_text())
        path.write_text(json.dumps(settings | {"address": f"localhost:{port}"}))
        lab = site.lab("aachen", "--forever")
        assert lab.exit_code() == 1
        assert words in lab.text().strip().splitlines()[-1]
        doctor = site.tries("lab", "doctor", "--state", site.state("aachen"))
        assert doctor.exit_code == 1 and "connection" in doctor.output


def test_nobody_answers_for_as_long_as_a_person_waits(site: Consortium) -> None:
    site.joined("aachen")
    lab = site.lab("aachen", "--patience", "2 s")
    assert lab.exit_code() == 1
    assert f"nobody listens at localhost:{site.port}" in lab.text()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("membership.json", "is no state folder of a lab"),
        ("lab.key", "lab.key: No such file"),
        ("policy.toml", "policy.toml: cannot be read"),
    ],
)
def test_a_state_folder_that_is_not_whole(site: Consortium, file: str, words: str) -> None:
    site.joined("aachen")
    (site.state("aachen") / file).unlink()
    lab = site.lab("aachen")
    assert lab.exit_code() == 1
    assert words in lab.text()
    assert "Traceback" not in lab.text()


def test_the_health_service_answers_the_operator(site: Consortium) -> None:
    site.agree()
    site.coordinator()
    read = [
        (site.server / name).read_bytes() for name in ("ca.crt", "operator.key", "operator.crt")
    ]
    with grpc.secure_channel(site.address, grpc.ssl_channel_credentials(*read)) as operator:
        # the package of its types knows the stub, and none of its methods
        health: Any = health_pb2_grpc.HealthStub(operator)
        request = health_pb2.HealthCheckRequest(service="crossply.link.Link")
        assert health.Check(request, timeout=5).status == health_pb2.HealthCheckResponse.SERVING
        # a probe's certificate is no lab's
        with pytest.raises(grpc.RpcError):
            LinkStub(operator).Look(LookRequest(), timeout=5)


def test_two_processes_out_of_one_lab_folder(site: Consortium) -> None:
    site.joined("aachen", "bremen")
    site.coordinator()
    first = site.lab("aachen")
    until(lambda: "ready" in first.text(), "the first takes part")
    second = site.lab("aachen")
    assert second.exit_code() == 1
    assert "another process takes part out of" in second.text()
    assert not first.ended()
