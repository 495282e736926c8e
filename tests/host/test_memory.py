"""What checks remember from look to look."""

from __future__ import annotations

from agent.host.memory import Memories, Memory


def test_what_a_look_writes_is_its_own_until_it_is_kept() -> None:
    memories = Memories([("log", "position", "7")])
    first = memories.open("log")
    first.put("position", {"inode": 3, "offset": 9})
    assert first.get("position") == {"inode": 3, "offset": 9}
    assert memories.open("log").get("position") == 7
    assert memories.keep("log", first) == {"position": '{"inode":3,"offset":9}'}
    assert memories.open("log").get("position") == {"inode": 3, "offset": 9}
    assert memories.open("other").get("position") is None


def test_what_is_forgotten_is_gone() -> None:
    memories = Memories([("log", "a", "1"), ("log", "b", "2")])
    memory = memories.open("log")
    memory.forget("a")
    memory.put("c", 3)
    memory.forget("c")
    assert memory.get("a") is None
    assert memory.keys() == {"b"}
    assert memories.keep("log", memory) == {"a": None}
    assert memories.open("log").keys() == {"b"}


def test_what_did_not_change_is_not_written_again() -> None:
    memory = Memory(kept={"a": "1"})
    memory.put("a", 1)
    assert memory.written == {}
