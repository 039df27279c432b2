"""``manage.py demo_walk``: a failed delivery of the running demo, through the whole chain, over HTTP alone."""

import hashlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from recovery.management import demo
from recovery.management.demo import Logins

B = "/runtime/go-pilot/rollback-drill-notifications"
A = f"{B}/acknowledgements/audit-delivery"

# Who does what: four different people.
PLANNER, REVIEWER, APPROVER, OPERATOR = "m.lindqvist", "k.osei", "t.rey", "i.adeyemi"
# Who checks it afterwards.
AUDITOR = "s.iyer"
# A person's act lifts the delay of an approved retry.
IMMEDIATE = {"allow_immediate_retry": True}
REFERENCE = "CHG-789"
ANSWERS_WITHIN_S = 90


class Command(BaseCommand):
    """Drives the documented endpoints as four people and an auditor; prints what was asked and answered."""

    help = f"{__doc__} Ends with an error at the first surprise."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        port = os.environ.get("PORT", "8000")
        parser.add_argument("--url", default=f"http://{demo.LOOPBACK}:{port}", help="Where the console runs.")

    def handle(self, *args: Any, url: str, **options: Any) -> None:
        logins = Logins.read()
        if logins is None:
            raise CommandError("There is no demo here yet. Start it first: make run")
        self.url, self.people, self.step = url.rstrip("/"), logins.people, 0
        cases = self.failed() or self.fail()
        provider = cases[0]["provider"]
        self.say(f"{len(cases)} failed: {', '.join(case['case'] for case in cases)}")
        self.approve([case["case"] for case in cases])
        executions = self.run_worker([case["case"] for case in cases])
        self.close(provider, executions)
        for case in cases:
            self.verify(case["case"])
        self.take_away(cases[0]["case"])
        self.stdout.write(
            self.style.SUCCESS(
                f"\nThe recovery of {provider} is closed as resolved, by four people. A fifth took the proof away."
            )
        )

    # --- the chain ----------------------------------------------------------------------------------------------

    def failed(self) -> list[dict[str, Any]]:
        """What waits for a retry: the failed cases of the connector that failed first."""
        self.stdout.write(f"{{B}} = {B}\n{{A}} = {A}")
        self.title("What failed")
        self.get(PLANNER, f"{B}?delivery_success=false&limit=5", shows="total")
        found = self.get(PLANNER, "/api/v1/cases?state=failed&limit=500", shows="total")["items"]
        return [case for case in found if case["provider"] == found[-1]["provider"]]

    def fail(self) -> list[dict[str, Any]]:
        """Deliver something new while the receiver is down, when everything has been delivered."""
        self.title("Nothing is left to retry: the receiver fails, and a drill is announced and delivered")
        self.control("/fail")
        schedules = {route["schedule_id"] for route in self.get(PLANNER, f"{B}/routes?limit=500")["items"]}
        plan = self.post(
            PLANNER,
            f"{B}/deliver",
            {"schedule_id": min(schedules), "force": True, "retries": 0},
            shows="plan.plan_id",
        )["plan"]
        self.post(
            PLANNER,
            f"{B}/{plan['schedule_id']}/acknowledgements",
            {
                "provider": plan["selected_providers"][0],
                "plan_id": plan["plan_id"],
                "external_ref": REFERENCE,
            },
            shows="acknowledgement.acknowledgement_id",
        )
        self.post(
            PLANNER,
            A,
            {
                "schedule_id": plan["schedule_id"],
                "delivery_provider": "splunk",
                "retries": 0,
                "timeout_seconds": 5,
            },
            shows="success delivery_plan.delivery_id",
        )
        found: list[dict[str, Any]] = self.get(
            PLANNER, "/api/v1/cases?state=failed&limit=500", shows="total"
        )["items"]
        self.expect(bool(found), "the delivery did not fail")
        return found

    def approve(self, cases: Sequence[str]) -> None:
        """Plan, review and ask as analysts; decide as the approver, who did none of that."""
        self.title("Plan the retry, have it reviewed, ask for approval")
        plan = self.post(
            PLANNER,
            f"{A}/retry-plan",
            {"retry_policy": IMMEDIATE, "cases": list(cases)},
            shows="plan.retry_plan_id plan.retryable_count",
        )["plan"]
        self.expect(plan["retryable_count"] == len(cases), "the plan does not retry every case")
        for decision in plan["retry_decisions"]:
            self.post(
                REVIEWER,
                f"{A}/retry-plans/{plan['retry_plan_id']}/acknowledgements",
                {**ids(decision), "acknowledgement_state": "accepted", "external_ref": REFERENCE},
                shows="acknowledgement.acknowledgement_id acknowledgement.acknowledgement_state",
            )
        request = self.post(
            PLANNER,
            f"{A}/retry-execution-approval-plan",
            {
                "approval_policy": {"require_retry_ack": True},
                "cases": list(cases),
                "reason": "The cause is known; the receiver is being restarted.",
            },
            shows="plan.approval_plan_id plan.approval_required_count",
        )["plan"]
        self.title("A second person decides about exactly these bytes")
        for entry in request["approval_decisions"]:
            self.expect(entry["action"] == "request_approval", f"the entry says {entry['action']}")
            self.post(
                APPROVER,
                f"{A}/retry-execution-approval-plans/{request['approval_plan_id']}/decisions",
                {
                    **ids(entry),
                    "approval_state": "approved",
                    "manifest_digest": entry["manifest_digest"],
                    "notes": "Read the manifest; the cause is known and fixed.",
                },
                shows="decision.decision_id decision.approval_state decision.manifest_digest",
            )

    def run_worker(self, cases: Sequence[str]) -> list[str]:
        """Dry first, then live, once the receiver is back; the ids of what was delivered."""
        self.title("The receiver recovers; the operator runs the worker, dry and then live")
        self.post(
            OPERATOR,
            f"{A}/worker-run",
            {"dry_run": True, "retry_policy": IMMEDIATE, "cases": list(cases)},
            shows="run.run_id run.selected_retry_count",
        )
        self.control("/recover")
        results = self.post(
            OPERATOR,
            f"{A}/worker-run",
            {"execute": True, "retry_policy": IMMEDIATE, "cases": list(cases), "max_retry_deliveries": 25},
            shows="run.run_id run.selected_retry_count",
        )["retry_results"]
        self.expect(len(results) == len(cases), f"{len(results)} of {len(cases)} were executed")
        executions = []
        for result in results:
            execution = result["execution_record"] or {}
            status = execution.get("execution_status") or result["skipped"]
            self.say(f"{result['case']}: {status}, attempt {execution.get('attempt_no')}")
            self.expect(status == "delivered", f"{result['case']} is {status}")
            executions.append(execution["execution_id"])
        return executions

    def close(self, provider: str, executions: Sequence[str]) -> None:
        """A playbook for what failed, and its closure by somebody who executed nothing."""
        self.title("Write the recovery playbook; another person closes the recovery with evidence")
        playbook = self.post(
            PLANNER,
            f"{A}/connector-recovery-playbook",
            {"min_failure_count": 1},
            shows="playbook.playbook_id playbook.provider_count",
        )["playbook"]
        self.post(
            REVIEWER,
            f"{A}/connector-recovery-playbooks/{playbook['playbook_id']}/closures",
            {
                "provider": provider,
                "closure_state": "resolved",
                "verification_refs": list(executions),
                "external_ref": REFERENCE,
            },
            shows="closure.closure_id closure.closure_state",
        )

    def verify(self, case_id: str) -> None:
        """Check a case's records by their bytes: digests, and the chain of seal entries that names the case."""
        self.title(f"Check the records of {case_id}, byte by byte")
        case = self.get(REVIEWER, f"/api/v1/cases/{case_id}", shows="state attempt_count settled_at")
        self.expect(case["state"] == "delivered", f"the case is {case['state']}")
        previous = None
        for link in case["records"]:
            body = self.fetch(REVIEWER, f"/api/v1/records/{link['id']}/bytes")
            sealed = self.fetch(REVIEWER, f"/api/v1/records/{link['id']}/seal")
            entry = json.loads(sealed)
            place = next(item for item in entry["cases"] if item["case"] == case_id)
            self.expect(
                hashlib.sha256(body).hexdigest() == entry["body"]["sha256"] == link["hash"], "a body differs"
            )
            self.expect((place["n"], place["prev"]) == (link["n"], previous), "the case's chain is broken")
            previous = hashlib.sha256(b"\x00" + sealed).hexdigest()
            self.say(f"{place['n']:>2}  entry {entry['index']:<5} {link['id']}")

    def take_away(self, case_id: str) -> None:
        """Freeze the case into a capsule, and let the program inside say what it proves."""
        self.title(f"The auditor takes {case_id} away and checks it with what is in the zip alone")
        made = self.post(
            AUDITOR,
            f"/api/v1/cases/{case_id}/capsules",
            {"notes": "The walk through the demo."},
            shows="capsule_id records log_size",
        )
        keys = self.get(AUDITOR, "/api/v1/ledger/keys")["items"]
        folder = settings.CAVRA_DATA / "capsules"
        folder.mkdir(parents=True, exist_ok=True)
        capsule, known = folder / f"{made['capsule_id']}.zip", folder / "ledger.vkey"
        capsule.write_bytes(self.fetch(AUDITOR, f"/api/v1/capsules/{made['capsule_id']}"))
        known.write_text("".join(f"{key['vkey']}\n" for key in keys if key["state"] != "revoked"))
        done = checked(capsule, known)
        self.expect(done.returncode == 0, f"verify.py says {done.stdout or done.stderr}")
        self.say(f"verify.py: {proven(done.stdout)}")
        self.say(f"zip: {capsule}")
        self.say(f"again: python3 evidence/capsule/verify.py {capsule} --key {known}")

    # --- one call -------------------------------------------------------------------------------------------------

    def get(self, name: str, path: str, *, shows: str = "") -> Any:
        """JSON of a GET as ``name``; ``shows`` are the keys worth printing."""
        return self.call(name, "GET", path, None, shows)

    def post(self, name: str, path: str, body: dict[str, Any], *, shows: str = "") -> Any:
        """JSON that answers a POST of ``body`` as ``name``."""
        return self.call(name, "POST", path, body, shows)

    def call(self, name: str, method: str, path: str, body: dict[str, Any] | None, shows: str) -> Any:
        """One numbered call, printed; anything but a 200 is a surprise."""
        answer = json.loads(self.fetch(name, path, method, body))  # any other status ended the walk
        self.step += 1
        self.stdout.write(
            f"{self.step:>3}  {name:11}  {method:4}  200  {path.replace(A, '{A}').replace(B, '{B}')}"
        )
        for key in shows.split():
            value = answer
            for part in key.split("."):
                value = value[part]
            self.say(f"{key.rpartition('.')[2]}: {value}")
        return answer

    def fetch(self, name: str, path: str, method: str = "GET", body: dict[str, Any] | None = None) -> bytes:
        """Bytes of an answer; a refusal ends the walk with what it says."""
        request = urllib.request.Request(  # noqa: S310  (an address from the command line)
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "authorization": f"Bearer {self.people[name].token}",
                "content-type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWERS_WITHIN_S) as answer:  # noqa: S310
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:1_000]
            raise CommandError(f"{name}: {method} {path} was answered {error.code}: {said}") from error
        except OSError as error:
            raise CommandError(
                f"Nobody answers at {self.url}: {error}. Start the demo first: make run"
            ) from error

    def control(self, order: str) -> None:
        """Tell the demo's receiver to be well or down."""
        request = urllib.request.Request(demo.receiver_url(order), method="POST")  # noqa: S310  (loopback)
        try:
            urllib.request.urlopen(request, timeout=5).close()  # noqa: S310
        except OSError as error:
            raise CommandError(f"The demo's receiver does not answer: {error}") from error
        self.say(f"receiver: {order[1:]}")

    def title(self, words: str) -> None:
        """Head of a part."""
        self.stdout.write(f"\n{words}")

    def say(self, words: str) -> None:
        """A line below a call."""
        self.stdout.write(f"     {words}")

    def expect(self, holds: bool, otherwise: str) -> None:
        """End the walk when something is not as it has to be."""
        if not holds:
            raise CommandError(f"A surprise: {otherwise}.")


def checked(capsule: Path, known: Path) -> "subprocess.CompletedProcess[str]":
    """What the program in a capsule says of it: a plain interpreter in a folder with the unpacked zip alone."""
    with TemporaryDirectory() as empty, zipfile.ZipFile(capsule) as archive:
        archive.extractall(empty)
        return subprocess.run(  # noqa: S603  (our own program, as the zip has it)
            [sys.executable, "-I", "verify.py", "--key", str(known.resolve())],
            cwd=empty,
            env={},
            capture_output=True,
            text=True,
            timeout=ANSWERS_WITHIN_S,
            check=False,
        )


def proven(said: str) -> str:
    """The part about what is proven, without the keys: a line for each fact."""
    shown = said.partition("PROVEN by")[2].partition("NOT PROVEN")[0].split("\n- ")[1:]
    return "\n     - ".join(["PROVEN", *(" ".join(fact.split()) for fact in shown)])


def ids(item: dict[str, Any]) -> dict[str, Any]:
    """What names one decision or entry of a plan."""
    return {key: item[key] for key in ("provider", "delivery_id", "audit_id")}
