"""The tests of operations share one control plane, in whatever order a process runs their files."""

import re
from collections import Counter
from pathlib import Path


def test_no_two_tests_make_a_site_with_the_same_slug() -> None:
    sources = [path.read_text() for path in Path(__file__).parent.glob("*.py")]
    slugs = Counter(slug for text in sources for slug in re.findall(r"make_site\(\s*\"([^\"]+)\"", text))
    assert len(slugs) > 20
    assert {slug: times for slug, times in slugs.items() if times > 1} == {}
