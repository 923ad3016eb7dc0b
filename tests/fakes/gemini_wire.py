"""How a fake Gemini reads a request: what it takes, what it refuses, what it writes on the bill."""

from __future__ import annotations

import base64
import binascii
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from fakes import gemini_faults as faults


@dataclass(frozen=True, slots=True)
class FakeModel:
    """What a model takes and gives. Kept apart from the product's catalogue: this is what "the provider" says."""

    sizes: dict[str, int]
    """Image tokens by size; the empty name is what comes without one."""
    jpeg: bool = True


MODELS: dict[str, FakeModel] = {
    "gemini-2.5-flash-image": FakeModel({"": 1290}, jpeg=False),
    "gemini-3-pro-image": FakeModel({"": 1120, "1K": 1120, "2K": 1120, "4K": 2000}),
    "gemini-3.1-flash-image": FakeModel({"": 1120, "512": 747, "1K": 1120, "2K": 1680, "4K": 2520}),
    "gemini-3.1-flash-lite-image": FakeModel({"": 1120}),
    "gemini-nano-banana-2.1": FakeModel({"": 1120, "1K": 1120, "2K": 1680, "4K": 3780}),
}
RATIOS = {
    "1:1": (1024, 1024), "2:3": (832, 1248), "3:2": (1248, 832), "3:4": (864, 1184), "4:3": (1184, 864),
    "4:5": (896, 1152), "5:4": (1152, 896), "9:16": (768, 1344), "16:9": (1344, 768), "21:9": (1536, 672),
}  # fmt: skip  # a table
EXTREME_RATIOS = {"1:4": (512, 2048), "4:1": (2048, 512), "1:8": (384, 3072), "8:1": (3072, 384)}


@dataclass(slots=True)
class Call:
    """One generateContent request, as the provider saw it. Times are seconds of the monotonic clock."""

    number: int
    arrived: float
    path: str
    key: str
    caller: str = ""
    """The name in the address that was called."""
    model: str = ""
    prompt: str = ""
    images: int = 0
    latency: float = 0.0
    fault: str = ""
    status: int = 0
    """0: no answer went out."""
    usage: dict[str, Any] | None = None
    """What is on the bill, served or not; None: nothing."""
    finished: bool = False
    """Whether the whole answer went out."""
    ended: float = 0.0
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """Return a line of JSON without the body, and with the key shortened."""
        facts = asdict(self)
        del facts["body"], facts["headers"]
        return json.dumps(facts | {"key": self.key[:4]})


class RefusedError(Exception):
    """The request is refused with this status and body."""

    def __init__(self, code: int, body: dict[str, Any]) -> None:
        super().__init__(code)
        self.code = code
        self.body = body


def invalid(message: str) -> RefusedError:
    return RefusedError(400, faults.envelope(400, "INVALID_ARGUMENT", message))


def model_card(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "version": "1",
        "displayName": name,
        "inputTokenLimit": 32768,
        "outputTokenLimit": 32768,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
        "temperature": 1,
    }


def usage_of(call: Call, image_tokens: int, *, text: int) -> dict[str, Any]:
    prompt = math.ceil(len(call.prompt) / 4) + 258 * call.images
    details = [{"modality": "IMAGE", "tokenCount": image_tokens}] if image_tokens else []
    return {
        "promptTokenCount": prompt,
        "candidatesTokenCount": image_tokens + text,
        "totalTokenCount": prompt + image_tokens + text,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
        "candidatesTokensDetails": details,
    }


def _either(holder: dict[str, Any], camel: str, snake: str) -> Any:
    return holder.get(camel, holder.get(snake))


def read_contents(call: Call) -> None:
    contents = call.body.get("contents")
    if not isinstance(contents, list) or not contents:
        raise invalid("* GenerateContentRequest.contents: contents is not specified")
    words = []
    for part in (part for content in contents for part in content.get("parts") or []):
        blob = _either(part, "inlineData", "inline_data")
        if blob is not None:
            _check_picture(str(blob.get("data", "")))
            call.images += 1
        elif "text" in part:
            words.append(part["text"])
    call.prompt = " ".join(words)
    if not call.prompt and not call.images:
        raise invalid("* GenerateContentRequest.contents: at least one part must be set")


def _check_picture(data: str) -> None:
    try:
        plain = data.replace("-", "+").replace("_", "/")
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        raise invalid("Base64 decoding failed.") from None
    if not raw.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) and raw[8:12] != b"WEBP":
        raise invalid(
            "Unable to process input image. Please retry or report in https://example.invalid/troubleshooting"
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for."""

    pixels: tuple[int, int]
    image_tokens: int
    jpeg: bool
    output_limit: int


def read_config(call: Call, model: FakeModel) -> Wanted:
    config = _either(call.body, "generationConfig", "generation_config") or {}
    if (_either(config, "candidateCount", "candidate_count") or 1) > 1:
        raise invalid("Multiple candidates is not enabled for this model")
    if _either(config, "responseMimeType", "response_mime_type") not in {None, "text/plain"}:
        raise invalid("response_mime_type: allowed mimetypes are `text/plain`.")
    image = _either(config, "imageConfig", "image_config") or {}
    ratio = _either(image, "aspectRatio", "aspect_ratio") or "1:1"
    size = _either(image, "imageSize", "image_size") or ""
    if ratio not in RATIOS and (len(model.sizes) == 1 or ratio not in EXTREME_RATIOS):
        raise invalid("aspect_ratio must be one of '1:1', '2:3', '3:2', '3:4', '4:3', '9:16', '16:9', or '21:9'.")
    if size not in model.sizes:
        raise invalid(f"Invalid value at 'generation_config.image_config.image_size': {size!r}")
    width, height = (RATIOS | EXTREME_RATIOS)[ratio]
    scale = {"512": 0.5, "2K": 2, "4K": 4}.get(size, 1)
    return Wanted(
        pixels=(int(width * scale), int(height * scale)),
        image_tokens=model.sizes[size],
        jpeg=model.jpeg,
        output_limit=_either(config, "maxOutputTokens", "max_output_tokens") or 0,
    )
