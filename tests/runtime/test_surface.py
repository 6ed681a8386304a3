"""What users of the runtime may rely on: a change here is a change for them, so it must be meant."""

import inspect
from typing import Any

import genrec_runtime

SURFACE = {
    "BundleCorrupt": "(message, *, code=None)",
    "BundleError": "(message, *, code=None)",
    "BundleNotFound": "(message, *, code=None)",
    "BundleVersionError": "(message, *, code=None)",
    "Closed": "(message, *, code=None)",
    "DeadlineExceeded": "(message, *, code=None)",
    "DeviceReport": "(asked, providers, threads, reason, onnxruntime, nodes=<factory>, heavy_on_cpu=())",
    "DeviceUnavailable": "(message, *, code=None)",
    "Diagnosis": "(genrec, python, platform, telemetry, onnxruntime, driver, cpus, extra, problems, advice, commands)",
    "Diagnosis.healthy": "property",
    "Diagnosis.lines": "(self)",
    "Diagnosis.to_dict": "(self)",
    "Event": "(kind, version, error=None)",
    "ForkedProcessError": "(message, *, code=None)",
    "GenrecError": "(message, *, code=None)",
    "InferenceError": "(message, *, code=None)",
    "InputError": "(message, *, code=None, row=None, field=None, value=None)",
    "ItemIds": "(raw)",
    "ItemIds.all": "(self)",
    "ItemIds.index": "(self, raw)",
    "ItemIds.raw": "(self, indices)",
    "Module": "(bundle, engine)",
    "Module.close": "(self)",
    "Module.load": "(path, *, device='auto', threads=None, variant='fp32', dedicated=False, cuda_graphs=False, "
    "expect_digest=None)",
    "Module.run": "(self, **inputs)",
    "Module.selftest": "(self)",
    "Options": "(device='auto', threads=None, variant='fp32', dedicated=False, cuda_graphs=False)",
    "Recommendations": "(items, scores, status, unknown_items)",
    "Recommendations.lengths": "property",
    "Recommendations.to_list": "(self)",
    "Recommendations.to_padded": "(self, fill)",
    "Recommender": "(bundle, engine)",
    "Recommender.available": "property",
    "Recommender.close": "(self)",
    "Recommender.encode": "(self, histories, *, users=None, timestamps=None, request_time=None, on_unknown=None)",
    "Recommender.item_vectors": "(self, items=None)",
    "Recommender.load": "(path, *, device='auto', threads=None, variant='fp32', dedicated=False, cuda_graphs=False, "
    "expect_digest=None)",
    "Recommender.recommend": "(self, histories, *, k=None, users=None, timestamps=None, request_time=None, exclude=None, "
    "candidates=None, available=None, exclude_seen=None, on_unknown=None, deadline=None)",
    "Recommender.recommend_iter": "(self, histories, *, k=None, users=None, timestamps=None, request_time=None, "
    "available=None, exclude_seen=None, on_unknown=None, batch_size=256, progress=None)",
    "Recommender.score": "(self, histories, candidates, *, users=None, timestamps=None, request_time=None, on_unknown=None)",
    "Recommender.selftest": "(self)",
    "Recommender.set_available": "(self, items)",
    "Recommender.similar": "(self, items, *, k=None, available=None)",
    "Recommender.warmup": "(self, rows=1)",
    "Reloader": "(path, *, options=Options(device='auto', threads=None, variant='fp32', dedicated=False, "
    "cuda_graphs=False), expect_digest=None, rows=1, on_event=None)",
    "Reloader.borrow": "(self)",
    "Reloader.close": "(self)",
    "Reloader.recommender": "property",
    "Reloader.reload": "(self)",
    "Reloader.set_available": "(self, items)",
    "Reloader.watch": "(self, interval)",
    "Unsupported": "(message, *, code=None)",
    "doctor": "()",
    "load": "(path, *, device='auto', threads=None, variant='fp32', dedicated=False, cuda_graphs=False, expect_digest=None)",
    "verify": "(path, *, device='cpu', expect_digest=None)",
}


def plain(called: Any) -> str:
    """A signature without its types: they are held by mypy."""
    signature = inspect.signature(called)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def surface() -> dict[str, str]:
    """Every public name, its signature, and those of its public methods."""
    found = {}
    for name in genrec_runtime.__all__:
        thing = getattr(genrec_runtime, name)
        found[name] = plain(thing)
        if inspect.isclass(thing) and not issubclass(thing, Exception):
            own = [base for base in thing.__mro__ if base.__module__.startswith("genrec")]
            for member in sorted({name for base in own for name in vars(base) if not name.startswith("_")}):
                value = inspect.getattr_static(thing, member)
                if isinstance(value, property):
                    found[f"{name}.{member}"] = "property"
                elif callable(getattr(thing, member)):
                    found[f"{name}.{member}"] = plain(getattr(thing, member))
    return found


def test_the_public_names_and_signatures_are_these() -> None:
    assert surface() == SURFACE


def test_all_is_sorted_and_each_public_name_is_documented() -> None:
    assert genrec_runtime.__all__ == sorted(genrec_runtime.__all__)
    for name in SURFACE:
        thing: Any = genrec_runtime
        for part in name.split("."):
            thing = getattr(thing, part)
        assert inspect.getdoc(thing), name
