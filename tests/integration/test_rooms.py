# SPDX-License-Identifier: MIT
"""The table of rooms in docs/architecture.md against the sources: each room includes what the table
allows and nothing else, no room is missing from it, rooms include each other in no circle, and only the rooms
that the page names write to the log."""

import os
import re

from runner import main

SOURCE = os.environ["CELLOS_SOURCE"]
# Every room may include common/; it is not said again in each row.
EVERYWHERE = "common/"


def _table():
    """Room -> the words of its last column, as in docs/architecture.md."""
    with open(os.path.join(SOURCE, "docs/architecture.md"), encoding="utf-8") as f:
        rows = re.findall(r"^\| `([\w/-]+/)` \|[^|]*\| ([^|]*) \|$", f.read(), re.MULTILINE)
    assert len(rows) > 10, "the table of rooms is not found"
    return dict(rows)


def room_of(path, rooms):
    """The innermost room that a path of the source is in."""
    found = [room for room in rooms if path.startswith(room)]
    assert found, f"{path} is in no room of docs/architecture.md"
    return max(found, key=len)


def _includes():
    """(file, what it includes) for each include of the project's own in C files of the rooms."""
    for top in ("common", "guest-agent", "host-receiver", "seccomp"):
        for folder, _, files in os.walk(os.path.join(SOURCE, top)):
            # main.c alone is at the root of the receiver, and knows the verbs.
            if os.path.relpath(folder, SOURCE) == "host-receiver":
                continue
            for name in sorted(files):
                if not name.endswith((".c", ".h")):
                    continue
                with open(os.path.join(folder, name), encoding="utf-8") as f:
                    text = f.read()
                relative = os.path.relpath(folder, SOURCE)
                for included in re.findall(r'^#\s*include "([^"]+)"', text, re.MULTILINE):
                    path = next((p for p in (included, os.path.join(relative, included))
                                 if os.path.exists(os.path.join(SOURCE, p))), None)
                    # What the build makes belongs to the room that makes it.
                    if path:
                        yield os.path.join(relative, name), os.path.normpath(path)


def resolve(word, room, rooms):
    """A name of the table as the beginning of a path: `event/` is host-receiver/event/."""
    top = room.split("/")[0] + "/"
    for path in (word, top + word):
        if path in rooms or os.path.exists(os.path.join(SOURCE, path)):
            return path
    raise AssertionError(f"the row of {room} names {word}, which there is not")


def allowed(room, words, rooms):
    """The beginnings of the paths that a room may include."""
    paths = [room, EVERYWHERE]
    names = re.findall(r"`([^`]+)`", words)
    if words == "everything":
        return [""]
    if words == "the rooms below it":
        return paths + [r for r in rooms if r.startswith("host-receiver/")]
    if words.startswith("all rooms but"):
        but = [resolve(name, room, rooms) for name in names]
        return paths + [r for r in rooms if r.startswith("host-receiver/") and r not in but]
    return paths + [resolve(name, room, rooms) for name in names]


def each_room_includes_what_the_table_allows():
    rooms = _table()
    may = {room: tuple(allowed(room, words, rooms)) for room, words in rooms.items()}
    wrong = {f"{file} includes {path}" for file, path in _includes()
             if not path.startswith(may[room_of(file, rooms)])}
    assert not wrong, "not in the table of docs/architecture.md:\n" + "\n".join(sorted(wrong))


def there_is_no_circle():
    rooms = _table()
    edges = {}
    for file, path in _includes():
        one, other = room_of(file, rooms), room_of(path, rooms)
        # A header of its own folder's parent is the room's, not another's.
        if one != other and not one.startswith(other) and not other.startswith(one):
            edges.setdefault(one, {}).setdefault(other, f"{file} includes {path}")

    def walk(room, way):
        for other, why in edges.get(room, {}).items():
            assert other not in way, "a circle:\n" + "\n".join(
                [edges[a][b] for a, b in zip(way[way.index(other):], way[way.index(other) + 1:])]
                + [why])
            walk(other, way + [other])

    for room in edges:
        walk(room, [room])


def only_the_named_rooms_log():
    with open(os.path.join(SOURCE, "docs/architecture.md"), encoding="utf-8") as f:
        named = re.search(r"these rooms log, and no others(.*?)\n\n", f.read(), re.DOTALL).group(1)
    rooms = _table()
    may = {resolve(word, "host-receiver/", rooms) for word in re.findall(r"`([\w-]+/)`", named)}
    found = set()
    for top in ("guest-agent", "host-receiver"):
        for folder, _, files in os.walk(os.path.join(SOURCE, top)):
            for name in files:
                path = os.path.relpath(os.path.join(folder, name), SOURCE)
                if name.endswith((".c", ".h")) and path.count("/") > (top == "host-receiver"):
                    with open(os.path.join(SOURCE, path), encoding="utf-8") as f:
                        if re.search(r"\blog_(line|error|warning|notice|info|debug)\(", f.read()):
                            found.add(room_of(path, rooms))
    assert found == may, (found - may, may - found)


if __name__ == "__main__":
    main()
