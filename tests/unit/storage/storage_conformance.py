"""What every Storage must do. Subclass with fixtures `storage` and `root` to hold one to it.

`root` is the address of an empty place of the test's own.
"""

import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from fda_core.contract import uris
from fda_core.errors import ChangedInput, InternalError, NotFound, OutputExists
from fda_core.storage.base import Storage


def names(storage: Storage, uri: str) -> list[str]:
    return [info.uri[len(uri) + 1 :] for info in storage.list(uri)]


class StorageConformance:
    # looking

    def test_stat_tells_length_and_a_tag(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/a", b"12345")
        info = storage.stat(f"{root}/a")
        assert (info.uri, info.size_bytes) == (f"{root}/a", 5)
        assert info.etag

    def test_tag_is_stable_while_the_content_is(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/a", b"x")
        assert storage.stat(f"{root}/a") == storage.stat(f"{root}/a")

    def test_tag_changes_with_content_of_equal_length(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/a", b"one")
        before = storage.stat(f"{root}/a").etag
        storage.put(f"{root}/a", b"two")
        assert storage.stat(f"{root}/a").etag != before

    def test_stat_of_nothing_is_not_found(self, storage: Storage, root: str) -> None:
        with pytest.raises(NotFound, match="missing"):
            storage.stat(f"{root}/missing")

    def test_folder_is_no_object(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/folder/a", b"x")
        with pytest.raises(NotFound):
            storage.stat(f"{root}/folder")
        with pytest.raises(NotFound):
            storage.read(f"{root}/folder")

    def test_something_below_an_object_is_not_found(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/a", b"x")
        with pytest.raises(NotFound):
            storage.stat(f"{root}/a/b")
        assert not storage.exists(f"{root}/a/b")

    def test_exists_for_objects_and_what_has_objects_below(
        self, storage: Storage, root: str
    ) -> None:
        storage.put(f"{root}/folder/deep/a", b"x")
        assert storage.exists(f"{root}/folder/deep/a")
        assert storage.exists(f"{root}/folder")
        assert not storage.exists(f"{root}/fold")
        assert not storage.exists(f"{root}/other")

    def test_list_is_recursive_and_sorted_by_whole_address(
        self, storage: Storage, root: str
    ) -> None:
        given = ["a/x", "a-b", "b", "a.txt", "a/c/d", "Z", "é", "10", "9"]
        for name in given:
            storage.put(f"{root}/{name}", b"")
        assert names(storage, root) == sorted(given)

    def test_list_keeps_to_what_is_below(self, storage: Storage, root: str) -> None:
        for name in ("a/x", "ab/x", "b"):
            storage.put(f"{root}/{name}", b"")
        assert names(storage, f"{root}/a") == ["x"]

    def test_list_of_nothing_is_empty(self, storage: Storage, root: str) -> None:
        assert list(storage.list(f"{root}/missing")) == []

    def test_list_of_an_object_is_empty(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/a", b"x")
        assert list(storage.list(f"{root}/a")) == []

    def test_list_and_stat_agree(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/a", b"abc")
        assert list(storage.list(root)) == [storage.stat(f"{root}/a")]

    @pytest.mark.parametrize("name", ["with space", "ünï", "a+b&c=d", "%41", "100%", "#1?x"])
    def test_names_are_taken_literally(self, storage: Storage, root: str, name: str) -> None:
        storage.put(f"{root}/{name}", name.encode())
        assert names(storage, root) == [name]
        assert storage.read(f"{root}/{name}") == name.encode()

    # reading

    def test_read_returns_what_was_put(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/a", b"0123456789")
        assert storage.read(f"{root}/a") == b"0123456789"

    @pytest.mark.parametrize(
        ("start", "end"), [(0, 10), (2, 5), (9, 10), (3, None), (0, 0), (4, 4), (8, 99)]
    )
    def test_read_of_a_range_is_a_slice(
        self, storage: Storage, root: str, start: int, end: int | None
    ) -> None:
        storage.put(f"{root}/a", b"0123456789")
        assert storage.read(f"{root}/a", start=start, end=end) == b"0123456789"[start:end]

    def test_empty_object_reads_as_nothing(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/a", b"")
        assert storage.read(f"{root}/a") == b""
        assert storage.stat(f"{root}/a").size_bytes == 0

    def test_read_of_nothing_is_not_found(self, storage: Storage, root: str) -> None:
        with pytest.raises(NotFound, match="missing"):
            storage.read(f"{root}/missing")
        with pytest.raises(NotFound):
            storage.read_into(f"{root}/missing", memoryview(bytearray(1)), start=0)

    def test_read_with_the_tag_it_has(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/a", b"abc")
        etag = storage.stat(f"{root}/a").etag
        assert storage.read(f"{root}/a", etag=etag) == b"abc"

    def test_read_of_a_replaced_object_is_refused(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/a", b"abc")
        etag = storage.stat(f"{root}/a").etag
        storage.put(f"{root}/a", b"xyz")
        with pytest.raises(ChangedInput, match="/a"):
            storage.read(f"{root}/a", etag=etag)
        with pytest.raises(ChangedInput):
            storage.read_into(f"{root}/a", memoryview(bytearray(3)), start=0, etag=etag)

    def test_read_into_fills_the_buffer(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/a", b"0123456789")
        buffer = bytearray(b"..........")
        storage.read_into(f"{root}/a", memoryview(buffer)[2:6], start=3)
        assert buffer == b"..3456...."

    def test_read_into_takes_buffers_of_wider_items(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/a", bytes(range(16)))
        buffer = memoryview(bytearray(16)).cast("I")
        storage.read_into(f"{root}/a", buffer, start=0)
        assert buffer.tobytes() == bytes(range(16))

    @pytest.mark.parametrize("start", [0, 2, 3, 100])
    def test_read_into_beyond_the_end_is_refused(
        self, storage: Storage, root: str, start: int
    ) -> None:
        storage.put(f"{root}/a", b"abc")
        with pytest.raises(ChangedInput):
            storage.read_into(f"{root}/a", memoryview(bytearray(4)), start=start)

    def test_many_threads_read_one_object(self, storage: Storage, root: str) -> None:
        content = bytes(range(256)) * 64
        storage.put(f"{root}/a", content)

        def piece(start: int) -> bytes:
            buffer = bytearray(512)
            storage.read_into(f"{root}/a", memoryview(buffer), start=start)
            return bytes(buffer)

        with ThreadPoolExecutor(8) as pool:
            assert b"".join(pool.map(piece, range(0, len(content), 512))) == content

    # writing

    def test_created_object_appears_on_commit(self, storage: Storage, root: str) -> None:
        with storage.create(f"{root}/deep/er/a") as writer:
            writer.write(b"one ")
            writer.write(bytearray(b"two "))
            writer.write(memoryview(b"xthree")[1:])
            assert not storage.exists(f"{root}/deep/er/a")
            assert list(storage.list(root)) == []
            info = writer.commit()
        assert storage.read(f"{root}/deep/er/a") == b"one two three"
        assert info == storage.stat(f"{root}/deep/er/a")

    def test_commit_replaces(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/a", b"old and longer")
        with storage.create(f"{root}/a") as writer:
            writer.write(b"new")
            assert storage.read(f"{root}/a") == b"old and longer"
            writer.commit()
        assert storage.read(f"{root}/a") == b"new"

    def test_empty_object_can_be_created(self, storage: Storage, root: str) -> None:
        with storage.create(f"{root}/a") as writer:
            assert writer.commit().size_bytes == 0
        assert storage.read(f"{root}/a") == b""

    def test_megabytes_in_uneven_pieces_arrive_whole(self, storage: Storage, root: str) -> None:
        piece = bytes(range(251)) * 4001
        with storage.create(f"{root}/a") as writer:
            for _ in range(9):
                writer.write(piece)
            writer.commit()
        assert storage.stat(f"{root}/a").size_bytes == 9 * len(piece)
        assert storage.read(f"{root}/a", start=5 * len(piece), end=6 * len(piece)) == piece

    def test_leaving_without_commit_leaves_nothing(self, storage: Storage, root: str) -> None:
        with storage.create(f"{root}/a") as writer:
            writer.write(b"x")
        assert not storage.exists(root)

    @pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt, SystemExit])
    def test_leaving_by_an_error_keeps_the_old_object(
        self, storage: Storage, root: str, problem: type[BaseException]
    ) -> None:
        storage.put(f"{root}/a", b"old")

        def interrupted() -> None:
            with storage.create(f"{root}/a") as writer:
                writer.write(b"x")
                raise problem

        with pytest.raises(problem):
            interrupted()
        assert storage.read(f"{root}/a") == b"old"
        assert names(storage, root) == ["a"]

    def test_nothing_is_written_after_commit(self, storage: Storage, root: str) -> None:
        with storage.create(f"{root}/a") as writer:
            writer.write(b"x")
            writer.commit()
            with pytest.raises(InternalError):
                writer.write(b"y")
            with pytest.raises(InternalError):
                writer.commit()
        assert storage.read(f"{root}/a") == b"x"

    def test_two_writers_of_one_address_do_not_mix(self, storage: Storage, root: str) -> None:
        with storage.create(f"{root}/a") as one, storage.create(f"{root}/a") as two:
            one.write(b"1" * 100)
            two.write(b"2" * 50)
            one.commit()
            two.commit()
        assert storage.read(f"{root}/a") == b"2" * 50

    def test_put_replaces(self, storage: Storage, root: str) -> None:
        assert storage.put(f"{root}/a", b"one")
        assert storage.put(f"{root}/a", b"two")
        assert storage.read(f"{root}/a") == b"two"

    def test_put_if_absent_keeps_the_first(self, storage: Storage, root: str) -> None:
        assert storage.put(f"{root}/a", b"one", if_absent=True) is True
        assert storage.put(f"{root}/a", b"two", if_absent=True) is False
        assert storage.read(f"{root}/a") == b"one"

    def test_of_many_putting_if_absent_one_wins(self, storage: Storage, root: str) -> None:
        start = threading.Barrier(8)

        def contend(number: int) -> tuple[bool, bytes]:
            mine = str(number).encode() * 1000
            start.wait()
            return storage.put(f"{root}/a", mine, if_absent=True), mine

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(contend, range(8)))
        winners = [mine for won, mine in results if won]
        assert winners == [storage.read(f"{root}/a")]
        assert names(storage, root) == ["a"]

    # removing

    def test_delete_removes_and_may_be_repeated(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/a", b"x")
        storage.delete(f"{root}/a")
        storage.delete(f"{root}/a")
        assert not storage.exists(f"{root}/a")

    def test_delete_of_a_folder_removes_nothing(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/folder/a", b"x")
        storage.delete(f"{root}/folder")
        storage.delete(f"{root}/folder/a/b")
        assert names(storage, root) == ["folder/a"]

    def test_delete_below_keeps_to_what_is_below(self, storage: Storage, root: str) -> None:
        for name in ("a/x", "a/b/c/d", "ab/x", "a.txt"):
            storage.put(f"{root}/{name}", b"")
        storage.delete_below(f"{root}/a")
        storage.delete_below(f"{root}/a")
        storage.delete_below(f"{root}/a.txt")
        assert names(storage, root) == ["a.txt", "ab/x"]

    # publishing

    def test_move_into_place_moves_everything(self, storage: Storage, root: str) -> None:
        given = {"index.json": b"{}", "model.safetensors": b"w" * 1000, "heads/a": b"h"}
        for name, data in given.items():
            storage.put(f"{root}/staging/{name}", data)
        storage.move_into_place(f"{root}/staging", f"{root}/out/put")
        assert {
            name: storage.read(f"{root}/out/put/{name}")
            for name in names(storage, f"{root}/out/put")
        } == given
        assert not storage.exists(f"{root}/staging")

    def test_move_into_place_overwrites_nothing(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/staging/a", b"new")
        storage.put(f"{root}/target/a", b"old")
        with pytest.raises(OutputExists, match="target"):
            storage.move_into_place(f"{root}/staging", f"{root}/target")
        assert storage.read(f"{root}/target/a") == b"old"
        assert storage.read(f"{root}/staging/a") == b"new"

    def test_move_onto_an_object_is_refused(self, storage: Storage, root: str) -> None:
        storage.put(f"{root}/staging/a", b"new")
        storage.put(f"{root}/target", b"old")
        with pytest.raises(OutputExists):
            storage.move_into_place(f"{root}/staging", f"{root}/target")
        assert storage.read(f"{root}/target") == b"old"

    def test_move_of_nothing_is_not_found(self, storage: Storage, root: str) -> None:
        with pytest.raises(NotFound, match="staging"):
            storage.move_into_place(f"{root}/staging", f"{root}/target")
        assert not storage.exists(f"{root}/target")

    def test_free_space_is_the_same_disks_for_neighbours_or_unknown(
        self, storage: Storage, root: str
    ) -> None:
        free = [storage.free_space(uris.join(root, *path)) for path in (("not", "yet"), ("here",))]
        assert free == [None, None] or (
            free[0] and free[1] and free[0].free_bytes > 0 and free[0].disk == free[1].disk
        )

    def test_a_signed_address_reads_that_object_alone(self, storage: Storage, root: str) -> None:
        uri = uris.join(root, "a b", "é.bin")
        storage.put(uri, b"twelve bytes")
        storage.put(uris.join(root, "a b", "other"), b"x")
        url = storage.signed_url(uri, seconds=60)
        if url is None:
            assert uris.scheme(uri) == "file", "object stores have web servers"
            return
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.read() == b"twelve bytes"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(url.replace("%C3%A9.bin", "other"), timeout=10)

    def test_errors_name_the_address(self, storage: Storage, root: str) -> None:
        where = f"{root}/missing"
        calls: list[Callable[[], object]] = [
            lambda: storage.stat(where),
            lambda: storage.read(where),
            lambda: storage.read_into(where, memoryview(bytearray(1)), start=0),
        ]
        for call in calls:
            with pytest.raises(NotFound) as caught:
                call()
            assert where in caught.value.message
