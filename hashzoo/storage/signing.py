"""Signatures of files by ``ssh-keygen -Y``, in the namespace ``hashzoo``, so that no library is needed."""

from __future__ import annotations

import subprocess  # nosec B404 # ssh-keygen, with a list of arguments and no shell
from collections.abc import Sequence
from pathlib import Path

from hashzoo.errors import EnvironmentFailure, UsageError

NAMESPACE = "hashzoo"
SUFFIX = ".sig"  # that ssh-keygen adds to the name of the file
TOOL = "ssh-keygen"


def sign(file: Path, key: Path) -> None:
    """Write the signature of a file beside it, with the suffix ``SUFFIX``. A key with a passphrase asks for it.

    Raises:
        UsageError: If there is no such key, or ssh-keygen cannot sign with it.
        EnvironmentFailure: If ssh-keygen is not installed.
    """
    if not key.is_file():
        raise UsageError(f"there is no key {key}; name a private SSH key, such as ~/.ssh/id_ed25519")
    done = _run(["sign", "-q", "-f", str(key), "-n", NAMESPACE, str(file)])
    if done.returncode or not file.with_name(file.name + SUFFIX).is_file():
        raise UsageError(f"{TOOL} cannot sign with {key}: {_last_line(done)}; name a private SSH key")


def signer(file: Path, signers: Path) -> tuple[str, str]:
    """Who signed a file, and what is wrong with its signature; one of the two is empty.

    Args:
        file: The file; its signature lies beside it.
        signers: The allowed signers, in the format of ``ssh-keygen``.

    Raises:
        UsageError: If there is no file of signers.
        EnvironmentFailure: If ssh-keygen is not installed.
    """
    if not signers.is_file():
        raise UsageError(f"there is no file {signers}; write a line 'NAME KEYTYPE KEY' for each allowed signer")
    signature = ["-s", str(file.with_name(file.name + SUFFIX)), "-f", str(signers)]
    found = _run(["find-principals", *signature])
    names = found.stdout.decode("utf-8", "replace").splitlines()
    if found.returncode or not names:
        return "", f"the key of the signature is not in {signers}"
    done = _run(["verify", "-q", *signature, "-I", names[0], "-n", NAMESPACE], file.read_bytes())
    return ("", f"the signature by {names[0]} is not one of this manifest") if done.returncode else (names[0], "")


def _run(arguments: Sequence[str], given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # nosec B603 # no shell; the arguments are paths and a name of the signers file
            [TOOL, "-Y", *arguments], input=given, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise EnvironmentFailure(f"{TOOL} is not installed; install OpenSSH, or leave the signature out") from None


def _last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"
