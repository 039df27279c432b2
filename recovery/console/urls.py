"""Addresses of the console's pages about decisions. Those of a case stand before the facts' own page of it."""

from django.urls import URLPattern, path

from recovery.console import (
    case_list_views,
    case_views,
    overview_views,
    recovery_views,
    run_views,
    set_views,
    statement_views,
)
from recovery.console.actions import ACTIONS
from recovery.console.set_actions import ACTIONS as SET_ACTIONS

app_name = "recovery"

urlpatterns: list[URLPattern] = [
    path("console/", overview_views.overview, name="overview"),
    path("console/attention/", overview_views.waits, name="attention"),
    path("console/approvals/", overview_views.approval_queue, name="approvals"),
    path("console/runs/", run_views.run_list, name="runs"),
    path("console/runs/start/", run_views.start, name="start-run"),
    path("console/runs/<str:run_id>/", run_views.run, name="run"),
    path("console/recoveries/", recovery_views.recovery_list, name="recoveries"),
    # A connector's key has no hyphen, so this is no connector's page.
    path("console/recoveries/write-playbook/", recovery_views.write_playbook, name="write-playbook"),
    path("console/recoveries/<str:provider>/", recovery_views.recovery, name="recovery"),
    path("console/recoveries/<str:provider>/playbook/", recovery_views.write_playbook, name="playbook"),
    path("console/recoveries/<str:provider>/steps/<str:step_key>/", recovery_views.tick, name="step"),
    path("console/recoveries/<str:provider>/close/", recovery_views.close, name="close"),
    path("console/statements/retries/", statement_views.retries, name="statements"),
    path("console/sets/", set_views.set_list, name="sets"),
    # An id of a set has a hyphen, so this is none.
    path("console/sets/choose/", case_list_views.choose, name="choose"),
    path("console/sets/<str:set_id>/", set_views.retry_set, name="set"),
    path("console/sets/<str:set_id>/select/", set_views.select, name="set-select"),
    path("console/sets/<str:set_id>/begin-again/", set_views.begin_again, name="set-again"),
    *(
        path(
            f"console/sets/<str:set_id>/{act}/",
            set_views.perform,
            {"act": act.value},
            name=f"set-{act.value}",
        )
        for act in SET_ACTIONS
    ),
    path("console/reconcile/", case_list_views.attest_all, name="attest-all"),
    path("console/cases/", case_list_views.cases, name="cases"),
    path("console/cases/<str:case_id>/", case_views.case, name="case"),
    *(
        path(f"console/cases/<str:case_id>/{act}/", case_views.perform, {"act": act.value}, name=act.value)
        for act in ACTIONS
    ),
]
