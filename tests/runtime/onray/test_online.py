"""The service on Ray Serve, on loopback: answers as from ``recommend``, and no failed request while bundles change."""

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import ray_clusters
from genrec_runtime import GenrecError, Recommender
from genrec_runtime.cli import main
from genrec_runtime.onray import online
from genrec_runtime.onray.online import Scale, deploy, end
from genrec_runtime.serve.settings import Settings
from genrec_runtime.store import point_current_to
from serving import ON_CPU, Client, Reply, until
from tiny import ITEMS, Tiny
from versions import write_versions

pytestmark = pytest.mark.filterwarnings(
    "ignore:Using extra keyword arguments on `Field`"
)  # Ray Serve's own, when imported

HISTORIES = [[ITEMS[(5 * user + 3 * step) % 37] for step in range(user % 7)] for user in range(16)]


@pytest.fixture(scope="module")
def store(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory, reseal: Callable[..., None]) -> Path:
    """A store of two versions of one model with other weights."""
    root = tmp_path_factory.mktemp("served") / "store"
    write_versions(tiny.path, root, 2, reseal)
    point_current_to(root, bundles(root)[0].name)
    return root


def bundles(store: Path) -> list[Path]:
    return sorted(path for path in store.iterdir() if not path.is_symlink() and path.is_dir())


class Service:
    """What a cluster of one node serves, to be deployed and asked."""

    def __init__(self, address: str, port: int) -> None:
        self.address, self.port = address, port

    def deploy(self, bundle: Path, replicas: int = 1, **options: Any) -> None:
        chosen = {"options": ON_CPU, "port": self.port, "interval": 0.2, "max_rows": 5, "drain": 10.0, **options}
        deploy(Settings(bundle, **chosen), self.address, Scale(replicas))

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        client = Client(self.port)
        try:
            return client.ask(method, path, body, **headers)
        finally:
            client.close()

    def version(self) -> str:
        found: str = self.ask("POST", "/v1/recommend", {"history": []}).json["version"]
        return found


