"""What users ask for: names, phrases, files, and every way to get them wrong."""

import os

import pytest

from ovs_lite.data.queries import called, parse_queries, phrases
from ovs_lite.data.vocabulary import list_vocabularies, load_vocabulary


def test_queries_are_cleaned_and_checked():
    assert parse_queries(" cat,traffic  light ") == parse_queries(["cat ", "traffic light"]) == ["cat", "traffic light"]
    assert parse_queries(("a, b",)) == ["a, b"], "commas inside a list's names are the user's"
    for wrong in ("", " , ", "cat,,dog", [], [""], ["cat", 3], None, {"cat"}, 7, "cat|", "|cat", ["cat||pet"]):
        with pytest.raises(ValueError, match="queries"):
            parse_queries(wrong)
    with pytest.raises(ValueError, match="'Cat', 'cat' more than once"):
        parse_queries(["cat", "dog", "Cat"])
    with pytest.raises(ValueError, match=r"got the name '\\udce9t' in queries, expected text in UTF-8"):
        parse_queries(["\udce9t"])


def test_a_query_of_several_phrases_is_called_by_its_first():
    queries = parse_queries("cat | kitten|  pet, grass,the sky|clouds")
    assert queries == ["cat|kitten|pet", "grass", "the sky|clouds"]
    assert list(map(called, queries)) == ["cat", "grass", "the sky"]
    assert phrases(queries) == (["cat", "kitten", "pet", "grass", "the sky", "clouds"], [0, 0, 0, 1, 2, 2])
    for twice in ("cat|Cat", "cat|pet, dog|pet", "cat|pet,Pet"):
        with pytest.raises(ValueError, match="more than once in queries"):
            parse_queries(twice)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["bare", "BOM"])
def test_a_file_has_one_query_per_line(tmp_path, end, mark):
    lines = ["cat|kitten", "bread, sliced", "", "  # 7  ", "猫", "@home"]
    (tmp_path / "names.txt").write_bytes(mark + end.join(line.encode() for line in lines) + end)
    expected = ["cat|kitten", "bread, sliced", "# 7", "猫", "@home"]
    assert parse_queries(f"@{tmp_path / 'names.txt'}") == parse_queries(f" @{tmp_path / 'names.txt'} ") == expected


def test_files_that_hold_no_queries_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # reading it would wait forever
    for absent in ("none.txt", ".", "pipe"):
        with pytest.raises(FileNotFoundError, match="no such file of queries"):
            parse_queries(f"@{tmp_path / absent}")
    for name, content in (("empty.txt", b" \n\n"), ("latin.txt", "caf\xe9".encode("latin-1"))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: .*expected text with one query per line"):
            parse_queries(f"@{tmp_path / name}")


@pytest.mark.parametrize("name", list_vocabularies())
def test_a_vocabulary_asks_for_every_class_by_synonyms_that_are_its_own(name):
    vocabulary = load_vocabulary(name)
    words, owners = phrases(parse_queries(vocabulary.queries()))
    kept = [index for index in range(len(vocabulary)) if index != vocabulary.background]
    assert [vocabulary.index(called(query)) for query in vocabulary.queries()] == kept
    assert [vocabulary.index(word) for word in words] == [kept[owner] for owner in owners]
    assert len(words) > len(kept) or not any(vocabulary.synonyms)
