import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_drawn_states_are_the_tables() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "state-diagram", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
