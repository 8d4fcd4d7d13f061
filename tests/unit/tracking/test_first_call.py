"""The first call is one of the client that logs: whatever lets that in, or keeps it out, does the same to the check."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import ssl
import warnings
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ladder_search import environment
from ladder_search.errors import TrackingError
from ladder_search.tracking import first_call
from ladder_search.tracking.mlflow_store import open_store

ME = "Basic " + base64.b64encode(b"me:secret").decode()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without any login, and no variable of MLflow's or of a proxy."""
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def guarded(flaky: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server that lets one user in."""
    answer = flaky.server.RequestHandlerClass._answer

    def _answer(self: Any, body: dict[str, Any]) -> None:
        flaky.always = None if self.headers["Authorization"] == ME else 401
        answer(self, body)

    monkeypatch.setattr(flaky.server.RequestHandlerClass, "_answer", _answer)
    return flaky


def ask(store: str) -> first_call.Answer:
    with environment.ours(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in a process of its own
        return first_call.ask(store, 5.0)


def both(store: str) -> int:
    """Return the status of the first call, after the client that logs has met the same end."""
    status = ask(store).status
    if status == 200:
        open_store(store, "digits", Path("results/a/spool"), "spool")
    else:
        with pytest.raises(TrackingError):
            open_store(store, "digits", Path("results/a/spool"), "spool")
    return status


@pytest.mark.parametrize("place", ["credentials", "netrc", "variables", "address", "nowhere"])
def test_a_login_may_be_wherever_mlflow_finds_it(
    place: str, guarded: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = guarded.address
    if place == "credentials":
        (home / ".mlflow").mkdir()
        (home / ".mlflow" / "credentials").write_text(
            "[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = secret\n"
        )
    elif place == "netrc":
        (home / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
        (home / ".netrc").chmod(0o600)
    elif place == "variables":
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    elif place == "address":
        store = store.replace("://", "://me:secret@")
    assert both(store) == (401 if place == "nowhere" else 200)


def test_loopback_is_reached_where_a_proxy_is_set(flaky: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # where nothing listens
    assert both(flaky.address) == 200
    answer = ask("http://example.invalid:5000")
    assert (answer.kind, answer.cause) == ("failed", "proxy") and "refused" in answer.reason


def test_a_redirection_that_loses_what_is_sent_is_told(flaky: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = flaky.server.RequestHandlerClass._answer

    def _answer(self: Any, body: dict[str, Any]) -> None:
        if self.path.startswith("/old"):
            self.send_response(301)
            self.send_header("Location", flaky.address + self.path.removeprefix("/old"))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            answer(self, body)

    monkeypatch.setattr(flaky.server.RequestHandlerClass, "_answer", _answer)
    told = ask(f"{flaky.address}/old")
    assert (told.kind, told.reason) == ("moved", flaky.address)


@pytest.mark.parametrize(
    "trust", ["REQUESTS_CA_BUNDLE", "MLFLOW_TRACKING_SERVER_CERT_PATH", "INSECURE", "none", "no-client"]
)
def test_certificates_are_those_of_mlflows_client(
    trust: str, flaky: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has a certificate of its own making, and lets in only clients that show it too."""
    certificate = _certificate(home)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    flaky.server.socket = context.wrap_socket(flaky.server.socket, server_side=True)
    monkeypatch.setattr(flaky.server, "handle_error", lambda *_: None)
    store = flaky.address.replace("http:", "https:")
    if trust != "no-client":
        monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(certificate))
    if trust == "INSECURE":
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    elif trust != "none":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE" if trust == "no-client" else trust, str(certificate))
    if trust in ("none", "no-client"):
        answer = ask(store)
        assert (answer.kind, answer.cause) == ("failed", "certificate"), answer
    else:
        assert both(store) == 200


def _certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server of a test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path
