"""Every Python block of the README runs as it stands, and says what it says."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number, capsys):
    exec(compile(BLOCKS[number], f"README.md, block {number}", "exec"), {})


def test_there_are_blocks():
    """An empty list would let the test above pass without running anything."""
    assert len(BLOCKS) >= 2
