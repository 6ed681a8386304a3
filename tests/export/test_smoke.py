from tiny import Tiny


def test_x(tiny: Tiny) -> None:
    assert tiny.exported.report.passed
