"""What users of the runtime may rely on: a change here is a change for them, so it must be meant."""

import inspect
from typing import Any

import genrec_runtime

SURFACE = {
    "BundleCorrupt": "(message, *, code=None)",
    "BundleError": "(message, *, code=None)",
    "BundleNotFound": "(message, *, code=None)",
    "BundleVersionError": "(message, *, code=None)",
    "DeviceReport": "(asked, providers, threads, reason, onnxruntime)",
    "DeviceUnavailable": "(message, *, code=None)",
    "GenrecError": "(message, *, code=None)",
    "InferenceError": "(message, *, code=None)",
    "InputError": "(message, *, code=None)",
    "ItemIds": "(raw)",
    "ItemIds.all": "(self)",
    "ItemIds.index": "(self, raw)",
    "ItemIds.raw": "(self, indices)",
    "Module": "(bundle, engine)",
    "Module.load": "(path, *, device='auto', threads=None, variant='fp32', expect_digest=None)",
    "Module.run": "(self, **inputs)",
    "Module.selftest": "(self)",
    "Recommendations": "(items, scores, status, unknown_items)",
    "Recommendations.lengths": "property",
    "Recommendations.to_list": "(self)",
    "Recommendations.to_padded": "(self, fill)",
    "Recommender": "(bundle, engine)",
    "Recommender.encode": "(self, histories, *, on_unknown=None)",
    "Recommender.load": "(path, *, device='auto', threads=None, variant='fp32', expect_digest=None)",
    "Recommender.recommend": "(self, histories, *, k=None, users=None, timestamps=None, request_time=None, "
    "exclude=None, candidates=None, available=None, exclude_seen=None, on_unknown=None)",
    "Recommender.score": "(self, histories, candidates, *, on_unknown=None)",
    "Recommender.selftest": "(self)",
    "Unsupported": "(message, *, code=None)",
    "load": "(path, *, device='auto', threads=None, variant='fp32', expect_digest=None)",
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
            for member in sorted(name for name in vars(thing) if not name.startswith("_")):
                value = getattr(thing, member)
                found[f"{name}.{member}"] = plain(value) if callable(value) else "property"
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
