"""Access to the server: tokens, the headers that browsers receive, and requests that are refused."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from cvnet_engine.server.access import Access, cookie_of, is_loopback
from tests.cvnet_engine.server.conftest import LOCAL, TOKEN

JSON = {"Content-Type": "application/json"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def guarded(serve):
    return serve(Access("127.0.0.1", TOKEN))


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "10.0.0.7", "box.lan:80"])
def test_names_and_addresses_of_this_server(host):
    assert Access("box.lan").answers_to(host)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "evil.example:8080", "localhost.evil.example", "[", "127.0.0.1.nip.io"]
)
def test_names_of_other_servers(host):
    assert not Access("box.lan").answers_to(host)


def test_an_unknown_host_is_refused(client):
    answer = client.get("/v1/gallery", headers={"Host": "evil.example"})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://["])
def test_another_site_cannot_post(client, origin):
    assert client.post("/v1/search", data={"id": "x"}, headers={"Origin": origin}).status_code == 403
    assert client.post("/v1/search", data={"id": "x"}, headers={"Origin": LOCAL}).status_code == 404


@pytest.mark.parametrize("path", ["/v1/gallery", "/v1/images", "/v1/images/x", "/metrics", "/v1/search", "/nothing"])
def test_everything_else_needs_the_token(guarded, path):
    answer = guarded.get(path)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert guarded.get(path, headers=BEARER).status_code in (200, 404, 405)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/"])
def test_health_and_the_page_are_open(guarded, path):
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"])
def test_wrong_credentials(guarded, value):
    assert guarded.get("/v1/gallery", headers={"Authorization": value.encode("latin-1")}).status_code == 401


def test_a_login_sets_a_cookie_hidden_from_scripts_and_sites(guarded):
    assert guarded.post("/v1/login", json={"token": "wrong"}).status_code == 401
    answer = guarded.post("/v1/login", json={"token": TOKEN})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert guarded.get("/v1/gallery").status_code == 200


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_the_body_of_a_login_is_small(guarded, kind):
    body = b"[" + b"[]," * 2**16 + b"[]]"
    assert guarded.post("/v1/login", content=body, headers={"Content-Type": f"{kind}; boundary=x"}).status_code == 413


@pytest.mark.parametrize("other", ['prefs={"a": 1}', "a b=1", "é=1", 'theme="dark', "x[y]=1", "=", "word"])
def test_cookies_of_other_programs_are_ignored(other):
    """A browser sends those of every port of a machine, and they may be anything."""
    access, name = Access("127.0.0.1", TOKEN), "cvnet_session"
    for cookies in (f"{other}; {name}={access.session}", f"{name}={access.session}; {other}"):
        assert access.admits(Headers({"cookie": cookies}))
    assert not access.admits(Headers({"cookie": f"{other}; {name}="}))


def test_a_session_ends_with_the_server():
    before = Access("127.0.0.1", TOKEN)
    headers = Headers({"cookie": f"cvnet_session={before.session}"})
    assert before.admits(headers)
    assert not Access("127.0.0.1", TOKEN).admits(headers)


def test_servers_on_one_machine_leave_each_other_logged_in():
    by_host = {host: Access("127.0.0.1", TOKEN) for host in ("localhost:8080", "localhost:8081", "[::1]:80", "[::1]")}
    cookies = [f"{cookie_of(Headers({'host': host}))}={access.session}" for host, access in by_host.items()]
    for host, access in by_host.items():
        assert access.admits(Headers({"host": host, "cookie": "; ".join(cookies)}))


def test_without_a_token_nobody_logs_in(client):
    assert client.post("/v1/login", json={"token": ""}).status_code == 401


def test_a_token_of_invalid_text_is_refused(guarded):
    assert guarded.post("/v1/login", content=b'{"token": "\\ud800"}', headers=JSON).status_code == 401


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/v1/gallery", "/nothing"])
def test_every_response_has_security_headers(client, path):
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "own"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("box", False)]
)
def test_only_loopback_hosts_need_no_token(host, own):
    assert is_loopback(host) is own
