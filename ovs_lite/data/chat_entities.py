"""Entities of captions by a chat model behind a URL that speaks OpenAI's protocol: llama.cpp, vLLM, Ollama, LM Studio.

Uni-OVSeg (Wang et al., 2024), section 3.3: "ChatGPT-based parser". Its prompt was not published; `INSTRUCTION` is ours.
The captions are sent to the URL that the user gives, and nowhere else.
"""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from ovs_lite.data.caption_text import clean_caption
from ovs_lite.data.captions import LONGEST

INSTRUCTION = (
    "List the physical objects and materials that the caption says are visible in the image. Keep words that describe "
    'them, in the singular, lower-case, without articles and numbers, e.g. "red fire truck". Leave out words for the '
    "image itself, times and abstract things. Answer with one JSON array of strings and nothing else."
)
MOST_BYTES = 1 << 20  # of an answer
MOST_LETTERS = 4 * LONGEST  # of an entity


@dataclass(frozen=True)
class ChatParser:
    """An `EntityParser` that asks a chat model, one caption at a time and at temperature 0.

    url: of the service, "http://localhost:8080/v1", or with "/chat/completions" at its end. model: as the service
    calls it. timeout: seconds for an answer. No proxy is asked, and no key is sent.
    Raises ValueError for a URL that is not http or https.
    """

    url: str
    model: str = "default"
    timeout: float = 60.0

    def __post_init__(self):
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"got the URL {self.url!r} of a chat model, expected http://... or https://...")
        if not self.timeout > 0:
            raise ValueError(f"got a timeout of {self.timeout} seconds, expected more than 0")

    @property
    def name(self) -> str:
        """Kind, model and place."""
        return f"chat model {self.model} at {self.url}"

    def parse(self, caption: str) -> list[str]:
        """See `EntityParser.parse`. Raises ConnectionError where no answer comes, ValueError for an answer that is not
        one JSON array of texts."""
        if not isinstance(caption, str):
            raise ValueError(f"got a caption of type {type(caption).__name__}, expected text")
        messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": clean_caption(caption)}]
        answer = self._ask({"model": self.model, "temperature": 0, "messages": messages})
        try:
            content = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            raise ValueError(f"{self.name}: got {_shown(answer)}, expected an answer of a chat completion") from None
        return read_entities(content, self.name)

    def _ask(self, question: dict[str, Any]) -> bytes:
        url = self.url.rstrip("/")
        url = url if url.endswith("/chat/completions") else f"{url}/chat/completions"
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(question).encode(), headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=self.timeout) as stream:
                answer = stream.read(MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            raise ConnectionError(f"{self.name}: {error.code} {error.reason}, {_shown(error.read(1000))}") from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise ConnectionError(f"{self.name}: no answer ({reason}); is the service running at that URL?") from None
        if len(answer) > MOST_BYTES:
            raise ValueError(f"{self.name}: got more than {MOST_BYTES:,} bytes, expected the entities of a caption")
        return answer


def read_entities(content: Any, name: str) -> list[str]:
    """A model's text -> entities: one JSON array of texts, perhaps in a fence of three backticks, and nothing else.

    Whitespace is made single, letters lower-case, duplicates and empty texts are left out. Raises ValueError.
    """
    try:
        text = content.strip()
        if text.startswith("```") and text.endswith("```"):
            text = text[3:-3].removeprefix("json")
        entities = json.loads(text)
    except (ValueError, AttributeError, RecursionError):
        entities = None
    if not isinstance(entities, list) or not all(isinstance(one, str) for one in entities):
        raise ValueError(f"{name}: got {_shown(content)}, expected one JSON array of texts")
    found = list(dict.fromkeys(clean_caption(one).lower() for one in entities))
    if any(len(one) > MOST_LETTERS for one in found):
        raise ValueError(f"{name}: got an entity of more than {MOST_LETTERS} letters, expected a phrase")
    return [one for one in found if one]


def _shown(content: Any) -> str:
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else repr(content)
    return text if len(text) < 200 else f"{text[:200]}..."
