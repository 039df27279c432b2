"""A person before the console's page of a case, without script."""

import re
from typing import Any

from django.test import Client

from evidence.models import Case, Person
from recovery.enums import Act


class Desk:
    """The console as one person uses it, without script."""

    def __init__(self, person: Person, case: Case) -> None:
        self.client = Client()
        self.client.force_login(person)
        self.case = case

    @property
    def address(self) -> str:
        return f"/console/cases/{self.case.case_id}/"

    def page(self) -> str:
        answer = self.client.get(self.address)
        assert answer.status_code == 200
        return answer.content.decode()

    def shown(self) -> dict[str, str]:
        """Hidden fields of the next action's form, as a browser would send them."""
        form = re.search(
            r'<section class="panel act.*?</section>\s*<section class="panel"', self.page(), re.S
        )
        assert form, "no next action"
        return _hidden(form[0])

    def hidden(self, act: str) -> dict[str, str]:
        """Hidden fields of the form that is sent to ``act``."""
        form = re.search(rf'<form[^>]*/{act}/".*?</form>', self.page(), re.S)
        assert form, f"no form for {act}"
        return _hidden(form[0])

    def send(self, act: Act, expect: int = 302, **fields: Any) -> str:
        answer = self.client.post(f"{self.address}{act}/", fields)
        content = answer.content.decode()
        assert answer.status_code == expect, re.sub(r"<[^>]+>", " ", content)
        return content


def _hidden(form: str) -> dict[str, str]:
    found = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))
    found.pop("csrfmiddlewaretoken", None)
    return found


def heading(page: str) -> str:
    """The title of the action panel."""
    found = re.search(r'<h2 id="act-h">(.*?)</h2>', page)
    return found[1] if found else ""
