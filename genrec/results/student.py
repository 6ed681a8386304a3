"""Student's t distribution, which numpy lacks: the tail's probability, and the value that leaves a given tail."""

from __future__ import annotations

import math

_STEPS = 100_000  # of the continued fraction, which needs some sqrt(df)
_TINY = 1e-300


def two_sided_p(t: float, df: float) -> float:
    """Probability that ``|T| >= |t|`` with ``df`` degrees of freedom (Student 1908).

    It is the regularised incomplete beta function ``I_x(df / 2, 1 / 2)`` at ``x = df / (df + t^2)``.

    Args:
        t: any number, infinity included.
        df: degrees of freedom, above 0, not only whole ones.

    With one degree of freedom a quarter of the values lie beyond 1 on each side:

    >>> round(two_sided_p(1.0, df=1), 12)
    0.5
    """
    return _incomplete_beta(df / 2, 0.5, df / (df + t * t), t * t / (df + t * t)) if math.isfinite(t) else 0.0


def critical_value(confidence: float, df: float) -> float:
    """The ``t`` with ``P(|T| <= t) = confidence``, by halving.

    >>> round(critical_value(0.5, df=1), 12)
    1.0
    """
    low, high = 0.0, 1.0
    while two_sided_p(high, df) > 1 - confidence:
        high *= 2
    while high - low > 1e-14 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(middle, df) > 1 - confidence else (low, middle)
    return high


def _incomplete_beta(a: float, b: float, x: float, complement: float) -> float:
    """``I_x(a, b)`` by Lentz's continued fraction (Press et al., Numerical Recipes, section 6.4); ``complement`` is 1 - x."""
    if x <= 0 or complement <= 0:
        return float(complement <= 0)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, complement, x)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(complement)
    return math.exp(logarithm) * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _STEPS):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + numerator * d or _TINY)
            c = 1 + numerator / c or _TINY
            value *= d * c
        if abs(d * c - 1) < 1e-15:
            return value
    raise ArithmeticError(f"the continued fraction of I_{x}({a}, {b}) did not settle in {_STEPS} steps")
