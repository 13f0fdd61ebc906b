"""The server API against its own OpenAPI document, by requests that are made from it: good ones, bad ones, other methods."""

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
KEY = "a-key-for-schemathesis"


# Thirty operations, some thousand requests: half a minute where nothing else runs.
@pytest.mark.timeout(120)
def test_the_api_keeps_to_its_document(start_server, tmp_path):
    key = tmp_path / "stentor.toml"
    key.write_text(f'[admin]\nkey = "{KEY}"\n[namespaces.kept]\nlevel = "history"\n')
    server = start_server("--config", str(key), "--shards", "2", "--admin", "127.0.0.1:0")
    command = [
        *(sys.executable, "-m", "schemathesis.cli", f"--config-file={HERE / 'schemathesis.toml'}"),
        *("run", f"http://127.0.0.1:{server.admin_port()}/api/openapi.json", "--header", f"X-API-Key: {KEY}"),
        # The seed makes a failure come again.
        *("--phases", "coverage,fuzzing", "--max-examples", "10", "--seed", "1", "--no-color"),
    ]
    result = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "api_formats.py")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert result.returncode == 0, result.stdout + result.stderr
