"""A multimodal model as a judge, over an OpenAI-compatible endpoint.

    python -m reelmill.evaluation.adapters.judge MANIFEST SCORES --url http://host/v1 --model NAME

It is shown six frames and a checklist made from the prompt, and answers yes or no to each point;
the score is the share of yes. It hears nothing, so nothing is asked about sound. An opinion: name
the model beside the number. The key, if the server wants one, is read from --key-env.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from reelmill.errors import MediaError
from reelmill.evaluation.clip import read_clip

FRAMES = 6
MAX_ANSWER = 1 << 20
TRIES = 3
TAGGED = re.compile(r"<(dialogue|singing|sfx|bgm)>.*?</\1>", re.DOTALL)
ASK = (
    "These are {frames} frames of one video, in order. Answer each point from what is visible, "
    'with one JSON object and nothing else: {{"answers": [true, false, ...]}}, one for each of the '
    "{points} points.\n{checklist}"
)


def checklist(row: dict[str, Any]) -> list[str]:
    """What can be seen: each sentence of the prompt, each text, and the number of shots."""
    seen = re.sub(r"</?\w+>", "", TAGGED.sub(" ", row["text"]))
    sentences = [s.strip() for s in re.split(r"(?<=[.!?\u3002\uff01\uff1f])", seen)]
    points = [f"The frames agree with: {s}" for s in sentences if sum(map(str.isalnum, s)) >= 4]
    points += [f"The words {text!r} can be read." for text in row.get("screen_text", ())]
    points.append(
        f"There are {len(row['cuts']) + 1} different shots."
        if row.get("cuts")
        else "All frames are of one shot."
    )
    return points


def answers(reply: str, points: int) -> list[bool]:
    """Raises ValueError for anything but one answer per point."""
    found = re.search(r"\{.*\}", reply, re.DOTALL)
    told = json.loads(found[0])["answers"] if found else None
    if not (isinstance(told, list) and len(told) == points):
        raise ValueError(f"no {points} answers")
    if not all(isinstance(one, bool) for one in told):
        raise ValueError("an answer is neither true nor false")
    return told


def pictures(stills: np.ndarray) -> list[str]:
    """Frames spread over the clip, as data URLs."""
    places = np.unique(np.linspace(0, len(stills) - 1, FRAMES).round().astype(int))
    made = [cv2.imencode(".jpg", stills[i])[1].tobytes() for i in places]
    return ["data:image/jpeg;base64," + base64.b64encode(jpeg).decode() for jpeg in made]


def ask(url: str, model: str, key: str, images: Sequence[str], points: list[str]) -> str:
    """The model's reply. Raises OSError, ValueError."""
    listed = "\n".join(f"{i}. {point}" for i, point in enumerate(points, 1))
    text = ASK.format(frames=len(images), points=len(points), checklist=listed)
    shown = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    body = {
        "model": model,
        "temperature": 0,
        "messages": [{"role": "user", "content": [{"type": "text", "text": text}, *shown]}],
    }
    request = urllib.request.Request(
        f"{url.rstrip('/')}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})},
    )
    for attempt in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                reply = json.loads(response.read(MAX_ANSWER))
                return str(reply["choices"][0]["message"]["content"])
        except urllib.error.HTTPError as error:
            if attempt == TRIES - 1 or (error.code < 500 and error.code != 429):
                raise
        time.sleep(2.0**attempt)
    raise AssertionError("unreachable")


def judged(row: dict[str, Any], url: str, model: str, key: str) -> float | str:
    """The share of yes, or why nothing was asked. Raises OSError, ValueError, MediaError."""
    if row.get("text") is None:
        return "the clip has no prompt"
    stills = read_clip(Path(row["path"])).stills
    if not len(stills):
        return "the clip has no picture"
    points = checklist(row)
    told = answers(ask(url, model, key, pictures(stills), points), len(points))
    return sum(told) / len(told)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("scores", type=Path)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--key-env", default="")
    args = parser.parse_args()
    key = os.environ.get(args.key_env, "")
    with args.scores.open("w", encoding="utf-8") as file:
        for line in args.manifest.read_text("utf-8").splitlines():
            row = json.loads(line)
            told: dict[str, Any] = {"key": row["key"], "metric": "JudgeChecklist"}
            try:
                found = judged(row, args.url, args.model, key)
            except (OSError, ValueError, KeyError, IndexError, TypeError, MediaError) as error:
                print(f"{row['key']}: {error}", file=sys.stderr)
                continue
            told |= {"value": None, "why": found} if isinstance(found, str) else {"value": found}
            file.write(json.dumps(told) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
