"""What the page keeps on disk for a while: in a folder of its own, and gone when the page ends."""

from pathlib import Path

import httpx
from pages import answering
from processes import command, free_port


async def test_prompts_that_are_dropped_lie_in_the_pages_own_folder_which_goes_with_it(tmp_path: Path) -> None:
    temporary, web = tmp_path / "tmp", free_port()
    temporary.mkdir()
    url = f"http://127.0.0.1:{web}/nano-banana/"
    with command(tmp_path, "serve", "web", environment={"NANOBATCH_WEB": f"127.0.0.1:{web}", "TMPDIR": str(temporary)}):
        await answering(url)
        async with httpx.AsyncClient(timeout=30) as visitor:
            sent = await visitor.post(f"{url}gradio_api/upload", files={"files": ("prompts.txt", b"a red fox")})
        (kept,) = map(Path, sent.raise_for_status().json())
        (own,) = temporary.iterdir()
        assert own.name.startswith("nanobatch-page-")
        assert own.stat().st_mode & 0o777 == 0o700
        assert kept.is_relative_to(own)
        assert kept.read_bytes() == b"a red fox"
    assert list(temporary.iterdir()) == []
