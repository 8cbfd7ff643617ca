"""A place is written whole or not at all, by one of several writers."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from fishfeat.errors import StorageError
from fishfeat.images.decode import UnavailableFile
from fishfeat.shards.store import Store


def test_one_of_many_writers_creates_a_file(tmp_path):
    store = Store(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda i: store.create("a.json", str(i).encode()), range(40)))
    assert sum(created) == 1
    assert store.read("a.json") == str(created.index(True)).encode()
    assert store.list_top() == ([], ["a.json"])


def test_a_file_of_another_size_is_not_read(tmp_path):
    store = Store(tmp_path)
    store.write("a", b"four")
    assert store.read("a", n_bytes=4) == b"four"
    with pytest.raises(UnavailableFile, match="size"):
        store.read("a", n_bytes=5)


def test_a_place_may_be_sent_to_another_process(tmp_path):
    store = Store(tmp_path / "x")
    store.write("a", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert (again.url, again.read("a")) == (store.url, b"1")


def test_a_file_that_is_removed_twice_is_gone(tmp_path):
    store = Store(tmp_path)
    store.write("a", b"1")
    store.remove("a")
    store.remove("a")
    assert not store.exists("a")


@pytest.mark.parametrize("url", ["file:///tmp/x", "/tmp/x/", "/tmp/x"])
def test_a_folder_has_one_address(url):
    assert Store(url).url == "/tmp/x"
    assert Store(url).is_local


@pytest.mark.parametrize("url", ["ftp://host/x", "http://host/x", "hdfs://x"])
def test_other_addresses_are_refused(url):
    with pytest.raises(StorageError, match="s3://"):
        Store(url)