@pytest.fixture(scope="module")
def service(store: Path) -> Iterator[Service]:
    """Serves the store's current version, by its link, in two replicas."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ray_clusters.cluster(4) as cluster:
        service = Service(cluster.address, port)
        service.deploy(store / "current", 2)  # each call connects and leaves: the cluster serves on
        yield service
        end(cluster.address)
        assert service.ask("POST", "/v1/recommend", {"history": []}).status == 404


class Load:
    """Callers that ask without a pause, each on a connection that it keeps, and check every answer by its version."""

    def __init__(self, service: Service, expected: dict[str, Any], callers: int = 3) -> None:
        self.service, self.expected = service, expected
        self.stop = threading.Event()
        self.versions: list[str] = []
        self.wrong: list[Any] = []
        self.threads = [threading.Thread(target=self._call, args=(caller,)) for caller in range(callers)]

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()

    def _call(self, turn: int) -> None:
        client = Client(self.service.port)
        while not self.stop.is_set():
            turn += 1
            row = turn % len(HISTORIES)
            try:
                reply = client.recommend(history=HISTORIES[row], k=5)
            except OSError as error:
                self.wrong.append(error)
                break
            if reply.status != 200 or self._answer(reply) != self.expected[reply.json["version"]][row]:
                self.wrong.append(reply)
            self.versions.append(reply.json.get("version"))
        client.close()

    def _answer(self, reply: Reply) -> list[Any]:
        return [reply.json["items"], reply.json["scores"]]


@pytest.fixture(scope="module")
def expected(store: Path) -> dict[str, Any]:
    """By version, what each of the histories gets."""
    found = {}
    for bundle in bundles(store):
        answer = Recommender.load(bundle, device="cpu", threads=1).recommend(HISTORIES, k=5)
        found[bundle.name] = [[i, s.tolist()] for i, s in zip(answer.items, answer.scores, strict=True)]
    return found


@pytest.mark.slow
def test_answers_are_those_of_recommend(service: Service, store: Path) -> None:
    served = Recommender.load(store / "current", device="cpu", threads=1)
    wanted = served.recommend(HISTORIES[:5], k=4)
    found = service.ask("POST", "/v1/recommend", {"histories": HISTORIES[:5], "k": 4}).json["rows"]
    assert [row["items"] for row in found] == wanted.items
    assert [row["scores"] for row in found] == [scores.tolist() for scores in wanted.scores]
    assert service.ask("GET", "/v2/models/sasrec/ready").json == {"ready": True, "state": "ready"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/recommend", {"history": [3.5]}, 400, "id_type"),
        ("POST", "/v1/recommend", {"history": [], "k": 0}, 400, "k"),
        ("POST", "/v1/recommend", b"{", 400, "json"),
        ("POST", "/v1/recommend", {"histories": [[]] * 6}, 413, "too_large"),
        ("POST", "/v2/models/other/infer", {}, 404, "no_such_model"),
        ("GET", "/v1/recommend", None, 405, "method_not_allowed"),
    ],
)
def test_fault_100_a_bad_request_is_refused_as_on_one_node(
    service: Service, method: str, path: str, body: Any, status: int, code: str
) -> None:
    reply = service.ask(method, path, body)
    assert (reply.status, reply.json["code"]) == (status, code), reply.body


@pytest.mark.slow
def test_a_request_id_is_passed_through(service: Service) -> None:
    assert service.ask("GET", "/v2", X_Request_Id="mine-1").headers["x-request-id"] == "mine-1"


@pytest.mark.slow
def test_fault_104_every_replica_follows_the_link_without_a_failed_request(
    service: Service, store: Path, expected: dict[str, Any]
) -> None:
    first, second = (bundle.name for bundle in bundles(store))
    with Load(service, expected) as load:
        until(lambda: len(load.versions) > 20)
        point_current_to(store, second)
        until(lambda: len(load.versions) > 50 and set(load.versions[-50:]) == {second})
    assert load.wrong == []
    assert set(load.versions) == {first, second}


@pytest.mark.slow
def test_fault_104_a_rolling_update_to_another_bundle_fails_no_request(
    service: Service, store: Path, expected: dict[str, Any]
) -> None:
    first, second = bundles(store)
    service.deploy(second, 2)
    assert service.version() == second.name
    with Load(service, expected) as load:
        until(lambda: len(load.versions) > 20)
        service.deploy(first, 2)
        until(lambda: len(load.versions) > 50 and set(load.versions[-50:]) == {first.name})
    assert load.wrong == []
    assert set(load.versions) == {first.name, second.name}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("missing", "nowhere"),
        ("damaged", "weights.bin was changed"),
        ("of other answers than it says", "could not be served"),
    ],
)
def test_fault_103_a_bundle_that_cannot_be_served_leaves_the_one_before(
    service: Service, store: Path, tmp_path: Path, reseal: Callable[..., None], harm: str, said: str
) -> None:
    first, second = bundles(store)
    service.deploy(first)
    broken = tmp_path / "nowhere"
    if harm != "missing":
        broken = Path(shutil.copytree(second, tmp_path / "broken"))
        weights = broken / "weights.bin"
        weights.write_bytes(bytes(weights.stat().st_size))
    if harm == "of other answers than it says":
        reseal(broken)
    with pytest.raises(GenrecError, match=said):
        service.deploy(broken)
    assert [service.version() for _ in range(10)] == [first.name] * 10


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"replicas": 0}, r"replicas \(0\)"),
        ({"load": 0}, r"load \(0\)"),
        ({"replicas": 3, "max_replicas": 2}, r"max_replicas \(2\) must be at least replicas \(3\)"),
    ],
)
def test_a_scale_out_of_range_is_refused(numbers: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Scale(**numbers)


def test_a_cluster_of_the_process_alone_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="would end with it; start one with: ray start --head"):
        deploy(Settings(tiny.path), "local")


def test_the_command_deploys_what_its_options_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(online, "deploy", lambda *arguments: asked.extend(arguments))
    options = ["--ray", "10.0.0.1:6379", "--replicas", "2", "--max-replicas", "5", "--port", "8123", "--batches", "3"]
    done = CliRunner().invoke(main, ["serve", str(tmp_path), *options], env={"GENREC_MAX_BATCH": "7"})
    assert done.exit_code == 0, done.output
    settings, address, scale = asked
    assert (settings.bundle, settings.port, settings.threads, settings.max_batch) == (tmp_path, 8123, 3, 7)
    assert (address, scale) == ("10.0.0.1:6379", Scale(2, 5))
    assert "on port 8123" in done.stdout
    again = CliRunner().invoke(main, ["serve", str(tmp_path), "--ray", "auto"], env={"GENREC_BATCHES": "4"})
    assert (again.exit_code, asked[3].threads) == (0, 4)
