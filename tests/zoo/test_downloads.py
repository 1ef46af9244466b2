"""Downloads from a real server that speaks the hub's protocol, in sickness and in health."""

from __future__ import annotations

import pytest
from hub_helpers import DOWNLOAD, FILE, LARGE, REPO, SMALL, STEP, files_in, run, sha256

from clipq.errors import DownloadError


@pytest.mark.parametrize("large", [True, False], ids=["storage host", "plain file"])
def test_a_file_arrives_whole(server, get, large):
    server.add(REPO, "config.json", b'{"a": 1}', large=large)
    path = get(filename="config.json", sha256=sha256(b'{"a": 1}'))
    assert path.read_bytes() == b'{"a": 1}'
    assert path.name == "config.json"


def test_the_token_does_not_go_to_the_storage_host(server, tmp_path):
    server.repos[REPO].private = True
    done = run(DOWNLOAD, tmp_path, HF_ENDPOINT=server.url, HF_TOKEN="secret")
    assert done.returncode == 0, done.stderr
    assert {(seen.method, seen.token) for seen in server.seen} == {("HEAD", "secret"), ("GET", "")}


def test_a_download_cut_off_mid_file_is_resumed(server, get, impatient):
    server.add(REPO, FILE, LARGE)
    server.faults.cut_after = [STEP + 1000]
    path = get(sha256=sha256(LARGE))
    assert path.read_bytes() == LARGE
    assert [seen.range for seen in server.gets()] == ["", f"bytes={STEP}-"]


def test_a_server_that_ignores_ranges_is_started_over(server, get, impatient):
    server.add(REPO, FILE, LARGE)
    server.faults.cut_after, server.faults.no_range = [STEP + 1000], True
    assert get(sha256=sha256(LARGE)).read_bytes() == LARGE
    assert len(server.gets()) == 2


@pytest.mark.parametrize(
    "fault", [{"cut_after": [500, 0]}, {"reset_after": [500, 0]}, {"answer_get": [503, 500]}, {"answer": [503, 503]}]
)
def test_passing_failures_are_survived(server, get, impatient, fault):
    vars(server.faults).update(fault)
    assert get(sha256=sha256(SMALL)).read_bytes() == SMALL
    assert not any(fault.values()), "not every fault was met"
    assert impatient, "there was no pause between the attempts"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"cut_after": [10] * 99}, "connection to .* failed"),
        ({"reset_after": [10] * 99}, "connection to .* failed"),
        ({"answer_get": [503] * 99}, "answered with status 503"),
        ({"answer": [500] * 99}, "answered with status 500"),
        ({"answer": [403] * 99}, "refused access .403."),
    ],
)
def test_lasting_failures_end_in_an_error_and_leave_nothing(server, get, tmp_path, impatient, fault, said):
    vars(server.faults).update(fault)
    with pytest.raises(DownloadError, match=f"could not download {FILE} of {REPO}.*{said}"):
        get()
    assert files_in(tmp_path) == []


def test_a_server_that_falls_silent_is_given_up_on(server, get, tmp_path, impatient, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    server.faults.stall_after = [1000] * 99
    with pytest.raises(DownloadError, match="ReadTimeout"):
        get()
    assert files_in(tmp_path) == []


def test_no_connection_and_no_copy(server, get, impatient):
    server.stop()
    with pytest.raises(DownloadError, match="connection to .* failed .*HF_ENDPOINT"):
        get(sha256=sha256(SMALL))


def test_wrong_contents_are_refused_and_removed(server, get, tmp_path):
    server.faults.corrupt = True
    with pytest.raises(DownloadError, match=f"{FILE} of {REPO}.*expected sha256 {sha256(SMALL)}, got [0-9a-f]{{64}}"):
        get(sha256=sha256(SMALL))
    assert files_in(tmp_path) == []
    server.faults.corrupt = False
    assert get(sha256=sha256(SMALL)).read_bytes() == SMALL


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"repo": "someone/nothing"}, "no such repository"),
        ({"repo": "not a name"}, "not a repository name"),
        ({"filename": "model.safetensor"}, "no such file.*Did you mean 'model.safetensors'"),
        ({"revision": "v9"}, "no revision 'v9'"),
    ],
)
def test_what_does_not_exist_is_named(get, wanted, said):
    with pytest.raises(DownloadError, match=said):
        get(**wanted)


def test_a_server_that_is_not_a_hub(server, get):
    server.faults.plain = True
    with pytest.raises(DownloadError, match="does not answer like a hub"):
        get()
