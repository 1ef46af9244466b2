"""Files from and to the Hugging Face hub: `download` one, verified; `push` a folder.

The transfer, the cache and its locks are `huggingface_hub`'s (its cache layout, `HF_ENDPOINT`, `HF_HUB_OFFLINE`,
`HF_HUB_CACHE` and stored tokens all work). What is added here: the contents are checked against a known sha256, a file
with wrong contents does not stay in the cache, transient failures that the library gives up on are tried again, and
every failure is a typed error that says what to do.

How far a broken download resumes (huggingface_hub 2.x): a connection that closes or times out is taken up again where
it broke, in steps of 10 MB, within the same call; one that is reset starts the file again (here); so does a process
that was killed, because the library keeps no partial file.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from ..errors import ClipqError, DownloadError, unknown_name
from ..version import VERSION

ATTEMPTS = 3
"""How often a file is asked for when the server or the connection fails in a way that may pass."""


class UploadError(ClipqError, OSError):
    """A folder that could not be published."""


def download(
    repo: str,
    filename: str,
    *,
    revision: str = "main",
    sha256: str = "",
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
) -> Path:
    """The local path of `filename` of the hub repository `repo` at `revision`, downloaded if it is not in the cache.

    With `sha256` (64 hex digits) the contents are checked, and a cached file with these contents is returned without
    asking the network. Without it, a branch such as `"main"` is looked up on every call (offline: the last one seen).
    `cache_dir` is the hub cache to use (default: the user's, shared with other programs), `endpoint` the hub to ask.

    Two processes may download the same file at once; the file appears in the cache complete or not at all.
    Raises `DownloadError`, saying what is wrong and what to do: no such repository, revision or file, no access, no
    connection and no cached copy, server failure, wrong contents, cache not writable or disk full.
    """
    cached = _in_cache(repo, filename, revision, cache_dir) if sha256 else None
    if cached is not None and file_sha256(cached) == sha256:
        return cached
    if cached is not None and cached.resolve().name == sha256:  # blobs are named after what they should contain
        discard_damaged(cached)
    path = _fetched(repo, filename, revision, cache_dir, endpoint)
    if sha256 and cached is not None and path == cached and file_sha256(path) != sha256:
        discard_damaged(path)  # the hub's file is the one that was cached, but what was cached is not the hub's file
        path = _fetched(repo, filename, revision, cache_dir, endpoint)
    if sha256 and (got := file_sha256(path)) != sha256:
        _discard(path)
        raise DownloadError(
            f"{filename} of {repo} (revision {revision}) arrived with the wrong contents: expected sha256 {sha256}, "
            f"got {got}. It was removed from the cache; try again, and if it stays so, the file on the hub was "
            "replaced or something between here and there alters it."
        )
    return path


def discard_damaged(path: Path) -> None:
    """Remove a cached file with wrong contents, so that it is downloaded again, and say so on stderr."""
    print(f"clipq: the cached file {path} is damaged; it is removed and downloaded again", file=sys.stderr)
    _discard(path)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's contents, as 64 hex digits (about 1 GB/s)."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def push(
    folder: str | os.PathLike[str],
    repo: str,
    *,
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload all files of `folder` to the hub repository `repo` (made if needed); returns the commit's URL.

    `token` is a hub token with write access (default: the one that `hf auth login` stored); `private` only matters when
    the repository is made. Raises `UploadError` if the folder is empty or the hub refuses.
    """
    from huggingface_hub import HfApi

    if not Path(folder).is_dir() or not any(Path(folder).iterdir()):
        raise UploadError(f"{folder} is not a folder with files in it; save a model there first (clipq.save).")
    api = HfApi(endpoint=endpoint, token=token, library_name="clipq", library_version=VERSION)
    message = f"Upload a model quantized with clipq {VERSION}"
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        return api.upload_folder(folder_path=folder, repo_id=repo, revision=revision, commit_message=message).commit_url
    except Exception as error:  # as in download
        reason = _reason(error, repo, "", revision or "main", endpoint)
        raise UploadError(f"could not upload {folder} to {repo}: {reason}") from error


def _fetched(
    repo: str, filename: str, revision: str, cache_dir: str | os.PathLike[str] | None, endpoint: str | None
) -> Path:
    try:
        return _fetch(repo, filename, revision, cache_dir, endpoint)
    except Exception as error:  # the border to a library with a dozen unrelated error types
        reason = _reason(error, repo, filename, revision, endpoint)
        raise DownloadError(f"could not download {filename} of {repo} (revision {revision}): {reason}") from error


def _fetch(
    repo: str, filename: str, revision: str, cache_dir: str | os.PathLike[str] | None, endpoint: str | None
) -> Path:
    from huggingface_hub import hf_hub_download

    attempt = 1
    while True:
        try:
            path = hf_hub_download(
                repo,
                filename,
                revision=revision,
                cache_dir=cache_dir,
                endpoint=endpoint,
                library_name="clipq",
                library_version=VERSION,
            )
            return Path(path)
        except Exception as error:
            if attempt == ATTEMPTS or not _may_pass(error):
                raise
            time.sleep(attempt)
            attempt += 1


def _may_pass(error: Exception) -> bool:
    """Whether the library gave up at once on something that another attempt may well get past.

    It retries refused and closed connections, time-outs and failing metadata requests itself, but neither a reset
    connection (httpx's ReadError, which it does not export) nor a storage host that answers 5xx.
    """
    return type(error).__name__ == "ReadError" or (_status(error) or 0) >= 500


def _status(error: BaseException | None) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _in_cache(repo: str, filename: str, revision: str, cache_dir: str | os.PathLike[str] | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    with suppress(ValueError, OSError):  # a bad name or an unreadable cache: the download says so properly
        found = try_to_load_from_cache(repo, filename, cache_dir=cache_dir, revision=revision)
        if isinstance(found, str) and Path(found).is_file():
            return Path(found)
    return None


def _discard(path: Path) -> None:
    """Remove a cached file and every link on the way to it, as far as the cache can be written."""
    with suppress(OSError):
        while path.is_symlink():
            target = path.parent / path.readlink()
            path.unlink()
            path = target
        path.unlink(missing_ok=True)


def _reason(error: BaseException, repo: str, filename: str, revision: str, endpoint: str | None) -> str:
    """What went wrong and what to do, in a sentence or two."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hf

    host = endpoint or constants.ENDPOINT
    while isinstance(error, (hf.LocalEntryNotFoundError, RuntimeError)) and error.__cause__ is not None:
        error = error.__cause__  # "not in the cache either", "error while uploading": the cause says why
    reasons = (
        (hf.GatedRepoError, f"its terms must be accepted first, on {host}/{repo}; then log in: hf auth login."),
        (
            hf.RepositoryNotFoundError,
            f"{host} has no such repository, or it is private. Check the name; if it is private: hf auth login.",
        ),
        (hf.RevisionNotFoundError, f"the repository has no revision {revision!r}. Check {host}/{repo}/commits/main."),
        (hf.OfflineModeIsEnabled, "offline mode is on (HF_HUB_OFFLINE) and the file is not cached. Turn it off once."),
        (hf.FileMetadataError, f"{host} does not answer like a hub. Check HF_ENDPOINT and the proxy."),
        (hf.HFValidationError, "this is not a repository name; it looks like 'owner/name'."),
    )
    for kind, reason in reasons:
        if isinstance(error, kind):
            return reason
    if isinstance(error, hf.EntryNotFoundError) and not isinstance(error, hf.LocalEntryNotFoundError):
        return _missing_file(repo, filename, revision, endpoint)
    if (status := _status(error)) in (401, 403):
        return f"{host} refused access ({status}). Log in with a token that may do this: hf auth login."
    if status is not None:
        return f"{host} answered with status {status}, after several attempts. Try again later."
    if isinstance(error, (hf.HTTPError, ConnectionError)):
        return (
            f"the connection to {host} failed ({type(error).__name__}: {error}). "
            "Try again with a working connection, or set HF_ENDPOINT to a mirror."
        )
    if isinstance(error, OSError) and error.errno is not None:
        where = error.filename or "writing failed"
        return f"{where}: {error.strerror}. Make room or get access, or choose another folder with cache_dir=."
    return f"{type(error).__name__}: {error}"


def _missing_file(repo: str, filename: str, revision: str, endpoint: str | None) -> str:
    from huggingface_hub import HfApi

    names = []
    with suppress(Exception):  # only to make the message better
        names = [file.rfilename for file in HfApi(endpoint=endpoint).model_info(repo, revision=revision).siblings or []]
    return f"the repository has no such file. {unknown_name('file', filename, names)}"
