"""The service spares Python's garbage collector its bundle, and keeps none that it no longer serves."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

from genrec_runtime.store import point_current_to
from serving import running, until
from tiny import Tiny
from versions import write_versions


def test_a_bundle_is_out_of_the_collectors_sight_and_gone_after_a_swap(
    tiny: Tiny, tmp_path: Path, reseal: Callable[..., None]
) -> None:
    first, second = write_versions(tiny.path, tmp_path / "store", 2, reseal)
    point_current_to(tmp_path / "store", first)
    gc.unfreeze()
    with running(tmp_path / "store" / "current", interval=0.05) as service:
        until(lambda: gc.get_freeze_count() > 0)
        seen = {id(item) for item in gc.get_objects()}
        assert id(service.service.recommender) not in seen
        before = weakref.ref(service.service.recommender)
        point_current_to(tmp_path / "store", second)
        until(lambda: service.recommend(history=["item 03"]).json["version"] == second)
        until(lambda: before() is None)
        until(lambda: all(item is not service.service.recommender for item in gc.get_objects()))
