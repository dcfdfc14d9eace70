"""What tests of experiments share: their pages, and which of their claims fail."""

from html import unescape

from vfe.results.report import build_report


def page_of(result):
    """The page of a result, which holds every number and figure of it."""
    page = build_report(result.report)
    told = unescape(page)
    for name, value in result.headline:
        assert name in told
        assert "nan" not in value
    assert page.count("<img") == len(result.figures)
    return page


def failing(claims):
    """What the claims that do not hold state."""
    return [claim.statement for claim in claims if not claim.holds]
