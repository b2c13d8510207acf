"""Whether the hub answers for a model: what it refuses is an answer, silence is none."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from huggingface_hub import constants

from holdfast.model import hub


@pytest.fixture
def answering(monkeypatch, tmp_path):
    """A hub that answers with the status it is told."""
    told: dict[str, Any] = {"status": 200, "asked": "", "kind": "application/json", "says": b"{}", "code": None}

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            told["asked"] = self.path
            self.send_response(told["status"])
            self.send_header("Content-Type", told["kind"])
            if told["code"]:
                self.send_header("X-Error-Code", told["code"])
            self.end_headers()
            self.wfile.write(told["says"])

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "known", lambda source, revision: None)
    yield told
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("status", "reached"), [(200, True), (401, True), (404, True), (500, False), (503, False)])
def test_a_hub_that_says_no_is_reached(answering, status, reached):
    answering["status"] = status
    assert hub.reachable("some/model", "abc") is reached
    assert answering["asked"] == "/api/models/some/model/revision/abc"


@pytest.mark.parametrize("status", [200, 401, 403, 404, 407])
def test_what_answers_in_the_place_of_the_hub_is_not_it(answering, status):
    answering |= {"status": status, "kind": "text/html; charset=utf-8", "says": b"<html>log in</html>"}
    assert not hub.reachable("some/model")
    answering |= {"kind": "application/json"}
    assert hub.reachable("some/model") is (status != 200), "a page that calls itself JSON and is none"
    answering |= {
        "kind": "text/plain; charset=utf-8",
        "says": b"Access to model some/model is restricted",
        "code": "GatedRepo",
    }
    assert hub.reachable("some/model") is (status != 200)


def test_a_hub_that_is_silent_or_not_to_be_asked_is_not_reached(answering, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not hub.reachable("some/model") and answering["asked"] == ""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not hub.reachable("some/model")


def test_a_model_that_is_here_needs_no_hub(answering, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "known", lambda source, revision: tmp_path)
    assert hub.reachable("some/model") and answering["asked"] == ""


def test_a_configuration_is_read_here_before_the_hub_is_asked_and_not_where_it_is_out_of_reach(monkeypatch, tmp_path):
    import huggingface_hub

    here, answers, asked = [False], [False], []

    def download(source, name, revision, local_files_only):
        asked.append(local_files_only)
        if local_files_only and not here[0]:
            raise OSError("not here")
        return str(tmp_path / f"{source}-{revision}-{name}")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(hub, "reachable", lambda *_: answers[0])
    assert hub.configuration("some", "abc") is None and asked == [True]
    answers[0] = True
    assert hub.configuration("some", "abc") == tmp_path / "some-abc-config.json" and asked == [True, True, False]
    here[0], answers[0] = True, False
    assert hub.configuration("some", "abc") == tmp_path / "some-abc-config.json" and asked[3:] == [True]
