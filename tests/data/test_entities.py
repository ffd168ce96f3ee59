"""Entities of captions: nouns, noun phrases, and a chat model that the test plays on loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ovs_lite.data.captions import extract_words
from ovs_lite.data.chat_entities import INSTRUCTION, ChatParser, read_entities
from ovs_lite.data.entities import ChunkParser, NounParser, tagged_parser
from ovs_lite.data.tagging import load_tagger

TAGGER = load_tagger("shipped")
CHUNKS = {
    "a red fire truck": ["red fire truck"],
    "two small brown dogs next to a tree": ["small brown dog", "tree"],
    "a sunny picture of a cat": ["cat"],
    "the left dog and several cats": ["dog", "cat"],
    "a dog, a dog and a black dog": ["dog", "black dog"],
    "it is red": [],
    "": [],
}


@pytest.mark.parametrize("caption", CHUNKS)
def test_a_chunk_is_a_run_of_nouns_with_the_adjectives_before_it(caption):
    assert ChunkParser(TAGGER).parse(caption) == CHUNKS[caption]


class Fixed:
    """A tagger that knows the answer."""

    name = "fixed"

    def __init__(self, *tagged):
        self.tagged = list(tagged)

    def tag(self, text):
        return self.tagged


def test_what_stands_between_parts_a_chunk():
    words = [("big", "JJ"), ("and", "CC"), ("wet", "JJ"), ("Dogs", "NNS"), ("park", "VBP"), ("car", "NN"), ("s", "POS")]
    assert ChunkParser(Fixed(*words, ("owner", "NN"))).parse("x") == ["wet dog", "car", "owner"]
    assert ChunkParser(Fixed(("dog", "NN"), ("small", "JJ"), ("cat", "NN"))).parse("x") == ["dog", "small cat"]
    assert ChunkParser(Fixed(("dog", "NN"), ("photo", "NN")), frozenset({"photo"})).parse("x") == []


def test_nouns_are_those_of_extract_words():
    caption = "a red fire hydrant and two wine glasses on the grass"
    parser = tagged_parser("nouns", ["fire hydrant"], TAGGER)
    assert parser.parse(caption) == extract_words(caption, ("noun",), ["fire hydrant"], TAGGER)
    assert "fire hydrant" in parser.parse(caption) and "red" not in parser.parse(caption)
    assert (parser.name, ChunkParser(TAGGER).name) == ("nouns by shipped", "chunks by shipped")
    assert isinstance(parser, NounParser) and NounParser().parse("a dog") == ["dog"]


@pytest.mark.parametrize("parser", [NounParser((), TAGGER), ChunkParser(TAGGER), ChatParser("http://localhost:1")])
def test_a_caption_that_is_no_text_is_refused(parser):
    with pytest.raises(ValueError, match="got a caption of type NoneType"):
        parser.parse(None)


def test_an_unknown_parser_is_refused():
    with pytest.raises(ValueError, match="got parser 'verbs', expected nouns or chunks"):
        tagged_parser("verbs")


@pytest.fixture
def service():
    """A chat service on loopback: `service.reply` is its next answer, (status, bytes), `service.asked` what it got."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.asked.append((self.path, json.loads(body), dict(self.headers)))
            status, answer = server.reply
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *about):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.reply = [], (200, b"")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def completion(content):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()


def parser_of(service, path="/v1", **more):
    return ChatParser(f"http://127.0.0.1:{service.server_port}{path}", "toy", **more)


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/chat/completions"])
def test_a_chat_model_is_asked_as_openai_s_protocol_says(service, path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nothing there
    service.reply = 200, completion('["Red  fire truck", "dog", "dog", " "]')
    assert parser_of(service, path).parse("a red\nfire truck") == ["red fire truck", "dog"]
    [(asked, question, headers)] = service.asked
    assert asked == "/v1/chat/completions" and headers["Content-Type"] == "application/json"
    assert (question["model"], question["temperature"]) == ("toy", 0)
    assert [m["content"] for m in question["messages"]] == [INSTRUCTION, "a red fire truck"]
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    "status, answer, kind, message",
    [
        (500, b"out of memory", ConnectionError, "500 Internal Server Error, out of memory"),
        (200, b"<html>", ValueError, "got <html>, expected an answer of a chat completion"),
        (200, b'{"choices": []}', ValueError, "expected an answer of a chat completion"),
        (200, completion("The entities are: dog"), ValueError, "expected one JSON array of texts"),
        (200, completion('["dog"] and more'), ValueError, "expected one JSON array of texts"),
        (200, completion('["dog", 3]'), ValueError, "expected one JSON array of texts"),
        (200, completion('{"entities": ["dog"]}'), ValueError, "expected one JSON array of texts"),
        (200, completion(None), ValueError, "got None, expected one JSON array"),
        (200, completion(json.dumps(["dog " * 60])), ValueError, "more than 160 letters"),
        (200, b" " * ((1 << 20) + 1), ValueError, "got more than 1,048,576 bytes"),
    ],
)
def test_an_answer_of_another_form_is_refused(service, status, answer, kind, message):
    service.reply = status, answer
    with pytest.raises(kind, match=message):
        parser_of(service).parse("a dog")


def test_a_service_that_is_not_there_or_too_slow_is_named():
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:  # accepts and never answers
        for port, reason in ((silent.server_port, "timed out"), (1, "refused")):
            with pytest.raises(ConnectionError, match=f"toy at http://127.0.0.1:{port}.*{reason}"):
                ChatParser(f"http://127.0.0.1:{port}", "toy", timeout=0.2).parse("a dog")


@pytest.mark.parametrize("settings", [{"url": "file:///etc/passwd"}, {"url": "http://x", "timeout": 0}])
def test_a_url_of_another_kind_is_refused(settings):
    with pytest.raises(ValueError, match="got (the URL 'file|a timeout of 0)"):
        ChatParser(**settings)


def test_a_fence_around_the_array_is_read():
    assert read_entities('```json\n["dog"]\n```', "x") == read_entities('["dog"]', "x") == ["dog"]
    assert read_entities("[]", "x") == []
