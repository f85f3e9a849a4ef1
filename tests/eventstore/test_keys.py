from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import transaction
from django.test.utils import override_settings

from eventstore import keys
from eventstore.database import writing
from eventstore.encrypted import EncryptedText, encrypt, with_encrypted_texts
from eventstore.models import DataKey

pytestmark = pytest.mark.django_db(transaction=True)

PLACE: dict[str, Any] = {
    "stream_id": UUID(int=7),
    "version": 3,
    "topic": "chatledger.tests.Said",
    "field": "text",
}


def made_keys() -> tuple[UUID, UUID]:
    user, conversation = uuid4(), uuid4()
    with writing():
        keys.create_key(user)
        keys.create_key(conversation, wrapped_by=user)
    keys.forget()
    return user, conversation


def secret(text: str, key_id: UUID) -> EncryptedText:
    mark = encrypt(text, keys.cipher(key_id), key_id=key_id, **PLACE)
    where = {name: value for name, value in PLACE.items() if name != "field"}
    found = with_encrypted_texts({"text": mark}, **where)["text"]
    assert isinstance(found, EncryptedText)
    return found


def test_a_text_comes_back_under_its_key() -> None:
    _, conversation = made_keys()
    packed = secret("grüße, 🦉", conversation).pack()
    assert b"gr" not in packed
    keys.forget()
    assert keys.read_texts([packed, None]) == ["grüße, 🦉", None]


def test_a_text_moved_to_another_place_cannot_be_read() -> None:
    _, conversation = made_keys()
    text = secret("hello", conversation)
    for change in ({"version": 4}, {"field": "title"}, {"topic": "x"}, {"stream_id": uuid4()}):
        names = ("key_id", "stream_id", "version", "topic", "field", "box")
        moved = EncryptedText(**{**{name: getattr(text, name) for name in names}, **change})
        with pytest.raises(keys.KeyUnreadable):
            keys.read_text(moved.pack())


def test_a_destroyed_key_reads_as_erased_and_so_does_all_it_wraps() -> None:
    user, conversation = made_keys()
    packed = [secret("alice", user).pack(), secret("hello", conversation).pack()]
    DataKey.objects.filter(id=user).update(wrapped=None)
    keys.forget()
    assert keys.read_texts(packed) == [keys.ERASED, keys.ERASED]
    with pytest.raises(keys.KeyDestroyed):
        keys.cipher(conversation)


def test_what_a_key_encrypted_is_erased_with_it_and_nothing_else_is() -> None:
    user, conversation = made_keys()
    packed = [secret("alice", user).pack(), secret("hello", conversation).pack()]
    assert keys.read_texts(packed) == ["alice", "hello"]
    with writing():
        keys.destroy(conversation, user_id=uuid4())
    assert keys.read_texts(packed) == ["alice", keys.ERASED]
    with pytest.raises(keys.KeyDestroyed):
        keys.cipher(conversation)
    assert DataKey.objects.get(id=conversation).wrapped is None


def test_a_destruction_that_is_rolled_back_erases_nothing() -> None:
    _, conversation = made_keys()
    packed = secret("hello", conversation).pack()
    with pytest.raises(RuntimeError), writing():
        keys.destroy(conversation, user_id=uuid4())
        assert keys.read_text(packed) == keys.ERASED
        raise RuntimeError
    assert keys.read_text(packed) == "hello"


def test_whoever_read_a_key_before_its_destruction_does_not_bring_it_back() -> None:
    _, conversation = made_keys()
    packed = secret("hello", conversation).pack()
    read_before = keys.cipher(conversation)
    with writing():
        keys.destroy(conversation, user_id=uuid4())
    keys._cache.put(conversation, read_before)
    assert keys.read_text(packed) == keys.ERASED


def test_a_destruction_whose_commit_had_no_answer_is_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, conversation = made_keys()
    packed = secret("hello", conversation).pack()
    monkeypatch.setattr(transaction, "on_commit", lambda told: None)
    with writing():
        keys.destroy(conversation, user_id=uuid4())
    assert keys.read_text(packed) == keys.ERASED


def test_a_key_that_is_not_there_is_an_error_and_no_erasure() -> None:
    user, _ = made_keys()
    packed = secret("alice", user).pack()
    DataKey.objects.all().delete()
    keys.forget()
    with pytest.raises(keys.KeyUnreadable):
        keys.read_text(packed)


def test_another_data_key_is_an_error_and_the_previous_one_still_opens() -> None:
    from django.conf import settings

    user, _ = made_keys()
    packed = secret("alice", user).pack()
    keys.forget()
    with override_settings(DATA_KEY=b"x" * 32), pytest.raises(keys.KeyUnreadable):
        keys.read_text(packed)
    with override_settings(DATA_KEY=b"x" * 32, DATA_KEY_PREVIOUS=settings.DATA_KEY):
        assert keys.read_text(packed) == "alice"


def test_the_names_key_is_made_once() -> None:
    first = keys.names_key()
    keys.forget()
    assert keys.names_key() == first
    assert len(first) == keys.KEY_BYTES
