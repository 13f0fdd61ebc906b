"""Fixtures: real servers, and the programs that the clients need. What is missing fails a test, and skips none."""

import asyncio
import inspect
import pathlib
import shutil
import subprocess

import pytest

from server import Server

HERE = pathlib.Path(__file__).resolve().parent


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """A test that is a coroutine runs on an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture
def start_server():
    """Starts servers with the options given. In the end each must stop with 0, without an error in its log."""
    servers = []

    def start(*options, port=0):
        servers.append(Server(*options, port=port))
        return servers[-1]

    yield start
    codes = [server.stop() for server in servers]
    assert codes == [0] * len(servers)
    assert [server.errors() for server in servers] == [[]] * len(servers)


@pytest.fixture
def server(start_server):
    return start_server("--shards", "2", "--echo", "/echo")


def program(name, step):
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"no {name} on the PATH: run tests/setup {step}")
    return path


@pytest.fixture
def node():
    """Starts a script of Node on its arguments; one that is still running in the end is stopped."""
    executable = program("node", "node")
    if not (HERE / "node_modules" / ".stamp").exists():
        pytest.fail(f"no packages in {HERE / 'node_modules'}: run tests/setup node")
    processes = []

    def start(script, *arguments):
        command = [executable, str(HERE / script), *map(str, arguments)]
        processes.append(
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        # On SIGTERM the driver of the browser takes the browser along.
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@pytest.fixture
def run_node(node):
    """Runs a script of Node to its end, which must be exit code 0. Returns what it printed."""

    def run(script, *arguments, timeout=40):
        process = node(script, *arguments)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as late:
            pytest.fail(f"{script} did not end in {timeout} s: {(late.output or b'').decode()}")
        assert process.returncode == 0, f"{script} {' '.join(map(str, arguments))}:\n{output}"
        return output

    return run


@pytest.fixture(scope="session")
def chromium():
    return program("chromium", "chromium")
