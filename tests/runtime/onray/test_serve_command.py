"""``genrec-runtime serve --ray`` as it is called: one process that deploys and ends, and a cluster that serves on."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ray_clusters
from batch_processes import descendants, gone, wait_until
from genrec_runtime import Recommender
from genrec_runtime.onray.online import end
from serving import Client
from tiny import ITEMS, Tiny, make_histories

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`"),  # Ray Serve's own, when imported
]

SECONDS = 300
COMMAND = [sys.executable, "-c", "from genrec_runtime.cli import main; main()", "serve"]
OPEN = ITEMS[3:20]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster of one node; in the end none of its processes is left, nor of what was deployed on it."""
    before = set(descendants(os.getpid()))
    with ray_clusters.cluster(2) as found:
        yield found
        family = set(descendants(os.getpid())) - before
    wait_until(lambda: all(map(gone, family)))


def serve(cluster: Any, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, called in a folder, after it has ended."""
    line = [*COMMAND, *map(str, arguments), "--device", "cpu", "--ray", cluster.address]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def test_the_command_deploys_and_what_it_deployed_answers_as_recommend(
    cluster: Any, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "bundle").symlink_to(tiny.path)
    (tmp_path / "ids").write_text("\n".join(OPEN), encoding="utf-8")
    port = free_port()
    done = serve(cluster, tmp_path, "bundle", "--port", port, "--availability", "ids", "--max-rows", 5)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout == f"the cluster serves bundle on port {port} of each machine that has a replica\n"

    histories = make_histories(ITEMS, 5, 9)
    with Recommender.load(tiny.path, device="cpu", threads=1) as served:
        wanted = served.recommend(histories, k=4, available=OPEN)
    client = Client(port)
    rows = client.recommend(histories=histories, k=4).json["rows"]
    assert [row["items"] for row in rows] == wanted.items
    assert [row["scores"] for row in rows] == [scores.tolist() for scores in wanted.scores]
    assert client.recommend(histories=[[]] * 6).status == 413
    assert client.recommend(history=[3.5]).json["code"] == "id_type"

    refused = serve(cluster, tmp_path, "nowhere", "--port", port)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: ")
    assert "nowhere" in refused.stderr
    assert [row["items"] for row in client.recommend(histories=histories, k=4).json["rows"]] == wanted.items
    client.close()
    end(cluster.address)
    client = Client(port)
    assert client.recommend(history=[]).status == 404
    client.close()
