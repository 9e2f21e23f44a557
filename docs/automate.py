"""Makes the automations of docs/automations.yaml on the server that PREFECT_API_URL names.

    python docs/automate.py [URL] [--block NAME] [--kind TYPE]

URL is a webhook that takes a POST of {"text": "..."}: Slack, Mattermost, Teams or a page of your
own. It becomes the notification block NAME, `reelmill` unless said. Called again, it changes what
is there. For mail, PagerDuty and others make the block in Prefect's page and leave URL out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml
from prefect.automations import Automation
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.blocks.notifications import CustomWebhookNotificationBlock

FILE = Path(__file__).with_name("automations.yaml")


def block_of(kind: str, name: str) -> str:
    """The id of a block that somebody made. Raises ValueError."""
    block: Any = Block.load(f"{kind}/{name}")
    if not isinstance(block, NotificationBlock) or block._block_document_id is None:
        raise ValueError(f"{kind}/{name} is no notification block")
    return str(block._block_document_id)


def webhook(url: str, name: str) -> str:
    """Makes or changes a block that posts to `url`; its id."""
    block: Any = CustomWebhookNotificationBlock(  # type: ignore[call-arg]
        name=name, url=url, json_data={"text": "{{subject}}\n{{body}}"}
    )
    return str(block.save(name, overwrite=True))


def automations(block: str) -> list[dict[str, Any]]:
    """What the file says, with the block in each notification."""
    found: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())["automations"]
    for one in found:
        for action in one["actions"]:
            if action["type"] == "send-notification":
                action["block_document_id"] = block
    return found


def make(spec: dict[str, Any]) -> None:
    """Makes an automation, or changes the one of that name."""
    wanted: Any = Automation.model_validate(spec)
    try:
        known: Any = Automation.read(name=wanted.name)
        wanted.id = known.id
        wanted.update()
    except ValueError:
        wanted.create()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", help="webhook that gets the notifications")
    parser.add_argument("--block", default="reelmill", help="name of the notification block")
    parser.add_argument("--kind", default="custom-webhook", help="of a block that is there")
    given = parser.parse_args()
    block = webhook(given.url, given.block) if given.url else block_of(given.kind, given.block)
    for spec in automations(block):
        make(spec)
        print(spec["name"])


if __name__ == "__main__":
    main()
