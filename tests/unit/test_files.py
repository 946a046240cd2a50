"""A file is written whole or not at all."""

import resource

import pytest

from ebft.files import write_whole


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    """The limit on file sizes makes the real write fail, as a full disk does."""
    file = tmp_path / "result.json"
    write_whole(file, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_whole(file, "new" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
