"""The deployment kit as its tests read it."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
KIT = ROOT / "deploy"
FILES = {str(path.relative_to(KIT)): path for path in sorted(KIT.rglob("*.yaml"))}
PAGES = [ROOT / "docs" / "runbook.md", ROOT / "docs" / "deployment.md"]


def read(name: str) -> Any:
    """The one document of a YAML file of the kit, such as ``kubernetes/service.yaml``."""
    return yaml.safe_load(FILES[name].read_text(encoding="utf-8"))


OPTIONS: dict[str, str] = read("kubernetes/configmap.yaml")["data"]  # that the kit gives the server
